//! What a watcher was told and has not read yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use quorate_engine::{Event, KeyValue, WatchBatch};

use crate::{Error, Result};

/// How much may wait to be read. More than that and the watcher is too slow: it reads what is here, is
/// told so, and may watch again from there.
const MOST_BATCHES: usize = 1024;
const MOST_BYTES: usize = 8 << 20;

/// A bounded queue from the stream's task to one watcher.
#[derive(Debug, Default)]
pub(super) struct Buffer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<WatchBatch>,
    /// The size of `batches`, roughly.
    bytes: usize,
    /// What ends the watch once `batches` is read: an error to tell, or none after it was told.
    end: Option<Option<Error>>,
    reader: Option<Waker>,
}

impl Buffer {
    /// Adds a batch; false if there is no room.
    pub(super) fn push(&self, batch: WatchBatch) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return true;
        }
        if batch.events.is_empty() {
            // Of several signs of life in a row the last is enough.
            if let Some(last) = state
                .batches
                .back_mut()
                .filter(|last| last.events.is_empty())
            {
                *last = batch;
                return true;
            }
        }
        let bytes = size(&batch);
        let full = state.batches.len() >= MOST_BATCHES || state.bytes + bytes > MOST_BYTES;
        if full && !state.batches.is_empty() {
            return false;
        }
        state.bytes += bytes;
        state.batches.push_back(batch);
        wake(state);
        true
    }

    /// Lets the watch end with `error` once everything before is read. The first end counts.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(Some(error));
            wake(state);
        }
    }

    /// The next batch, the error that is the last item, or none after it.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Option<Result<WatchBatch>>> {
        let mut state = self.state();
        if let Some(batch) = state.batches.pop_front() {
            state.bytes -= size(&batch);
            return Poll::Ready(Some(Ok(batch)));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(end.take().map(Err));
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(context.waker()),
            None => state.reader = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while the lock is held")
    }
}

/// Wakes the reader, after the lock is released so that it does not wait for it.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn size(batch: &WatchBatch) -> usize {
    let kv = |kv: &KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &Event| match event {
        Event::Put { kv: new, prev } => kv(new) + prev.as_ref().map_or(0, kv),
        Event::Delete { key, prev, .. } => key.len() + prev.as_ref().map_or(0, kv),
    };
    let events = batch.events.iter();
    size_of::<WatchBatch>()
        + events
            .map(|it| size_of::<Event>() + event(it))
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_fn;
    use quorate_engine::{Header, Key, Revision};

    use super::*;
    use crate::ErrorKind;

    fn batch(revision: i64, bytes: usize) -> WatchBatch {
        let event = Event::Delete {
            key: Key::from(vec![b'k'; bytes]),
            revision: Revision(revision),
            prev: None,
        };
        WatchBatch {
            header: Header::default(),
            events: vec![event],
        }
    }

    #[tokio::test]
    async fn a_full_buffer_refuses_more_and_gives_all_it_has_before_its_end() {
        let buffer = Buffer::default();
        let taken = (1..)
            .take_while(|&revision| buffer.push(batch(revision, 1 << 20)))
            .count();
        assert!((2..=8).contains(&taken), "{taken} batches of 1 MiB");
        buffer.end(Error::new(ErrorKind::Unavailable, "too slow"));
        for expected in 1..=taken {
            let read = poll_fn(|context| buffer.poll(context)).await;
            let read = read.expect("not ended").expect("no error yet");
            assert_eq!(read.events[0].revision(), Revision(expected as i64));
        }
        let end = poll_fn(|context| buffer.poll(context))
            .await
            .expect("the error is told");
        assert_eq!(end.expect_err("the end").to_string(), "too slow");
        assert!(poll_fn(|context| buffer.poll(context)).await.is_none());
    }

    #[tokio::test]
    async fn one_batch_of_any_size_is_taken_and_many_small_ones_are_not() {
        let buffer = Buffer::default();
        assert!(buffer.push(batch(1, MOST_BYTES * 2)));
        assert!(!buffer.push(batch(2, 1)));
        let buffer = Buffer::default();
        assert_eq!(
            (1..)
                .take_while(|&revision| buffer.push(batch(revision, 1)))
                .count(),
            MOST_BATCHES
        );
    }

    #[test]
    fn signs_of_life_in_a_row_take_the_room_of_one() {
        let buffer = Buffer::default();
        for _ in 0..MOST_BATCHES * 2 {
            assert!(buffer.push(WatchBatch::default()));
        }
    }
}

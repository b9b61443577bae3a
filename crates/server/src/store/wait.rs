//! Waiting for changes inside the server.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use quorate_engine::{Error, KeyRange, Revision, WatchBatch, WatchRequest, Watcher};

use crate::store::shared::{Shared, State};

/// A stream of watches whose client is the server itself. It wakes nobody but the task that polls
/// it, and ends when it is dropped.
pub(crate) struct Waiter {
    shared: Arc<Shared>,
    /// None until there is something to wait for.
    stream: Option<u64>,
}

impl Waiter {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self {
            shared,
            stream: None,
        }
    }

    /// Waits for changes of these keys from a revision on, beside what is waited for already.
    pub(crate) fn watch(
        &mut self,
        state: &mut State,
        keys: &KeyRange,
        start: Revision,
    ) -> Result<(), Error> {
        let stream = *self.stream.get_or_insert_with(|| state.watches.open());
        let request = WatchRequest::new(keys.clone()).start(start);
        let (watcher, _) = Watcher::new(&state.store, request)?;
        state.watches.add(stream, 0, watcher);
        Ok(())
    }

    /// Waits for nothing any more.
    pub(crate) fn clear(&self, state: &mut State) {
        if let Some(stream) = self.stream {
            state.watches.clear(stream);
        }
    }

    /// The next changes, if there are any. Then there may be more.
    pub(crate) fn take(&self, state: &mut State) -> Option<Result<WatchBatch, Error>> {
        let State { store, watches, .. } = state;
        let (_, told) = watches.next(store, self.stream?)?;
        Some(told)
    }

    /// Returns when there may be changes to take, or when there never will be any, since the disk has
    /// failed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken, and so nothing is lost.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(stream) = self.stream else {
            return Poll::Pending;
        };
        let waker = cx.waker().clone();
        let (is_ready, _unneeded) = {
            let mut state = self.shared.lock();
            if state.watches.is_ready(stream) {
                (true, Some(waker))
            } else {
                (false, state.watches.wait(stream, waker))
            }
        };
        // Once the disk has failed nobody might wake it again.
        if is_ready || self.shared.check().is_err() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Ends the watches.
impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(stream) = self.stream {
            let watching = self.shared.lock().watches.close(stream);
            drop(watching);
        }
    }
}

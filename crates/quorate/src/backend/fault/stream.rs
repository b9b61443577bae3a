//! Streams with faults in them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use quorate_engine::{LeaseId, WatchBatch};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    call::CallKind,
    shared::{Gate, Shared},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Beat, BeatStream, WatchStream},
};

/// A stream that can be cut and silenced, and whose items can come late or never.
pub(super) struct FaultyStream<S: ?Sized, T> {
    shared: Arc<Shared>,
    id: u64,
    kind: CallKind,
    /// None once it has ended.
    inner: Option<Box<S>>,
    /// What came and is due later, in order; no item is the end.
    late: VecDeque<(Instant, Option<Result<T>>)>,
    /// For the first of the late.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Nothing in it is pinned in place: the timer has a box of its own.
impl<S: ?Sized, T> Unpin for FaultyStream<S, T> {}

impl<S: ?Sized, T> FaultyStream<S, T> {
    pub(super) fn new(shared: Arc<Shared>, kind: CallKind, inner: Box<S>) -> Self {
        Self {
            id: shared.enter(kind),
            shared,
            kind,
            inner: Some(inner),
            late: VecDeque::new(),
            timer: None,
        }
    }

    fn gate(&self) -> Gate {
        self.shared.gate(self.id, None)
    }

    fn cut(&self) -> Error {
        let message = format!("{}: the stream was cut by a fault", self.kind);
        Error::new(ErrorKind::Unavailable, message)
    }

    fn end(&mut self) {
        self.inner = None;
        self.late.clear();
        self.timer = None;
    }

    /// The first late item, once it is due.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let Some((due, _)) = self.late.front() else {
            return Poll::Pending;
        };
        let due = *due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        let (_, item) = self.late.pop_front().expect("the front was just looked at");
        Poll::Ready(item)
    }
}

impl<S, T> Stream for FaultyStream<S, T>
where
    S: Stream<Item = Result<T>> + Unpin + ?Sized,
{
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        match self.shared.gate(self.id, Some(cx.waker())) {
            Gate::Cut => {
                self.end();
                return Poll::Ready(Some(Err(self.cut())));
            }
            Gate::Deaf | Gate::Silent => return Poll::Pending,
            Gate::Mute | Gate::Open => {}
        }
        // What the end lies behind is told first.
        let has_ended = matches!(self.late.back(), Some((_, None | Some(Err(_)))));
        while !has_ended && let Some(inner) = &mut self.inner {
            let Poll::Ready(item) = Pin::new(inner).poll_next(cx) else {
                break;
            };
            let is_end = !matches!(item, Some(Ok(_)));
            let delay = if is_end {
                Some(Duration::ZERO)
            } else {
                self.shared.delay(self.kind)
            };
            let Some(delay) = delay else {
                continue;
            };
            if delay.is_zero() && self.late.is_empty() {
                if is_end {
                    self.end();
                }
                return Poll::Ready(item);
            }
            let due = Instant::now() + delay;
            let due = self.late.back().map_or(due, |(last, _)| due.max(*last));
            self.late.push_back((due, item));
            if is_end {
                break;
            }
        }
        let item = ready!(self.poll_late(cx));
        if !matches!(item, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(item)
    }
}

impl WatchStream for FaultyStream<dyn WatchStream, WatchBatch> {
    fn request_progress(&mut self) {
        if matches!(self.gate(), Gate::Open | Gate::Deaf)
            && let Some(inner) = &mut self.inner
        {
            inner.request_progress();
        }
    }

    fn distrust(&mut self) {
        self.shared.count_distrust();
        if let Some(inner) = &mut self.inner {
            inner.distrust();
        }
    }
}

impl<S: ?Sized, T> Drop for FaultyStream<S, T> {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

/// A keepalive stream with faults in it.
pub(super) struct FaultyBeats {
    stream: FaultyStream<dyn BeatStream, Beat>,
    /// Beats that wait for the silence to end.
    unsent: VecDeque<LeaseId>,
}

impl FaultyBeats {
    pub(super) const fn new(stream: FaultyStream<dyn BeatStream, Beat>) -> Self {
        Self {
            stream,
            unsent: VecDeque::new(),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(inner) = &mut self.stream.inner else {
            return Err(self.stream.cut());
        };
        while let Some(lease) = self.unsent.pop_front() {
            inner.send(lease)?;
        }
        Ok(())
    }
}

impl Stream for FaultyBeats {
    type Item = Result<Beat>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.stream.gate(), Gate::Open | Gate::Deaf) {
            // A stream that is broken for sending tells so itself.
            let _ = self.flush();
        }
        Pin::new(&mut self.stream).poll_next(cx)
    }
}

impl BeatStream for FaultyBeats {
    fn send(&mut self, lease: LeaseId) -> Result<()> {
        self.stream.shared.count_beat();
        match self.stream.gate() {
            Gate::Cut => Err(self.stream.cut()),
            Gate::Deaf | Gate::Open => {
                self.unsent.push_back(lease);
                self.flush()
            }
            Gate::Mute | Gate::Silent if self.unsent.len() < MAX_UNSENT => {
                self.unsent.push_back(lease);
                Ok(())
            }
            Gate::Mute | Gate::Silent => {
                let message = "keep_alive: too many beats wait to be sent";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    fn distrust(&mut self) {
        self.stream.shared.count_distrust();
        if let Some(inner) = &mut self.stream.inner {
            inner.distrust();
        }
    }
}

/// How many beats a silent stream takes before it refuses more, as a connection's buffers would.
const MAX_UNSENT: usize = 1024;

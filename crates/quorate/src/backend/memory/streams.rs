//! The streams of a store in memory.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_core::Stream;
use quorate_engine::{LeaseId, WatchBatch};

use super::shared::Shared;
use crate::{
    Error, ErrorKind, Result,
    backend::{Beat, BeatStream, WatchStream},
};

/// How many answers a [`BeatStream`] holds for who does not read them.
pub(super) const MAX_UNREAD_BEATS: usize = 1 << 16;

/// What a watch tells. The watch itself stands among those of the store, which can wake it and have
/// it read ahead.
pub(super) struct Changes {
    shared: Arc<Shared>,
    watch: u64,
    /// A sign of life was asked for.
    progress: bool,
    ended: bool,
}

impl Changes {
    pub(super) const fn new(shared: Arc<Shared>, watch: u64) -> Self {
        Self {
            shared,
            watch,
            progress: false,
            ended: false,
        }
    }
}

impl Stream for Changes {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let waker = cx.waker().clone();
        let (told, header, _unneeded) = self.shared.with(|state, _| {
            let (told, unneeded) = state.poll_watch(self.watch, waker);
            (told, state.store.header(), unneeded)
        });
        match told {
            Ok(Some(batch)) => Poll::Ready(Some(Ok(batch))),
            // The sign of life comes after all that there was to tell.
            Ok(None) if mem::take(&mut self.progress) => {
                let events = Vec::new();
                Poll::Ready(Some(Ok(WatchBatch { header, events })))
            }
            Ok(None) => Poll::Pending,
            Err(refusal) => {
                self.ended = true;
                Poll::Ready(Some(Err(refusal.into())))
            }
        }
    }
}

impl WatchStream for Changes {
    fn request_progress(&mut self) {
        self.progress = true;
        let waker = self.shared.lock().take_waker(self.watch);
        waker.into_iter().for_each(Waker::wake);
    }

    fn distrust(&mut self) {}
}

/// Ends the watch.
impl Drop for Changes {
    fn drop(&mut self) {
        let watch = self.shared.lock().unregister(self.watch);
        drop(watch);
    }
}

/// Beats that are answered as they are sent.
pub(super) struct Beats {
    shared: Arc<Shared>,
    answers: VecDeque<Beat>,
    /// Who waits for the next answer.
    waker: Option<Waker>,
}

impl Beats {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            answers: VecDeque::new(),
            waker: None,
        }
    }
}

impl Stream for Beats {
    type Item = Result<Beat>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.answers.pop_front() {
            Some(beat) => Poll::Ready(Some(Ok(beat))),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl BeatStream for Beats {
    fn send(&mut self, lease: LeaseId) -> Result<()> {
        if self.answers.len() == MAX_UNREAD_BEATS {
            let message = "nobody reads the answers to the beats";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let beat = self.shared.with(|state, now| Beat {
            ttl: state.store.keep_alive(now, lease),
            header: state.store.header(),
            lease,
        });
        self.answers.push_back(beat);
        self.waker.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn distrust(&mut self) {}
}

//! Futures that are dropped between two of their steps.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

/// Drops a future after so many polls, wherever it is then; `None` if it was dropped before its end.
pub(crate) async fn cut_after<T>(polls: Option<u32>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let Some(mut left) = polls else {
        return Some(future.await);
    };
    let cut = poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx).map(Some);
        if left == 0 && polled.is_pending() {
            return Poll::Ready(None);
        }
        polled
    });
    cut.await
}

/// Calls `act` just before the `nth` poll of a future, if it comes to that.
pub(crate) async fn acting<T>(
    mut nth: u32,
    act: impl FnOnce(),
    future: impl Future<Output = T>,
) -> T {
    let mut future = Box::pin(future);
    let mut act = Some(act);
    let acting = poll_fn(|cx| {
        nth = nth.saturating_sub(1);
        if nth == 0
            && let Some(act) = act.take()
        {
            act();
        }
        future.as_mut().poll(cx)
    });
    acting.await
}

/// Calls `dropped` just before a future is dropped that has not come to its end.
pub(crate) fn noting<F: Future, D: FnOnce() + Unpin>(future: F, dropped: D) -> Noting<F, D> {
    Noting {
        note: Note(Some(dropped)),
        future: Box::pin(future),
    }
}

/// See [`noting`].
pub(crate) struct Noting<F, D: FnOnce()> {
    /// Before the future: so it is dropped first.
    note: Note<D>,
    future: Pin<Box<F>>,
}

struct Note<D: FnOnce()>(Option<D>);

impl<D: FnOnce()> Drop for Note<D> {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            dropped();
        }
    }
}

impl<F: Future, D: FnOnce() + Unpin> Future for Noting<F, D> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(cx);
        if polled.is_ready() {
            self.note.0 = None;
        }
        polled
    }
}

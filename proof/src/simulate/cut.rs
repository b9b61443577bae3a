//! Futures that are dropped between two of their steps.

use std::future::poll_fn;

use std::task::Poll;

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

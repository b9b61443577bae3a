//! Many changes in a short time count as one.

use std::{future, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Waits after changes until there was quiet for a while, and ten times as long at most.
#[derive(Debug)]
pub(super) struct Debounce {
    quiet: Duration,
    splay: Duration,
    burst: Option<Burst>,
}

/// Changes that were not acted on yet.
#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
    /// How much longer than need be is waited.
    more: Duration,
}

impl Debounce {
    pub(super) const fn new(quiet: Duration, splay: Duration) -> Self {
        Self {
            quiet,
            splay,
            burst: None,
        }
    }

    /// A change has come.
    pub(super) fn touch(&mut self) {
        let last = Instant::now();
        let burst = self.burst.get_or_insert_with(|| Burst {
            first: last,
            last,
            more: self.splay.mul_f64(fastrand::f64()),
        });
        burst.last = last;
    }

    /// The changes so far are acted on.
    pub(super) fn clear(&mut self) {
        self.burst = None;
    }

    /// Waits until the changes are to be acted on; for ever if there are none. It can be dropped and called
    /// again.
    pub(super) async fn settled(&self) {
        let Some(burst) = &self.burst else {
            return future::pending().await;
        };
        let quiet = burst.last.checked_add(self.quiet);
        let latest = burst.first.checked_add(self.quiet.saturating_mul(10));
        let end = match (quiet, latest) {
            (Some(quiet), Some(latest)) => Some(quiet.min(latest)),
            (quiet, latest) => quiet.or(latest),
        };
        match end.and_then(|end| end.checked_add(burst.more)) {
            Some(end) => sleep_until(end).await,
            None => future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_waited_out_but_not_for_ever() {
        let mut debounce = Debounce::new(Duration::from_secs(1), Duration::ZERO);
        let start = Instant::now();
        debounce.touch();
        sleep_until(start + Duration::from_millis(900)).await;
        debounce.touch();
        debounce.settled().await;
        assert_eq!(start.elapsed(), Duration::from_millis(1900));

        debounce.clear();
        let start = Instant::now();
        let end = loop {
            debounce.touch();
            let next = sleep_until(Instant::now() + Duration::from_millis(900));
            tokio::select! {
                () = debounce.settled() => break start.elapsed(),
                () = next => {}
            }
        };
        assert_eq!(end, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn no_duration_is_too_long() {
        let mut debounce = Debounce::new(Duration::MAX, Duration::MAX);
        debounce.touch();
        let year = Duration::from_secs(365 * 24 * 3600);
        let settled = tokio::time::timeout(year, debounce.settled()).await;
        assert!(settled.is_err());
    }
}

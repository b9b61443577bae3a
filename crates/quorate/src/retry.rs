//! Pauses between attempts: growing, jittered, bounded.

use std::{sync::Arc, time::Duration};

use crate::Runtime;

/// The pauses of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    runtime: Arc<dyn Runtime>,
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(25);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) fn new(runtime: &Arc<dyn Runtime>) -> Self {
        Self {
            runtime: Arc::clone(runtime),
            failures: 0,
        }
    }

    /// The next pause is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next attempt: half of the pause is certain, half is chance, so
    /// that clients which failed together do not return together.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = Self::FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(Self::LONGEST);
        self.failures += 1;
        pause / 2 + fraction(pause / 2, self.runtime.random())
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&mut self) {
        let wake = self.runtime.now() + self.next_pause();
        self.runtime.sleep_until(wake).await;
    }
}

/// A random part of `whole`.
pub(crate) fn fraction(whole: Duration, random: u64) -> Duration {
    const STEPS: u32 = 1 << 16;
    whole * ((random >> 48) as u32) / STEPS
}

//! Looks whether two ever hold at once, and times hand-overs.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a hold lasts while nothing is timed, so that a second holder would be seen.
const HOLD: Duration = Duration::from_millis(2);

#[derive(Default)]
pub(crate) struct Exclusion {
    holders: AtomicU64,
    violations: AtomicU64,
    released: Mutex<Option<Instant>>,
}

impl Exclusion {
    /// Somebody holds; how long ago the former holder began to release, if there was one.
    pub(crate) fn enter(&self) -> Option<Duration> {
        let now = Instant::now();
        if self.holders.fetch_add(1, Ordering::SeqCst) != 0 {
            self.violations.fetch_add(1, Ordering::SeqCst);
        }
        let released = *self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.map(|released| now - released)
    }

    /// It is about to release.
    pub(crate) fn leave(&self) {
        self.holders.fetch_sub(1, Ordering::SeqCst);
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Holds for a moment, untimed.
    pub(crate) async fn hold(&self) {
        self.enter();
        tokio::time::sleep(HOLD).await;
        self.holders.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }
}

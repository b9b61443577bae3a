//! What a client takes from its surroundings: time, randomness and tasks.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use futures_core::future::BoxFuture;

/// Time, randomness and tasks for one client. Tests give each client its own, with a clock rate and a
/// pause of its own; everything else uses [`TokioRuntime`].
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// The present moment. The clock never goes back, and goes on while the machine is suspended.
    fn now(&self) -> Moment;

    /// Waits until the clock shows `moment`. It may wake late after a suspend, never early.
    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()>;

    /// A random number, for jitter and for ids.
    fn random(&self) -> u64;

    /// Runs `task` to its end beside everything else.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// A moment of a [`Runtime`]'s clock, comparable with other moments of the same clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `elapsed` after the clock's origin.
    pub const fn since_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long this moment lies after `earlier`; zero if it lies before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// The runtime of every client that is given no other: tokio's timers and tasks, and a clock that goes
/// on while the machine is suspended (on Linux).
///
/// With tokio's time paused, as in tests, the clock is tokio's virtual one.
#[derive(Debug)]
pub struct TokioRuntime {
    origin: tokio::time::Instant,
    suspended_at_origin: Duration,
}

impl TokioRuntime {
    /// A runtime whose clock begins now.
    pub fn new() -> Self {
        let origin = tokio::time::Instant::now();
        Self {
            origin,
            suspended_at_origin: time_suspended(),
        }
    }
}

impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Moment {
        // Reading tokio's clock first keeps the sum within the duration of this call even if the
        // thread is preempted between the reads.
        let running = self.origin.elapsed();
        Moment(running + time_suspended().saturating_sub(self.suspended_at_origin))
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        /// Timers stand still during a suspend; the clock is read again at least this often.
        const LONGEST_SLEEP: Duration = Duration::from_secs(1);

        let clock = Self { ..*self };
        Box::pin(async move {
            loop {
                let left = moment.since(clock.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    #[allow(clippy::disallowed_methods)] // the one door to tokio's tasks
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// Does what may block, such as writing a file, where no task waits for it but this one.
#[cfg(feature = "config")]
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> crate::Result<R> + Send + 'static,
) -> crate::Result<R> {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            let message = "what was to be done aside did not end";
            Err(crate::Error::new(crate::ErrorKind::Internal, message).because(error))
        })
}

/// How long the machine has been suspended since it was started, where that can be told.
#[cfg(target_os = "linux")]
fn time_suspended() -> Duration {
    use nix::time::{ClockId, clock_gettime};

    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    let running = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(running)
}

#[cfg(not(target_os = "linux"))]
fn time_suspended() -> Duration {
    Duration::ZERO
}

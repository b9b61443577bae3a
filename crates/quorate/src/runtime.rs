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

    /// The latest moment not after this one that lies a whole number of `steps` after the origin.
    pub(crate) fn rounded_down(self, step: Duration) -> Self {
        let over = self.0.as_nanos().checked_rem(step.as_nanos());
        let over = over.and_then(|over| u64::try_from(over).ok());
        self - Duration::from_nanos(over.unwrap_or_default())
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
        let clock = Self { ..*self };
        Box::pin(async move {
            loop {
                let left = moment.since(clock.now());
                if left.is_zero() {
                    return;
                }
                // Timers stand still during a suspend, so the clock is read again every second: by all who sleep
                // at the same moments, which wakes the process once and not for each of them.
                let glance =
                    clock.origin + Duration::from_secs(clock.origin.elapsed().as_secs() + 1);
                let end = tokio::time::Instant::now() + left.min(Duration::from_secs(1));
                tokio::time::sleep_until(end.min(glance)).await;
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

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex},
    };

    use futures_util::{FutureExt, future};

    use super::*;

    #[test]
    fn a_moment_is_rounded_down_to_whole_steps() {
        let at = |seconds| Moment::since_origin(Duration::from_secs(seconds));
        assert_eq!(at(17).rounded_down(Duration::from_secs(5)), at(15));
        assert_eq!(at(15).rounded_down(Duration::from_secs(5)), at(15));
        assert_eq!(at(17).rounded_down(Duration::ZERO), at(17));
        assert_eq!(at(17).rounded_down(Duration::MAX), at(0));
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_sleep_look_at_the_clock_at_the_same_moments() {
        let runtime = TokioRuntime::new();
        let looks = Arc::new(Mutex::new(Vec::new()));
        let end = runtime.now() + Duration::from_millis(5500);
        let sleepers = (0..10).map(|number| {
            let (runtime, looks) = (&runtime, Arc::clone(&looks));
            async move {
                tokio::time::sleep(Duration::from_millis(number * 50)).await;
                let mut sleep = runtime.sleep_until(end);
                poll_fn(|cx| {
                    let now = runtime.now();
                    let mut looks = looks.lock().expect("nothing panics");
                    looks.push(now.since(Moment::since_origin(Duration::ZERO)));
                    sleep.poll_unpin(cx)
                })
                .await;
                assert!(runtime.now() >= end);
            }
        });
        future::join_all(sleepers).await;
        let mut later: Vec<_> = looks.lock().expect("nothing panics").clone();
        later.retain(|at| at.as_millis() >= 500);
        later.sort_unstable();
        later.dedup();
        let millis: Vec<_> = later.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [1000, 2000, 3000, 4000, 5000, 5500]);
    }
}

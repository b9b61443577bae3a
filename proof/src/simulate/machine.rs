//! A machine of its own for a client: its clock may be fast or slow, and it may stop for a while.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate::{Moment, Runtime};
use tokio::time::Instant;

use super::scheduler::{MachineId, Scheduler};

/// What a client runs on. Clones are the same machine.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Inner>);

struct Inner {
    id: MachineId,
    scheduler: Scheduler,
    origin: Instant,
    /// How fast its clock runs; the store's runs at 1.
    rate: f64,
    random: Mutex<fastrand::Rng>,
}

impl Machine {
    pub(crate) fn new(id: MachineId, scheduler: &Scheduler, rate: f64, seed: u64) -> Self {
        Self(Arc::new(Inner {
            id,
            scheduler: scheduler.clone(),
            origin: Instant::now(),
            rate,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }))
    }

    pub(crate) fn id(&self) -> MachineId {
        self.0.id
    }
}

impl Runtime for Machine {
    fn now(&self) -> Moment {
        Moment::since_origin(self.0.origin.elapsed().mul_f64(self.0.rate))
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        let machine = self.clone();
        Box::pin(async move {
            loop {
                let left = moment.since(machine.now());
                if left.is_zero() {
                    return;
                }
                let left = left.div_f64(machine.0.rate);
                tokio::time::sleep(left.max(Duration::from_micros(1))).await;
            }
        })
    }

    fn random(&self) -> u64 {
        let mut random = self.0.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.u64(..)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.scheduler.spawn(self.0.id, task);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Machine").field(&self.0.id).finish()
    }
}

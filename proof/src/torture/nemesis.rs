//! Chooses faults, by a seed: one after the other for members, and beside them for clients.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{faults::Kind, world::World};
use crate::history::What;

/// One sequence of faults.
pub(crate) struct Nemesis {
    pub(crate) random: fastrand::Rng,
    kinds: Vec<Kind>,
    /// What is still to come before anything comes again.
    deck: Vec<Kind>,
    next: u64,
    done: usize,
}

impl Nemesis {
    /// A sequence of these kinds, numbered from `first` on in steps of two.
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>, first: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            kinds,
            deck: Vec::new(),
            next: first,
            done: 0,
        }
    }

    /// Does one fault after the other, each kind at least once, until the time is over.
    pub(crate) async fn run(&mut self, world: &World, end: Instant) -> Result<(), String> {
        self.run_until(world, end).await?;
        while !self.has_done_all() {
            self.one(world).await?;
        }
        Ok(())
    }

    /// Does one fault after the other until the time is over.
    pub(crate) async fn run_until(&mut self, world: &World, end: Instant) -> Result<(), String> {
        if self.kinds.is_empty() {
            return Ok(());
        }
        while Instant::now() < end {
            self.one(world).await?;
        }
        Ok(())
    }

    /// Whether each kind was done at least once.
    pub(crate) fn has_done_all(&self) -> bool {
        self.done >= self.kinds.len()
    }

    /// Does a fault, and waits a little.
    async fn one(&mut self, world: &World) -> Result<(), String> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.random.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop().expect("it was filled");
        kind.perform(world, self).await?;
        self.done += 1;
        let pause = self.between(400, 1500);
        sleep(pause).await;
        Ok(())
    }

    /// A duration between the two, in milliseconds.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(least..=most))
    }

    /// Notes that a fault begins.
    pub(crate) fn began(&mut self, world: &World, kind: Kind, target: String) -> Fault {
        let fault = self.next;
        self.next += 2;
        eprintln!("proof: {} {target}", kind.name());
        world.log.borrow_mut().note(What::FaultBegan {
            fault,
            kind: kind.name(),
            target,
        });
        Fault(fault)
    }
}

/// A fault that has begun.
#[must_use = "what begins must end"]
pub(crate) struct Fault(u64);

impl Fault {
    /// Notes that it has ended.
    pub(crate) fn ended(self, world: &World) {
        world
            .log
            .borrow_mut()
            .note(What::FaultEnded { fault: self.0 });
    }
}

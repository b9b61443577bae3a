//! Chooses faults, by a seed: one after the other for members, and beside them for clients.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    faults::{Kind, kill_worker, pause_worker},
    world::World,
};
use crate::history::What;

/// One sequence of faults.
pub(crate) struct Nemesis {
    pub(crate) random: fastrand::Rng,
    kinds: Vec<Kind>,
    /// What is still to come before anything comes again.
    deck: Vec<Kind>,
    next: u64,
    /// How often each kind was tried, and whether its effect was seen.
    tried: Vec<(Kind, bool)>,
}

/// How often a kind is tried of which no effect is seen.
const TRIES: usize = 3;

impl Nemesis {
    /// A sequence of these kinds, numbered from `first` on in steps of two.
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>, first: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            kinds,
            deck: Vec::new(),
            next: first,
            tried: Vec::new(),
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
            sleep_until(end).await;
        }
        while Instant::now() < end {
            self.one(world).await?;
        }
        Ok(())
    }

    /// Whether each kind was done at least once, or was tried in vain often enough.
    pub(crate) fn has_done_all(&self) -> bool {
        self.kinds.iter().all(|kind| !self.is_due(*kind))
    }

    fn is_due(&self, kind: Kind) -> bool {
        let tries = self.tried.iter().filter(|(tried, _)| *tried == kind);
        let is_done = self.tried.contains(&(kind, true));
        !is_done && tries.count() < TRIES
    }

    /// Does a fault, and waits a little.
    async fn one(&mut self, world: &World) -> Result<(), String> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.random.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop().expect("it was filled");
        let is_done = kind.perform(world, self).await?;
        self.tried.push((kind, is_done));
        if self.is_due(kind) {
            self.deck.insert(0, kind);
        }
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

/// How long faults are done before there is a lull.
const SPELL: Duration = Duration::from_secs(40);

/// How long a lull is: so long that every watch that fell silent was opened again, every lease that was
/// forgotten ended, and whatever happens at its beginning is due before its end.
const QUIET: Duration = Duration::from_secs(16);

/// Does faults to members and to clients at once until the time is over, with lulls between, and one
/// at the end.
pub(crate) async fn torment(
    world: &World,
    of_members: &mut Nemesis,
    of_clients: &mut Nemesis,
    end: Instant,
) -> Result<(), String> {
    while Instant::now() + SPELL + QUIET < end {
        let over = Instant::now() + SPELL;
        tokio::try_join!(
            of_members.run_until(world, over),
            of_clients.run_until(world, over)
        )?;
        lull(world, of_clients).await?;
    }
    tokio::try_join!(of_members.run(world, end), of_clients.run(world, end))?;
    lull(world, of_clients).await
}

/// Does nothing for so long that whatever is late is so by nobody's fault. At first one owner of keys
/// dies, and another one is stopped, so that what becomes of their keys is no other fault's doing.
async fn lull(world: &World, of_clients: &mut Nemesis) -> Result<(), String> {
    let mut owners = world.workers.borrow().owners();
    of_clients.random.shuffle(&mut owners);
    if let [dies, stops, ..] = owners[..] {
        if of_clients.kinds.contains(&Kind::KillWorker) {
            kill_worker(world, of_clients, dies, Duration::from_millis(200)).await?;
        }
        if of_clients.kinds.contains(&Kind::PauseWorker) {
            pause_worker(world, of_clients, stops, world.ttl.mul_f64(1.3)).await?;
        }
    }
    eprintln!("proof: a lull");
    world.log.borrow_mut().note(What::Quiet);
    sleep(QUIET).await;
    Ok(())
}

/// A fault that has begun.
#[must_use = "what begins must end"]
pub(crate) struct Fault(u64);

impl Fault {
    /// Notes that it has ended, and whether its effect was seen; returns that.
    pub(crate) fn ended_if(self, world: &World, effect: Result<(), String>) -> bool {
        let missed = effect.err();
        if let Some(why) = &missed {
            eprintln!("proof: that was not done: {why}");
        }
        let is_done = missed.is_none();
        let what = What::FaultEnded {
            fault: self.0,
            missed,
        };
        world.log.borrow_mut().note(what);
        is_done
    }
}

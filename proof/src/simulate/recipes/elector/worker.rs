//! Who campaigns, and what runs while it leads.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    pin::pin,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Either, select},
};
use quorate::{Client, LeaderState, Revision, Runtime, Term};
use tokio::time::{sleep, timeout};

use super::{Candidate, Electors, NAME};
use crate::simulate::{
    cut::{cut_after, noting},
    glance::Begun,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

/// What a task panics with.
const ON_PURPOSE: &str = "on purpose";

/// Campaigns again and again, in each way.
pub(super) struct Worker {
    pub(super) recipe: Arc<Electors>,
    pub(super) world: Arc<World>,
    pub(super) client: MachineId,
    pub(super) random: fastrand::Rng,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        let mut latest = None;
        while self.world.storms() {
            let mut election = client.election(NAME).value("v");
            if self.random.u8(..4) == 0 {
                election = election.ttl(self.world.schedule.ttl);
            }
            match self.random.u8(..3) {
                0 => {
                    drop(latest.take());
                    let candidate = self.stand(&election);
                    self.live(&candidate).await;
                    if self.world.storms() {
                        self.end(candidate).await;
                    } else {
                        latest = Some(candidate);
                    }
                }
                _ => self.lead(&client, &election).await,
            }
            sleep(Duration::from_millis(self.random.u64(..500))).await;
        }
        lock(&self.recipe.books).kept.extend(latest);
    }

    fn number(&self) -> u64 {
        let mut books = lock(&self.recipe.books);
        books.next += 1;
        books.next
    }

    /// Runs a task while leading, until it loses patience: after a while, or between any two steps.
    async fn lead(&mut self, client: &Client, election: &quorate::Election) {
        let number = self.number();
        let cancelled = Arc::new(AtomicBool::new(false));
        let tasks = {
            let (recipe, world) = (Arc::clone(&self.recipe), Arc::clone(&self.world));
            let (client, cancelled) = (client.clone(), Arc::clone(&cancelled));
            let (place, mut random) = (self.client, self.random.fork());
            move |term: Term| {
                let task = Task {
                    recipe: Arc::clone(&recipe),
                    world: Arc::clone(&world),
                    client: place,
                    elector: number,
                    term,
                    random: random.fork(),
                    cancelled: Arc::clone(&cancelled),
                };
                task.run(client.clone())
            }
        };
        let run = AssertUnwindSafe(election.run(tasks)).catch_unwind();
        let run = noting(run, move || cancelled.store(true, Ordering::Relaxed));
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..60));
        let patience = Duration::from_millis(self.random.u64(1..15_000));
        match timeout(patience, cut_after(steps, run)).await {
            Err(_) | Ok(None) => self.world.count("cancelled"),
            Ok(Some(Err(panic))) if panic.downcast_ref() == Some(&ON_PURPOSE) => {
                self.world.count("panicked");
            }
            Ok(Some(Err(panic))) => resume_unwind(panic),
            Ok(Some(Ok(Ok(token)))) => {
                self.world.count("ended");
                let newest = lock(&self.recipe.books).newest.get(&number).copied();
                if newest != Some(token) {
                    let what = format_args!("the task of {newest:?} ended, and {token} is told");
                    self.world.broken("I2", what);
                }
            }
            Ok(Some(Ok(Err(error)))) => {
                self.world
                    .broken("I13", format_args!("an error that nobody expects: {error}"));
            }
        }
        let busy = lock(&self.recipe.books).busy.remove(&number);
        if let Some(token) = busy {
            self.world.broken(
                "I1",
                format_args!("the task of {token} runs on after its elector"),
            );
        }
    }

    /// Stands as a candidate in the background.
    fn stand(&self, election: &quorate::Election) -> Candidate {
        let number = self.number();
        let elector = Arc::new(election.elector());
        let (recipe, world) = (Arc::clone(&self.recipe), Arc::clone(&self.world));
        let follow = recipe.follow(world, self.client, number, Arc::downgrade(&elector));
        let machine = &self.world.members[self.client].machine;
        machine.spawn(Box::pin(follow));
        let client = self.client;
        Candidate { client, elector }
    }

    async fn live(&mut self, candidate: &Candidate) {
        let elector = &candidate.elector;
        for _ in 0..self.random.u64(..12) {
            sleep(Duration::from_millis(self.random.u64(..1000))).await;
            if let Some(term) = elector.term() {
                let state = elector.state();
                if !matches!(state, LeaderState::Leading { token, .. } if token == term.token()) {
                    let what = format_args!("{term:?} is led in {state:?}");
                    self.world.broken("I8", what);
                }
                if self.random.bool() {
                    let client = self.world.members[self.client].client();
                    let ledger = &self.recipe.ledger;
                    let random = &mut self.random;
                    let write = ledger.write(&client, random, term.token(), term.fence());
                    if !write.await.count(&self.world) {
                        return;
                    }
                }
            }
            if !self.world.storms() {
                return;
            }
        }
    }

    async fn end(&mut self, candidate: Candidate) {
        let Some(elector) = Arc::into_inner(candidate.elector) else {
            return;
        };
        match self.random.u8(..3) {
            0 => drop(elector),
            1 => drop(cut_after(Some(self.random.u32(1..8)), elector.stop()).await),
            _ => {
                let begun = Begun::now(&self.world, self.client);
                if let Err(error) = elector.stop().await {
                    self.world
                        .broken("I13", format_args!("the elector gave up: {error}"));
                }
                let books = lock(&self.recipe.books);
                let what = "to stop an elector";
                books
                    .pauses
                    .bounded(&self.world, self.client, begun, CALL, what);
            }
        }
    }
}

/// What runs while an elector leads.
struct Task {
    recipe: Arc<Electors>,
    world: Arc<World>,
    client: MachineId,
    elector: u64,
    term: Term,
    random: fastrand::Rng,
    /// Whether its elector was dropped, and it with that.
    cancelled: Arc<AtomicBool>,
}

/// A task that has begun. It has to be run to its end, unless its elector goes.
struct Stage<'a> {
    task: &'a Task,
    is_done: bool,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let Task {
            recipe,
            world,
            elector,
            term,
            cancelled,
            ..
        } = self.task;
        lock(&recipe.books).busy.remove(elector);
        if !self.is_done && !cancelled.load(Ordering::Relaxed) && !world.is_over() {
            let token = term.token();
            world.broken("I1", format_args!("the task of {token} is not awaited"));
        }
    }
}

impl Task {
    async fn run(self, client: Client) -> Revision {
        let token = self.term.token();
        if !self.term.is_held() {
            let what = format_args!("the task of {token} begins when its term is over");
            self.world.broken("I4", what);
        }
        let busy = lock(&self.recipe.books).busy.insert(self.elector, token);
        if let Some(busy) = busy {
            let what = format_args!("the task of {token} begins beside that of {busy}");
            self.world.broken("I1", what);
        }
        self.recipe
            .begins(&self.world, self.client, self.elector, &self.term);
        let mut random = self.random.clone();
        let mut stage = Stage {
            task: &self,
            is_done: false,
        };
        let (ends, panics) = (random.u8(..4) == 0, random.u8(..12) == 0);
        let mut steps = random.u64(..30);
        loop {
            let pause = sleep(Duration::from_millis(random.u64(..300)));
            let stopping = pin!(self.term.stopping());
            if let Either::Left(_) = select(stopping, pin!(pause)).await {
                break;
            }
            let write = self
                .recipe
                .ledger
                .write(&client, &mut random, token, self.term.fence());
            if !write.await.count(&self.world) {
                self.term.stopping().await;
                break;
            }
            steps = steps.saturating_sub(1);
            if steps == 0 && panics {
                stage.is_done = true;
                resume_unwind(Box::new(ON_PURPOSE));
            }
            if steps == 0 && ends {
                stage.is_done = true;
                return token;
            }
        }
        // Some take their time, and some too much of it.
        self.world.count("asked to stop");
        let slack = match random.u8(..12) {
            0 => 12_000,
            1..7 => 2000,
            _ => 1,
        };
        if slack > 1 {
            self.world.count("dawdled");
        }
        sleep(Duration::from_millis(random.u64(..slack))).await;
        stage.is_done = true;
        token
    }
}

//! Who holds again and again.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use quorate::{Client, Error, ErrorKind, KeyRange, Runtime, Session};
use tokio::time::{sleep, timeout};

use super::{
    Hold, NAME,
    held::{Guard, Held, Waiter},
};
use crate::simulate::{
    cut::{acting, cut_after},
    glance::{Begun, Due},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

const EXPECTED: [ErrorKind; 3] = [ErrorKind::Lost, ErrorKind::Timeout, ErrorKind::Unavailable];

/// Holds, and lets go in all ways.
pub(super) struct Worker {
    pub(super) recipe: Arc<Hold>,
    pub(super) world: Arc<World>,
    pub(super) client: MachineId,
    pub(super) random: fastrand::Rng,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        let mut session = None;
        while self.world.storms() {
            if session.as_ref().is_none_or(Session::is_lost) {
                session = client.session().await.ok();
            }
            match self.random.u8(..40) {
                0 => self.close_client(&client).await,
                1 | 2 if !self.world.schedule.assumed => self.break_hold(&client).await,
                _ => self.contend(&client, session.as_ref()).await,
            }
            sleep(Duration::from_millis(self.random.u64(..300))).await;
        }
    }

    async fn contend(&mut self, client: &Client, shared: Option<&Session>) {
        let session = match self.random.u8(..6) {
            0 => {
                let begun = Begun::now(&self.world, self.client);
                let own = client.session_with_ttl(self.world.schedule.ttl).await;
                self.bounded(begun, CALL, "to make a session");
                match own {
                    Ok(own) => Some(own),
                    Err(error) => return self.world.expect(&error, &EXPECTED),
                }
            }
            1 | 2 => shared.cloned(),
            _ => None,
        };
        if let Some(session) = &session
            && self.random.u8(..4) == 0
        {
            self.close_later(session.clone());
        }
        let limit =
            (self.random.u8(..6) == 0).then(|| Duration::from_millis(self.random.u64(1..3000)));
        match self.acquire(client, session, limit).await {
            Some(Ok(Some(guard))) => self.hold(client, guard, limit).await,
            Some(Ok(None)) => self.world.count("refused"),
            Some(Err(error)) => self.world.expect(&error, &EXPECTED),
            None => self.world.count("cancelled"),
        }
    }

    /// Waits its turn, until it loses patience: after a while, or between any two steps.
    async fn acquire(
        &mut self,
        client: &Client,
        session: Option<Session>,
        limit: Option<Duration>,
    ) -> Option<Result<Option<Guard>, Error>> {
        let random = &mut self.random;
        let mut election = client.election(NAME).value("v");
        let mut lock_ = client.lock(NAME);
        if let Some(session) = &session {
            election = election.session(session);
            lock_ = lock_.session(session);
        } else if random.u8(..4) == 0 {
            election = election.ttl(self.world.schedule.ttl);
            lock_ = lock_.ttl(self.world.schedule.ttl);
        }
        if let Some(limit) = limit {
            lock_ = lock_.max_hold(limit);
        }
        let kind = if limit.is_some() { 2 } else { random.u8(..4) };
        let acquire = async {
            match kind {
                0 => election.campaign().await.map(|led| Some(Guard::Leads(led))),
                1 => (lock_.try_acquire().await).map(|guard| guard.map(Guard::Locks)),
                _ => (lock_.acquire().await).map(|guard| Some(Guard::Locks(guard))),
            }
        };
        let steps = (random.u8(..4) == 0).then(|| random.u32(1..30));
        let patience = match random.u8(..6) {
            0 => Duration::MAX,
            _ => Duration::from_millis(random.u64(1..8000)),
        };
        let client = self.client;
        let waiter = session.map(|session| Arc::new(Waiter { client, session }));
        if let Some(waiter) = &waiter {
            let waiter = (Arc::downgrade(waiter), Due::default());
            lock(&self.recipe.books).waiters.push(waiter);
        }
        // Between any two steps.
        let closes = if random.u8(..4) == 0 {
            random.u32(1..8)
        } else {
            0
        };
        let (closed, world) = (waiter.clone(), &self.world);
        let close = || {
            if closes > 0
                && let Some(waiter) = &closed
            {
                world.count("closed meanwhile");
                drop(waiter.session.close().now_or_never());
            }
        };
        let begun = Begun::now(&self.world, client);
        let acquire = acting(closes, close, cut_after(steps, acquire));
        let acquired = timeout(patience, acquire).await;
        drop((waiter, closed));
        if kind == 1 {
            self.bounded(begun, 2 * CALL, "to try a lock");
        }
        acquired.ok().flatten()
    }

    async fn hold(&mut self, client: &Client, guard: Guard, limit: Option<Duration>) {
        let now = self.world.members[self.client].machine.now();
        let lost = guard.lost();
        let held = Held::new(self.client, guard, limit.map(|limit| now + limit));
        let held = Arc::new(held);
        self.recipe.acquired(&self.world, &held);
        let told = Arc::downgrade(&held);
        let told = move |()| told.upgrade().iter().for_each(|held| held.tell());
        self.world.work(self.client, lost.map(told));
        // Some hold for longer than their lease lives.
        let steps = if self.random.u8(..5) == 0 { 40 } else { 4 };
        let mut said = None;
        for _ in 0..self.random.u64(..steps) {
            match self.random.u8(..5) {
                0 => self.proclaim(&held, &mut said).await,
                _ if !self.write(client, &held).await => break,
                _ => {}
            }
            sleep(Duration::from_millis(self.random.u64(..200))).await;
            if held.is_told() && self.random.bool() {
                break;
            }
        }
        if held.is_told() {
            self.world.count("lost");
        }
        self.give_up(held).await;
    }

    /// Writes to the ledger, and tells whether it may do so again.
    async fn write(&mut self, client: &Client, held: &Held) -> bool {
        let begun = Begun::now(&self.world, self.client);
        let ledger = &self.recipe.ledger;
        let write = ledger.write(client, &mut self.random, held.token, held.fence.clone());
        let goes_on = write.await.count(&self.world);
        self.bounded(begun, 2 * CALL + CALL / 5, "to write under a lock");
        goes_on
    }

    /// Says something as the leader, and may not wait for what becomes of that. `said` is whether all
    /// that was said before is written.
    async fn proclaim(&mut self, held: &Held, said: &mut Option<bool>) {
        let mut leadership = match held.take() {
            Some(Guard::Leads(leadership)) => leadership,
            Some(other) => return held.put_back(other),
            None => return,
        };
        let value = self.random.u64(..).to_string();
        let steps = (self.random.u8(..3) == 0).then(|| self.random.u32(1..8));
        let begun = Begun::now(&self.world, self.client);
        let proclaimed = cut_after(steps, leadership.proclaim(value.as_str())).await;
        self.bounded(begun, 2 * CALL, "to proclaim");
        held.put_back(Guard::Leads(leadership));
        let before = said.replace(matches!(proclaimed, Some(Ok(()))));
        match proclaimed {
            None => {}
            Some(Ok(())) => {
                self.world.count("proclaimed");
                let there = self.world.keys(KeyRange::key(&held.key));
                if there.iter().any(|kv| kv.value != value.as_str()) {
                    let what = format_args!("{value} was proclaimed, and there is {there:?}");
                    self.world.broken("I10", what);
                }
            }
            // Of what it said before, if that came later.
            Some(Err(error)) if error.kind() == ErrorKind::Conflict && before == Some(false) => {}
            Some(Err(error)) => self.world.expect(&error, &EXPECTED),
        }
    }

    /// Drops a hold, or releases it, or does not wait for that; what is confirmed is gone.
    async fn give_up(&mut self, held: Arc<Held>) {
        self.recipe.forget(&held);
        let Some(guard) = held.take() else {
            return;
        };
        let steps = match self.random.u8(..5) {
            0 | 1 => return,
            2 => Some(self.random.u32(1..8)),
            _ => None,
        };
        let begun = Begun::now(&self.world, self.client);
        let released = cut_after(steps, guard.release()).await;
        self.bounded(begun, CALL, "to release a lock");
        match released {
            None => self.world.count("cut releases"),
            Some(Ok(())) => {
                self.world.count("released");
                let there = self.world.keys(KeyRange::key(&held.key));
                if !there.is_empty() {
                    let key = &held.key;
                    self.world
                        .broken("I5", format_args!("{key} is released, and stands"));
                }
            }
            Some(Err(error)) => self.world.expect(&error, &EXPECTED),
        }
    }

    /// Takes a place in the queue from whoever has it.
    async fn break_hold(&mut self, client: &Client) {
        let ask = |token| {
            self.recipe
                .ledger
                .ask(&self.world, |line| line.stands(token))
        };
        let first = self.recipe.ledger.ask(&self.world, |line| line.first());
        let Some(token) = first else {
            return;
        };
        let begun = Begun::now(&self.world, self.client);
        let broken = client.lock(NAME).break_hold(token).await;
        self.bounded(begun, 2 * CALL, "to break a hold");
        match broken {
            Ok(true) => self.world.count("broken"),
            Ok(false) => {}
            Err(error) => return self.world.expect(&error, &EXPECTED),
        }
        if ask(token) {
            let what = format_args!("{token} was broken ({broken:?}), and stands");
            self.world.broken("I5", what);
        }
    }

    /// Closes the client's shared session, and so all that lives by it.
    async fn close_client(&mut self, client: &Client) {
        // What is given at once is what is shared now.
        let shared = client.session().now_or_never().and_then(Result::ok);
        let steps = (self.random.u8(..3) == 0).then(|| self.random.u32(1..8));
        let begun = Begun::now(&self.world, self.client);
        let closed = cut_after(steps, client.close()).await;
        self.bounded(begun, CALL, "to close a client");
        self.world.count("closed clients");
        if let Some(session) = shared {
            closes(&self.world, &session, closed);
        }
    }

    /// Closes a session in a while, whatever is done under it then.
    fn close_later(&mut self, session: Session) {
        let (world, recipe, client) = (
            Arc::clone(&self.world),
            Arc::clone(&self.recipe),
            self.client,
        );
        let delay = Duration::from_millis(self.random.u64(..3000));
        let steps = (self.random.u8(..3) == 0).then(|| self.random.u32(1..8));
        self.world.work(client, async move {
            sleep(delay).await;
            let begun = Begun::now(&world, client);
            let closed = cut_after(steps, session.close()).await;
            (lock(&recipe.books).pauses).bounded(&world, client, begun, CALL, "to close a session");
            world.count("closed sessions");
            closes(&world, &session, closed);
        });
    }

    fn bounded(&self, begun: Begun, most: Duration, what: &str) {
        let books = lock(&self.recipe.books);
        let (world, client) = (&self.world, self.client);
        books.pauses.bounded(world, client, begun, most, what);
    }
}

/// A session was closed, or that was begun.
fn closes(world: &World, session: &Session, closed: Option<Result<(), Error>>) {
    if !session.is_lost() {
        world.broken("I14", format_args!("{session:?} was closed, and lives"));
    }
    match closed {
        Some(Ok(())) if world.leases().contains(&session.lease()) => {
            let what = format_args!("{session:?} was closed, and its lease lives");
            world.broken("I5", what);
        }
        Some(Err(error)) => world.expect(&error, &EXPECTED),
        _ => {}
    }
}

//! Who takes holds, and takes up those of others.

use std::{sync::Arc, time::Duration};

use quorate::{Client, Detached, Error, ErrorKind, Revision};
use tokio::time::{sleep, timeout};

use super::{Holds, Known, NAME, queue};
use crate::simulate::{
    cut::cut_after,
    glance::Begun,
    ledger::Attempt,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

/// Takes holds, and what others have taken.
pub(super) struct Worker {
    pub(super) recipe: Arc<Holds>,
    pub(super) world: Arc<World>,
    pub(super) client: MachineId,
    pub(super) random: fastrand::Rng,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        while self.world.storms() {
            match self.random.u8(..8) {
                0 | 1 => self.acquire(&client).await,
                2 | 3 => self.keep(&client).await,
                _ => self.take_up(&client).await,
            }
            sleep(Duration::from_millis(self.random.u64(..400))).await;
        }
    }

    fn ttl(&mut self) -> Duration {
        // Where all are alike none is shortened.
        if self.world.schedule.seed.is_multiple_of(2) {
            Duration::from_secs(self.random.u64(1..4))
        } else {
            self.world.schedule.ttl
        }
    }

    /// Acquires a hold and lets go of it, until it loses patience: after a while, or between any two
    /// steps.
    async fn acquire(&mut self, client: &Client) {
        let ttl = self.ttl();
        let lock_ = client.lock(NAME);
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..40));
        let patience = Duration::from_millis(self.random.u64(1..8000));
        let acquire = timeout(patience, cut_after(steps, lock_.acquire_detached(ttl))).await;
        let hold = match acquire {
            Err(_) | Ok(None) => return self.world.count("cancelled"),
            Ok(Some(Err(error))) => return self.expected(&error),
            Ok(Some(Ok(hold))) => hold,
        };
        self.world.count("acquired");
        let known = Known {
            longest: ttl,
            writes: true,
            ..Known::default()
        };
        // Only now do others know of it.
        let former = lock(&self.recipe.books).board.insert(hold.token(), known);
        if former.is_some() {
            let token = hold.token();
            self.world
                .broken("I15", format_args!("two holds have token {token}"));
        }
        let value = self.value();
        self.recipe.relies(&self.world, self.client, value, &hold);
        self.work(client, hold, value).await;
    }

    /// A number for a value of a hold.
    fn value(&self) -> u64 {
        let mut books = lock(&self.recipe.books);
        books.next_value += 1;
        books.next_value
    }

    /// Writes under a hold, renews it, releases it.
    async fn work(&mut self, client: &Client, mut hold: Detached, value: u64) {
        for _ in 0..self.random.u8(..4) {
            match self.random.u8(..5) {
                0 => return self.release(&hold).await,
                1 | 2 => {
                    if !self.write(client, &hold).await {
                        return;
                    }
                }
                _ => {
                    if !self.renew(&mut hold, value).await {
                        return;
                    }
                }
            }
            sleep(Duration::from_millis(self.random.u64(..800))).await;
        }
    }

    /// Holds in this process.
    async fn keep(&mut self, client: &Client) {
        let patience = Duration::from_millis(self.random.u64(1..8000));
        let acquire = timeout(patience, client.lock(NAME).acquire()).await;
        let guard = match acquire {
            Err(_) => return self.world.count("cancelled"),
            Ok(Err(error)) => return self.expected(&error),
            Ok(Ok(guard)) => Arc::new(guard),
        };
        self.world.count("kept");
        let kept = (self.client, Arc::downgrade(&guard));
        lock(&self.recipe.books).kept.push(kept);
        let token = guard.token();
        if self.random.u8(..3) == 0 {
            let stood = self.recipe.first(&self.world) == Some(token);
            match client.lock(NAME).find_detached(token).await {
                Ok(hold) => {
                    let what = format_args!("{hold:?} is kept by its process, and found");
                    self.world.broken("I15", what);
                }
                Err(error) if error.kind() == ErrorKind::InvalidArgument => {}
                Err(error) if error.kind() == ErrorKind::Lost => {
                    let stands = self.recipe.first(&self.world) == Some(token);
                    if stood && stands {
                        self.world.broken("I12", format_args!("it stands: {error}"));
                    }
                }
                Err(error) => self.expected(&error),
            }
        }
        for _ in 0..self.random.u8(..5) {
            let ledger = &self.recipe.ledger;
            let write = ledger.write(client, &mut self.random, token, guard.fence());
            if !write.await.count(&self.world) {
                break;
            }
        }
        if let Some(guard) = Arc::into_inner(guard)
            && self.random.bool()
        {
            match guard.release().await {
                Ok(()) => self.world.count("given back"),
                Err(error) => self.expected(&error),
            }
        }
    }

    /// Some token: mostly the newest, which may live, and now and then of somebody who waits.
    fn token(&mut self) -> Option<Revision> {
        let nth = self.random.usize(..4).min(self.random.usize(..4));
        if self.random.u8(..6) == 0 {
            let waiting = self.world.keys(queue());
            let mut waiting: Vec<_> = waiting.iter().map(|kv| kv.create_revision).collect();
            waiting.sort_unstable();
            return waiting.get(nth).copied();
        }
        let books = lock(&self.recipe.books);
        books.board.keys().rev().nth(nth).copied()
    }

    /// Takes up a hold that somebody has acquired, as another process that was told its token.
    async fn take_up(&mut self, client: &Client) {
        let Some(token) = self.token() else {
            return;
        };
        let before = self.recipe.first(&self.world);
        let begun = Begun::now(&self.world, self.client);
        let found = client.lock(NAME).find_detached(token).await;
        self.bounded(begun, CALL, "to find a hold");
        let hold = match found {
            Ok(hold) => hold,
            Err(error) if error.kind() == ErrorKind::Lost => {
                self.world.count("refused");
                if before == Some(token) && self.recipe.first(&self.world) == Some(token) {
                    let what = format_args!("{token} is first all the time: {error}");
                    self.world.broken("I12", what);
                }
                return;
            }
            // It is kept by its process.
            Err(error) if error.kind() == ErrorKind::InvalidArgument => return,
            Err(error) => return self.expected(&error),
        };
        self.world.count("found");
        let stands = |first: Option<Revision>| first.is_some_and(|first| first <= token);
        let after = self.recipe.first(&self.world);
        // Who waited may have come first meanwhile.
        if !stands(before) || after.is_some_and(|after| after < token) {
            let what = format_args!("{before:?} was first, then {after:?}: {token} is found");
            self.world.broken("I4", what);
        }
        if !hold.remaining().is_zero() {
            let what = format_args!("{token} was only found, and may be relied on");
            self.world.broken("I1", what);
        }
        // What its owner was not told of yet is not for others.
        if lock(&self.recipe.books).board.contains_key(&token) {
            let value = self.value();
            self.work(client, hold, value).await;
        }
    }

    /// Whether it was renewed, or may yet be.
    async fn renew(&mut self, hold: &mut Detached, value: u64) -> bool {
        let (ttl, token) = (self.ttl(), hold.token());
        let began = {
            let mut books = lock(&self.recipe.books);
            if let Some(known) = books.board.get_mut(&token) {
                let least = known.renewed.entry(value).or_insert(ttl);
                *least = ttl.min(*least);
                known.longest = known.longest.max(ttl);
            }
            // Nobody can ask meanwhile for how long it may be relied on.
            books.beliefs.retain(|belief| belief.value != value);
            drop(books);
            self.recipe.first(&self.world)
        };
        let begun = Begun::now(&self.world, self.client);
        let steps = (self.random.u8(..3) == 0).then(|| self.random.u32(1..20));
        let renewed = cut_after(steps, hold.renew(ttl)).await;
        match renewed {
            None => {
                self.world.count("cancelled");
                self.recipe.relies(&self.world, self.client, value, hold);
                self.random.bool()
            }
            Some(Ok(())) => {
                self.bounded(begun, 8 * CALL, "to renew a hold");
                self.world.count("renewed");
                if began != Some(token) {
                    let what = format_args!("{began:?} was first, and {token} is renewed");
                    self.world.broken("I4", what);
                }
                if hold.remaining().is_zero() {
                    let what = format_args!("{token} is renewed, and may not be relied on");
                    self.world.broken("I12", what);
                }
                self.recipe.relies(&self.world, self.client, value, hold);
                true
            }
            Some(Err(error)) => {
                let is_lost = error.kind() == ErrorKind::Lost;
                if is_lost && began == Some(token) && self.recipe.first(&self.world) == Some(token)
                {
                    let what = format_args!("{token} is first all the time: {error}");
                    self.world.broken("I12", what);
                }
                self.expected(&error);
                self.recipe.relies(&self.world, self.client, value, hold);
                !is_lost
            }
        }
    }

    async fn release(&mut self, hold: &Detached) {
        let token = hold.token();
        if let Some(known) = lock(&self.recipe.books).board.get_mut(&token) {
            known.is_released = true;
        }
        let before = self.recipe.first(&self.world);
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..12));
        let begun = Begun::now(&self.world, self.client);
        let Some(released) = cut_after(steps, hold.release()).await else {
            return self.world.count("cut releases");
        };
        self.bounded(begun, 8 * CALL, "to release a hold");
        match released {
            Ok(()) => {
                self.world.count("released");
                if self.recipe.first(&self.world) == Some(token) {
                    self.world
                        .broken("I5", format_args!("{token} is released, and stands"));
                }
            }
            Err(error) => {
                if error.kind() == ErrorKind::Lost
                    && before == Some(token)
                    && self.recipe.first(&self.world) == Some(token)
                {
                    let what = format_args!("{token} is first all the time: {error}");
                    self.world.broken("I12", what);
                }
                self.expected(&error);
            }
        }
    }

    /// Writes to the ledger. Who takes up a hold is the same holder: there is one write at a time, and
    /// after one that may yet arrive there is none.
    async fn write(&mut self, client: &Client, hold: &Detached) -> bool {
        let token = hold.token();
        let writes = |writes: bool| {
            let mut books = lock(&self.recipe.books);
            let known = books.board.get_mut(&token);
            known.is_some_and(|known| std::mem::replace(&mut known.writes, writes))
        };
        if !writes(false) {
            return true;
        }
        let stood = self.recipe.first(&self.world) == Some(token);
        let ledger = &self.recipe.ledger;
        let write = ledger.write(client, &mut self.random, token, hold.fence());
        let attempt = write.await;
        if matches!(attempt, Attempt::Written) && !stood {
            let what = format_args!("{token} was not first, and writes");
            self.world.broken("I2", what);
        }
        let goes_on = attempt.count(&self.world);
        if goes_on {
            writes(true);
        }
        goes_on
    }

    fn bounded(&self, begun: Begun, most: Duration, what: &str) {
        let books = lock(&self.recipe.books);
        books
            .pauses
            .bounded(&self.world, self.client, begun, most, what);
    }

    fn expected(&self, error: &Error) {
        let kinds = [
            ErrorKind::Conflict,
            ErrorKind::Lost,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
        ];
        self.world.expect(error, &kinds);
    }
}

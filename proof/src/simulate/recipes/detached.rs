//! Holds that no process keeps, found and renewed and released by their tokens, in one queue with locks
//! that are kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate::{
    Client, Detached, Error, ErrorKind, KeyRange, LockGuard, Moment, Revision, Runtime, Session,
    backend::fault::CallKind,
};
use tokio::time::{Instant, sleep, timeout};

use super::Recipe;
use crate::simulate::{
    cut::cut_after,
    glance::{Begun, Mirror, Pauses},
    ledger::{Attempt, Ledger},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

const NAME: &str = "name";

/// The recipe, and what is known of the holds.
pub(crate) struct Holds {
    books: Mutex<Books>,
    ledger: Ledger,
}

#[derive(Default)]
struct Books {
    /// The detached holds that were told of, oldest first.
    board: BTreeMap<Revision, Known>,
    /// Who relies on a detached hold, until when by its own clock.
    beliefs: Vec<Belief>,
    /// Who holds in its process.
    kept: Vec<(MachineId, Weak<LockGuard>)>,
    mirror: Mirror,
    pauses: Pauses,
    next_value: u64,
}

#[derive(Default)]
struct Known {
    /// Whether somebody has begun to release it.
    is_released: bool,
    /// For how long at least the values that have begun to renew it did so: who makes its time shorter
    /// than another has made it, even later, is the only one to know.
    renewed: BTreeMap<u64, Duration>,
    longest: Duration,
    /// Whether its holder may write on: nothing is on its way that may yet be written.
    writes: bool,
}

impl Known {
    /// Whether a value knows for how long it may be relied on.
    fn can_be_relied_on_by(&self, value: u64) -> bool {
        let mut others = self.renewed.iter().filter(|(other, _)| **other != value);
        !self.is_released && others.all(|(_, ttl)| *ttl >= self.longest)
    }
}

struct Belief {
    client: MachineId,
    value: u64,
    token: Revision,
    until: Moment,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            books: Mutex::default(),
            ledger: Ledger::new("ledger"),
        }
    }
}

impl Recipe for Holds {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        Ledger::follow(world, &self, |this| &this.ledger);
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    random: world.random(client, worker),
                };
                world.work(client, worker.run());
            }
        }
    }

    /// Whoever relies on a hold is first in the queue, by its own clock.
    fn look(&self, world: &World) {
        let mut books = lock(&self.books);
        let Books {
            board,
            beliefs,
            kept,
            mirror,
            pauses,
            ..
        } = &mut *books;
        pauses.look(world);
        if !world.schedule.assumed {
            return;
        }
        mirror.look(world, queue);
        let first = first(mirror);
        let now = |client: MachineId| world.members[client].machine.now();
        beliefs.retain(|belief| {
            let Belief {
                client,
                value,
                token,
                until,
            } = *belief;
            let known = board.get(&token);
            let relied =
                now(client) < until && known.is_some_and(|known| known.can_be_relied_on_by(value));
            if relied && first != Some(token) {
                let what = format_args!("client {client} relies on {token}, {first:?} is first");
                world.broken("I1", what);
            }
            relied
        });
        kept.retain(|(client, guard)| {
            let Some(guard) = guard.upgrade() else {
                return false;
            };
            // Asked after its time it would notice what it would not have.
            let relied = now(*client) < guard.session().deadline() && guard.is_held();
            if relied && first != Some(guard.token()) {
                let token = guard.token();
                let what = format_args!("client {client} holds by {token}, {first:?} is first");
                world.broken("I1", what);
            }
            relied
        });
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let sessions = alive(&world).await;
            self.queue_empties(&world).await;
            self.outlives(&world).await;
            self.late_renewal(&world).await;
            drop(sessions);
            world.nothing_left().await;
        })
    }
}

fn queue() -> KeyRange {
    KeyRange::prefix(format!("{NAME}/"))
}

/// The token of who is first in the queue.
fn first(mirror: &Mirror) -> Option<Revision> {
    mirror.keys().iter().map(|kv| kv.create_revision).min()
}

/// The shared sessions of the clients, so that what goes does not go with them.
async fn alive(world: &World) -> Vec<Session> {
    let mut sessions = Vec::new();
    for member in &world.members {
        for _ in 0..10 {
            if let Ok(session) = member.client().session().await {
                sessions.push(session);
                break;
            }
        }
    }
    sessions
}

impl Holds {
    /// Who is first in the queue now.
    fn first(&self, world: &World) -> Option<Revision> {
        let mirror = &mut lock(&self.books).mirror;
        mirror.look(world, queue);
        first(mirror)
    }

    /// A client has been told that it may rely on a hold.
    fn relies(&self, world: &World, client: MachineId, value: u64, hold: &Detached) {
        let (token, remaining) = (hold.token(), hold.remaining());
        let until = world.members[client].machine.now() + remaining;
        let mut books = lock(&self.books);
        books.beliefs.retain(|belief| belief.value != value);
        books.beliefs.push(Belief {
            client,
            value,
            token,
            until,
        });
        world
            .trace
            .say(format_args!("{client} relies on {token} for {remaining:?}"));
    }

    /// All holds end by themselves, and those who wait come and go.
    async fn queue_empties(&self, world: &World) {
        let deadline = Instant::now() + 2 * CALL + Duration::from_secs(4 * 3);
        loop {
            let left = world.keys(KeyRange::prefix(NAME)).len();
            if left == 0 {
                return;
            }
            if Instant::now() > deadline {
                world.broken("I5", format_args!("{left} entries are left in the queue"));
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A hold lives for its time, whoever knows of it, and no longer; then it is refused, and the next
    /// holds.
    async fn outlives(&self, world: &World) {
        let ttl = Duration::from_secs(2);
        let (holder, other) = (world.members[0].client(), world.members[1].client());
        let token = match holder.lock(NAME).acquire_detached(ttl).await {
            Ok(hold) => hold.token(),
            Err(error) => {
                let what = format_args!("nobody gets a free lock: {error}");
                return world.broken("I12", what);
            }
        };
        sleep(ttl.mul_f64(0.9)).await;
        let lock = other.lock(NAME);
        let renewed = match lock.find_detached(token).await {
            Ok(mut hold) => hold.renew(ttl).await,
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            world.broken("I12", format_args!("{token} is not renewed: {error}"));
        }
        sleep(ttl.mul_f64(0.9)).await;
        if !matches!(holder.lock(NAME).try_acquire().await, Ok(None)) {
            world.broken("I1", format_args!("{token} does not hold for its time"));
        }
        match timeout(ttl / 2, lock.acquire()).await {
            Ok(Ok(guard)) => drop(guard.release().await),
            other => {
                let what = format_args!("{token} is over, and the next does not hold: {other:?}");
                world.broken("I12", what);
            }
        }
        match holder.lock(NAME).find_detached(token).await {
            Err(error) if error.kind() == ErrorKind::Lost => {}
            found => world.broken("I4", format_args!("{token} is over, and is {found:?}")),
        }
    }
}

impl Holds {
    /// A renewal that arrives late takes nothing from a later one.
    async fn late_renewal(&self, world: &World) {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(3));
        let (holder, other) = (world.members[0].client(), world.members[1].client());
        let Ok(mut hold) = holder.lock(NAME).acquire_detached(long).await else {
            return world.broken("I12", format_args!("nobody gets a free lock"));
        };
        let Ok(mut same) = other.lock(NAME).find_detached(hold.token()).await else {
            return world.broken("I12", format_args!("{hold:?} is not found"));
        };
        let late = world.members[1].faults.hold_next(CallKind::Txn);
        drop(timeout(short / 2, same.renew(short)).await);
        if let Err(error) = hold.renew(long).await {
            world.broken("I12", format_args!("{hold:?} is not renewed: {error}"));
        }
        late.let_through();
        sleep(2 * short).await;
        if self.first(world) != Some(hold.token()) {
            let what = format_args!("{hold:?} ends when a renewal said that came too late");
            world.broken("I1", what);
        }
        drop(hold.release().await);
    }
}

/// Takes holds, and what others have taken.
struct Worker {
    recipe: Arc<Holds>,
    world: Arc<World>,
    client: MachineId,
    random: fastrand::Rng,
}

impl Worker {
    async fn run(mut self) {
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
        match hold.release().await {
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
        let expected = [
            ErrorKind::Conflict,
            ErrorKind::Lost,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
        ];
        if !expected.contains(&error.kind()) {
            self.world
                .broken("I13", format_args!("an error that nobody expects: {error}"));
        }
    }
}

//! Locks and elections on one name, and a ledger that only the holder writes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::Either};
use quorate::{
    Client, Compare, Error, ErrorKind, Event, KeyRange, Leadership, LockGuard, Op, OpResult, Range,
    Revision, Session, WatchRequest,
    backend::{Backend, WatchStream},
};
use tokio::time::{Instant, sleep, timeout};

use super::Recipe;
use crate::simulate::{
    cut::cut_after,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

const NAME: &str = "name";
const LEDGER: &str = "ledger";

/// The recipe, and what is known of its holders.
#[derive(Default)]
pub(crate) struct Hold {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// Who was told that it holds and has not given up.
    holds: Vec<Arc<Held>>,
    /// The newest of those who were told so.
    last: Revision,
    /// Who has to be told by the end of the instant that it holds no more, since that one holds.
    to_be_told: Vec<(Instant, Arc<Held>, Revision)>,
    /// All who ever were told so.
    told: Vec<Revision>,
    /// At which revision whose key was deleted.
    gone: BTreeMap<Revision, Revision>,
    /// What the ledger says.
    entry: Option<Entry>,
}

/// One that was told that it holds.
struct Held {
    client: MachineId,
    guard: Guard,
    /// Whether its `lost()` has fired.
    told_lost: AtomicBool,
}

/// Either kind of hold on the one queue.
enum Guard {
    Leads(Leadership),
    Locks(LockGuard),
}

/// A line of the ledger: one more than the former, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    count: u64,
    token: Revision,
    /// Tells writes apart.
    nonce: u64,
}

impl Recipe for Hold {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        world.aside({
            let this = Arc::clone(&self);
            // The store answers at once.
            let all = WatchRequest::new(KeyRange::all()).prev_kv();
            let all = world.store.watch(all).now_or_never();
            let all = all.and_then(Result::ok);
            move |world| async move {
                if let Some(watching) = all {
                    this.audit(&world, watching.stream).await;
                }
            }
        });
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

    /// No two hold, by their own clocks.
    fn look(&self, world: &World) {
        if !world.schedule.assumed {
            return;
        }
        let mut books = lock(&self.books);
        let now = Instant::now();
        for (_, held, successor) in books.to_be_told.extract_if(.., |(at, ..)| *at < now) {
            let token = held.guard.token();
            if !held.told_lost.load(Ordering::Relaxed) && !world.is_stopped(held.client) {
                world.broken(
                    "I3",
                    format_args!("{successor} holds before {token} is told"),
                );
            }
        }
        let held = books.holds.iter().filter(|hold| hold.guard.is_held());
        let tokens: Vec<_> = held.map(|hold| hold.guard.token().0).collect();
        if tokens.len() > 1 {
            world.broken("I1", format_args!("{tokens:?} hold at once"));
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> futures_core::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            {
                let mut books = lock(&self.books);
                books.holds.clear();
                books.to_be_told.clear();
            }
            let sessions = self.queue_empties(&world).await;
            self.keys_stood(&world);
            self.queue_works(&world).await;
            self.waiters_fail_at_once(&world).await;
            drop(sessions);
            world.nothing_left().await;
        })
    }
}

impl Hold {
    /// Follows everything that is written and deleted.
    async fn audit(&self, world: &World, mut changes: Box<dyn WatchStream>) {
        while let Some(Ok(batch)) = changes.next().await {
            for event in batch.events {
                match event {
                    Event::Put { kv, .. } => {
                        if let Some(entry) = kv.value.as_str().and_then(Entry::parse) {
                            self.written(world, entry);
                        }
                    }
                    Event::Delete { prev, revision, .. } => {
                        let created = prev.map(|kv| kv.create_revision).unwrap_or_default();
                        lock(&self.books).gone.insert(created, revision);
                    }
                }
            }
        }
    }

    /// Every entry of the ledger must be one more than the former, by a holder who is not older.
    fn written(&self, world: &World, entry: Entry) {
        let mut books = lock(&self.books);
        let before = books.entry.replace(entry);
        let (count, token) =
            before.map_or((0, Revision::ZERO), |before| (before.count, before.token));
        let doubled = before == Some(entry) && world.schedule.doubles();
        if entry.count != count + 1 && !doubled {
            world.broken(
                "I17",
                format_args!("{entry:?} was written after {before:?}"),
            );
        }
        if entry.token < token {
            world.broken("I2", format_args!("{entry:?} was written after {before:?}"));
        }
    }

    /// Everything that must be true when somebody has just been told that it holds.
    async fn acquired(&self, world: &World, held: &Arc<Held>) {
        if !held.guard.is_held() {
            return;
        }
        let token = held.guard.token();
        world.count("acquired");
        world
            .trace
            .say(format_args!("{} holds by {token}", held.client));
        if world.schedule.assumed {
            // The store answers at once.
            let range = Range::new(KeyRange::prefix(format!("{NAME}/")));
            let queue = world.store.range(range).now_or_never();
            let queue = queue.and_then(Result::ok).unwrap_or_default().kvs;
            let first = queue.iter().min_by_key(|kv| kv.create_revision);
            match first {
                Some(kv) if kv.create_revision == token => {}
                Some(kv) if queue.iter().any(|kv| kv.create_revision == token) => {
                    let first = kv.create_revision;
                    world.broken("I6", format_args!("{token} holds, {first} came before"));
                }
                _ => world.broken("I4", format_args!("{token} holds, and its key is gone")),
            }
        }
        let mut books = lock(&self.books);
        if world.schedule.assumed {
            if token <= books.last {
                let last = books.last;
                world.broken("I2", format_args!("{token} holds after {last}"));
            }
            let Books {
                holds, to_be_told, ..
            } = &mut *books;
            for other in holds.iter().filter(|other| !other.guard.is_held()) {
                to_be_told.push((Instant::now(), Arc::clone(other), token));
            }
        }
        books.last = books.last.max(token);
        books.told.push(token);
        books.holds.push(Arc::clone(held));
    }

    fn forget(&self, held: &Arc<Held>) {
        lock(&self.books)
            .holds
            .retain(|other| !Arc::ptr_eq(other, held));
    }

    /// What was given up has gone, though the sessions live on.
    async fn queue_empties(&self, world: &World) -> Vec<Session> {
        let mut sessions = Vec::new();
        for member in &world.members {
            sessions.extend(alive(&member.client()).await);
        }
        let deadline = Instant::now() + 2 * CALL + 4 * world.schedule.ttl;
        loop {
            let left = world.observer.count(KeyRange::prefix(NAME)).await;
            match left {
                Ok(0) => return sessions,
                _ if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
                left => {
                    world.broken("I5", format_args!("{left:?} entries are left in the queue"));
                    return sessions;
                }
            }
        }
    }

    /// Nobody was told that it holds whose key was gone when the last one before it left.
    fn keys_stood(&self, world: &World) {
        let books = lock(&self.books);
        for token in &books.told {
            let before = books.gone.range(..token).map(|(_, gone)| *gone).max();
            if let (Some(gone), Some(before)) = (books.gone.get(token), before)
                && *gone < before
            {
                world.broken(
                    "I4",
                    format_args!(
                        "{token} held, whose key was gone at {gone}, before its turn at {before}"
                    ),
                );
            }
        }
    }

    /// Everybody can still acquire.
    async fn queue_works(&self, world: &World) {
        for member in &world.members {
            let acquire = async {
                loop {
                    match member.client().lock(NAME).acquire().await {
                        Ok(guard) => return guard.release().await,
                        // Of a session that somebody began to make during the storm.
                        Err(error) if error.is_retryable() => {}
                        Err(error) if error.kind() == ErrorKind::Lost => {}
                        Err(error) => return Err(error),
                    }
                }
            };
            match timeout(10 * CALL, acquire).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    world.broken("I12", format_args!("the lock is free, but {error}"))
                }
                Err(_) => world.broken("I12", format_args!("nobody gets a free lock")),
            }
        }
    }

    /// A waiter whose key is deleted learns it while the holder stays.
    async fn waiters_fail_at_once(&self, world: &World) {
        let (holder, waiter) = (world.members[0].client(), world.members[1].client());
        let Ok(guard) = holder.lock(NAME).acquire().await else {
            return;
        };
        let lock = waiter.lock(NAME);
        let waiting = lock.acquire();
        let deletion = async {
            let queue = loop {
                match world.observer.lock(NAME).contenders().await {
                    Ok(queue) if queue.len() > 1 => break queue,
                    _ => sleep(Duration::from_millis(10)).await,
                }
            };
            drop(world.observer.delete(&queue[1].key).await);
            sleep(2 * CALL).await;
        };
        let ended = futures_util::future::select(Box::pin(waiting), Box::pin(deletion)).await;
        match ended {
            Either::Left((Err(_), _)) => {}
            Either::Left((Ok(_), _)) => {
                world.broken("I4", format_args!("a waiter without a key holds"))
            }
            Either::Right(_) => world.broken("I4", format_args!("a waiter without a key waits on")),
        }
        drop(guard);
    }
}

/// The shared session of a client, which must not end while we look.
async fn alive(client: &Client) -> Option<Session> {
    for _ in 0..10 {
        if let Ok(session) = client.session().await {
            return Some(session);
        }
    }
    None
}

/// Holds again and again.
struct Worker {
    recipe: Arc<Hold>,
    world: Arc<World>,
    client: MachineId,
    random: fastrand::Rng,
}

impl Worker {
    async fn run(mut self) {
        let client = self.world.members[self.client].client();
        let mut session = None;
        while self.world.storms() {
            if session.as_ref().is_none_or(Session::is_lost) {
                session = client.session().await.ok();
            }
            match self.acquire(&client).await {
                Some(Ok(Some(guard))) => self.hold(guard).await,
                Some(Ok(None)) => self.world.count("refused"),
                Some(Err(error)) => self.expected(&error),
                None => self.world.count("cancelled"),
            }
            sleep(Duration::from_millis(self.random.u64(..300))).await;
        }
    }

    /// Waits its turn, until it loses patience: after a while, or between any two steps.
    async fn acquire(&mut self, client: &Client) -> Option<Result<Option<Guard>, Error>> {
        let random = &mut self.random;
        let ttl = (random.u8(..4) == 0).then_some(self.world.schedule.ttl);
        let mut election = client.election(NAME).value("v");
        let mut lock = client.lock(NAME);
        if let Some(ttl) = ttl {
            election = election.ttl(ttl);
            lock = lock.ttl(ttl);
        }
        let kind = random.u8(..4);
        let acquire = async {
            match kind {
                0 => election.campaign().await.map(|led| Some(Guard::Leads(led))),
                1 => (lock.try_acquire().await).map(|guard| guard.map(Guard::Locks)),
                _ => lock.acquire().await.map(|guard| Some(Guard::Locks(guard))),
            }
        };
        let steps = (random.u8(..4) == 0).then(|| random.u32(1..30));
        let patience = match random.u8(..6) {
            0 => Duration::MAX,
            _ => Duration::from_millis(random.u64(1..8000)),
        };
        timeout(patience, cut_after(steps, acquire))
            .await
            .ok()
            .flatten()
    }

    async fn hold(&mut self, guard: Guard) {
        let held = Arc::new(Held {
            client: self.client,
            guard,
            told_lost: AtomicBool::new(false),
        });
        self.recipe.acquired(&self.world, &held).await;
        let watcher = {
            let (lost, held) = (held.guard.lost(), Arc::downgrade(&held));
            async move {
                lost.await;
                if let Some(held) = held.upgrade() {
                    held.told_lost.store(true, Ordering::Relaxed);
                }
            }
        };
        self.world.work(self.client, watcher);
        // Some hold for longer than their lease lives.
        let steps = if self.random.u8(..5) == 0 { 40 } else { 4 };
        for _ in 0..self.random.u64(..steps) {
            if self.write(&held.guard).await.is_none() {
                break;
            }
            sleep(Duration::from_millis(self.random.u64(..200))).await;
            if !held.guard.is_held() && self.random.bool() {
                break;
            }
        }
        self.recipe.forget(&held);
        if !held.guard.is_held() {
            self.world.count("lost");
        }
        let guard = Arc::into_inner(held).map(|held| held.guard);
        if let Some(guard) = guard
            && self.random.bool()
            && guard.release().await.is_ok()
        {
            self.world.count("released");
        }
    }

    /// Reads the ledger and writes one more, with nothing but the fence against others. After a write
    /// that may still arrive there must not be another by the same holder: `None`.
    async fn write(&mut self, guard: &Guard) -> Option<()> {
        let client = self.world.members[self.client].client();
        let token = guard.token();
        let read = client
            .txn()
            .when(guard.fence())
            .then(Op::Range(Range::new(LEDGER)));
        let Ok(read) = read.commit().await else {
            return Some(());
        };
        if !read.succeeded {
            self.world.count("refused reads");
            return Some(());
        }
        let before = match read.results.first() {
            Some(OpResult::Range(range)) => range.kvs.first(),
            _ => None,
        };
        let before = before.and_then(|kv| Entry::parse(kv.value.as_str()?));
        sleep(Duration::from_millis(self.random.u64(..100))).await;
        let entry = Entry {
            count: before.map_or(0, |before| before.count) + 1,
            token,
            nonce: self.random.u64(..),
        };
        let write = client.txn().when(guard.fence());
        match write
            .then(Op::put(LEDGER, entry.to_string()))
            .commit()
            .await
        {
            Ok(written) if written.succeeded => self.world.count("written"),
            Ok(_) => self.world.count("refused writes"),
            Err(error) => {
                self.expected(&error);
                return (!error.is_indefinite()).then_some(());
            }
        }
        Some(())
    }

    fn expected(&self, error: &Error) {
        let expected = [ErrorKind::Lost, ErrorKind::Timeout, ErrorKind::Unavailable];
        if !expected.contains(&error.kind()) {
            self.world
                .broken("I13", format_args!("an error that nobody expects: {error}"));
        }
    }
}

impl Guard {
    fn is_held(&self) -> bool {
        match self {
            Self::Leads(leadership) => leadership.is_held(),
            Self::Locks(guard) => guard.is_held(),
        }
    }

    fn token(&self) -> Revision {
        match self {
            Self::Leads(leadership) => leadership.token(),
            Self::Locks(guard) => guard.token(),
        }
    }

    fn fence(&self) -> Compare {
        match self {
            Self::Leads(leadership) => leadership.fence(),
            Self::Locks(guard) => guard.fence(),
        }
    }

    fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        match self {
            Self::Leads(leadership) => Either::Left(leadership.lost()),
            Self::Locks(guard) => Either::Right(guard.lost()),
        }
        .map(drop)
    }

    async fn release(self) -> Result<(), Error> {
        match self {
            Self::Leads(leadership) => leadership.resign().await,
            Self::Locks(guard) => guard.release().await,
        }
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ');
        Some(Self {
            count: numbers.next()?.parse().ok()?,
            token: Revision(numbers.next()?.parse().ok()?),
            nonce: numbers.next()?.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.count, self.token.0, self.nonce)
    }
}

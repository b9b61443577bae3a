//! What owners of ephemeral keys do, and somebody who is none.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use quorate::{Client, EphemeralState, Error, ErrorKind, KeyRange, Op, Runtime};
use tokio::time::{Instant, sleep};

use super::{
    BY_HAND, Ephemeral, GOING, Guard, LONGEST, Manners, OWN, Owned, Phase, RIVAL, Tag, Timed,
};
use crate::simulate::{
    cut::{cut_after, noting},
    glance::Begun,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

/// Makes keys, writes them, and lets go of them.
pub(super) struct Worker {
    pub(super) recipe: Arc<Ephemeral>,
    pub(super) world: Arc<World>,
    pub(super) client: MachineId,
    pub(super) place: u64,
    pub(super) manners: Manners,
    pub(super) random: fastrand::Rng,
    pub(super) owned: Vec<Arc<Owned>>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        while self.world.storms() {
            match self.random.u8(..20) {
                0..7 => self.create(&client).await,
                7..14 => self.set().await,
                14..17 => self.leave().await,
                17 => self.timed(&client).await,
                _ if self.manners >= Manners::Rough => self.interfere(),
                _ => {}
            }
            self.owned
                .retain(|owned| !matches!(owned.key.state(), EphemeralState::Lost(_)));
            let pause = if self.random.bool() { 20 } else { 900 };
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
        }
        lock(&self.recipe.books).kept.append(&mut self.owned);
    }

    fn path(&mut self) -> String {
        match self.random.u8(..5) {
            0 | 1 => format!("e/own/{}/{}", self.client, self.random.u64(..OWN)),
            _ => RIVAL[self.random.usize(..RIVAL.len())].to_owned(),
        }
    }

    fn number(&self) -> u64 {
        let mut books = lock(&self.recipe.books);
        books.next_value += 1;
        books.next_value
    }

    fn tag(&self, guard: u64, number: u64) -> String {
        let client = self.client;
        let tag = Tag {
            client,
            guard,
            number,
        };
        tag.to_string()
    }

    /// Creates a key, until it loses patience: after a while, or between any two steps.
    async fn create(&mut self, client: &Client) {
        let (path, number) = (self.path(), self.number());
        let guard = number;
        let takes_over = self.manners == Manners::Rude && self.random.u8(..3) == 0;
        let mut ephemeral = client.ephemeral(path.as_str());
        if takes_over {
            ephemeral = ephemeral.take_over();
        }
        if self.random.u8(..6) == 0 {
            ephemeral = ephemeral.ttl(Duration::from_secs(self.random.u64(1..=LONGEST.as_secs())));
        }
        let was_free = {
            let mut books = lock(&self.recipe.books);
            let client = self.client;
            let mut others = books.guards.values();
            let open = others.any(|other| {
                other.client == client && other.path == path && other.phase != Phase::Left
            });
            books.guards.insert(
                guard,
                Guard {
                    client,
                    path: path.clone(),
                    phase: Phase::Creating,
                    takes_over,
                    since: self.world.store.revision(),
                    owned: Weak::new(),
                },
            );
            !open && self.world.keys(KeyRange::key(path.as_str())).is_empty()
        };
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..30));
        let recipe = Arc::clone(&self.recipe);
        let creation = ephemeral.create(self.tag(guard, number));
        let creation = noting(creation, move || recipe.leave_guard(guard));
        let begun = Begun::now(&self.world, self.client);
        let key = cut_after(steps, creation).await;
        self.bounded(begun, "to create an ephemeral key");
        let key = match key {
            None => return self.world.count("cancelled"),
            Some(Ok(key)) => key,
            Some(Err(error)) => {
                self.recipe.leave_guard(guard);
                if error.kind() == ErrorKind::AlreadyExists {
                    self.world.count("taken");
                    self.taken(guard, was_free);
                } else {
                    self.expected(&error);
                }
                return;
            }
        };
        self.world.count("created");
        let owned = Arc::new(Owned {
            client: self.client,
            guard,
            path,
            key,
            wanted: Mutex::new(number),
        });
        {
            let mut books = lock(&self.recipe.books);
            books.made.insert(guard, Arc::downgrade(&owned));
            books.missing.push(Arc::downgrade(&owned));
            if let Some(guard) = books.guards.get_mut(&guard) {
                guard.phase = Phase::Made;
                guard.owned = Arc::downgrade(&owned);
            }
        }
        let machine = &self.world.members[self.client].machine;
        let (recipe, world) = (Arc::clone(&self.recipe), Arc::clone(&self.world));
        machine.spawn(Box::pin(recipe.follow(world, Arc::downgrade(&owned))));
        self.owned.push(owned);
    }

    /// Nobody is refused a path that nobody had.
    fn taken(&self, guard: u64, was_free: bool) {
        let books = lock(&self.recipe.books);
        let Some(guard) = books.guards.get(&guard) else {
            return;
        };
        let written = books.paths.get(&guard.path).is_some_and(|path| {
            let mut writers = path.writers.values();
            writers.any(|at| *at > guard.since)
        });
        let opened = books.guards.values().any(|other| {
            other.client == guard.client && other.path == guard.path && other.since >= guard.since
        });
        let stands = !self
            .world
            .keys(KeyRange::key(guard.path.as_str()))
            .is_empty();
        if was_free && !written && !opened && !stands {
            let (client, path) = (self.client, &guard.path);
            self.world.broken(
                "I12",
                format_args!("client {client} is refused {path}, which is free"),
            );
        }
    }

    /// Sets a value, and may not wait for what becomes of that.
    async fn set(&mut self) {
        if self.owned.is_empty() {
            return;
        }
        let owned = Arc::clone(&self.owned[self.random.usize(..self.owned.len())]);
        let number = if self.random.u8(..4) == 0 {
            0
        } else {
            self.number()
        };
        let value = self.tag(owned.guard, number);
        let begun = Begun::now(&self.world, self.client);
        let mut setting = Box::pin({
            let owned = Arc::clone(&owned);
            async move { owned.key.set(value).await }
        });
        // The wish counts from the first poll on.
        *lock(&owned.wanted) = number;
        if let Some(set) = (&mut setting).now_or_never() {
            return self.was_set(&owned, number, set);
        }
        match self.random.u8(..4) {
            0 => self.world.work(self.client, setting.map(drop)),
            1 => drop(cut_after(Some(self.random.u32(1..10)), setting).await),
            _ => {
                let set = setting.await;
                self.bounded(begun, "to set a value");
                self.was_set(&owned, number, set);
            }
        }
    }

    fn was_set(&self, owned: &Owned, number: u64, set: Result<(), Error>) {
        match set {
            Ok(()) => {
                self.world.count("set");
                let there = self.world.keys(KeyRange::key(owned.path.as_str()));
                let tag = there.first().and_then(Tag::of);
                if number != 0
                    && tag.is_some_and(|tag| {
                        tag.guard == owned.guard && tag.number < number && tag.number != 0
                    })
                {
                    let path = &owned.path;
                    self.world.broken(
                        "I10",
                        format_args!("{path} was set to {number}, and is {tag:?}"),
                    );
                }
            }
            Err(error) if error.kind() == ErrorKind::Lost => {
                let state = owned.key.state();
                if !matches!(state, EphemeralState::Lost(_)) {
                    let path = &owned.path;
                    self.world.broken(
                        "I9",
                        format_args!("a value is refused by {path}, which is {state:?}"),
                    );
                }
            }
            Err(error) => self.expected(&error),
        }
    }

    async fn leave(&mut self) {
        if self.owned.is_empty() {
            return;
        }
        let owned = self
            .owned
            .swap_remove(self.random.usize(..self.owned.len()));
        self.recipe.leave_guard(owned.guard);
        let Some(Owned { key, path, .. }) = Arc::into_inner(owned) else {
            return;
        };
        let token = key.token();
        match self.random.u8(..3) {
            0 => drop(key),
            1 => drop(cut_after(Some(self.random.u32(1..10)), key.release()).await),
            _ => {
                let begun = Begun::now(&self.world, self.client);
                match key.release().await {
                    Ok(()) => {
                        let there = self.world.keys(KeyRange::key(path.as_str()));
                        // What is put over it is somebody else's.
                        let mut own = there.iter().filter(|kv| Tag::of(kv).is_some());
                        if own.any(|kv| kv.create_revision == token) {
                            self.world
                                .broken("I5", format_args!("{path} is released, and stands"));
                        }
                        self.world.count("released");
                    }
                    Err(error) if error.kind() == ErrorKind::Lost => {}
                    Err(error) => self.expected(&error),
                }
                self.bounded(begun, "to release a key");
            }
        }
    }

    /// Somebody deletes a key, overwrites it, or takes the path while it is free.
    fn interfere(&mut self) {
        let path = self.path();
        let path = path.as_str();
        self.world.count("interfered");
        let (op, when) = match self.random.u8(..5) {
            0 => (Op::put(path, BY_HAND), vec![]),
            1 => (Op::put(path, BY_HAND), vec![quorate::Compare::absent(path)]),
            _ => (Op::delete(path), vec![]),
        };
        self.recipe.by_hand(&self.world, op, &when);
    }

    /// Puts a key that vanishes by itself, and lets it live for longer, or not.
    async fn timed(&mut self, client: &Client) {
        let path = format!("e/timed/{}/{}/{}", self.client, self.place, self.number());
        let ttl = Duration::from_secs(self.random.u64(1..=LONGEST.as_secs()));
        let begun = Instant::now();
        let since = Begun::now(&self.world, self.client);
        let key = match client.put_with_ttl(path.as_str(), "", ttl).await {
            Ok(key) => key,
            Err(error) => return self.expected(&error),
        };
        self.within(since, 3 * CALL, "to put a key with a time to live");
        self.lives(&path, begun, ttl);
        let mut is_deleted = false;
        for _ in 0..self.random.u8(..4) {
            if is_deleted {
                // Even if that is not known, it may be at any time.
                return;
            }
            sleep(Duration::from_millis(self.random.u64(..1500))).await;
            let begun = Instant::now();
            let since = Begun::now(&self.world, self.client);
            let outcome = match self.random.u8(..4) {
                0 => key.set("again").await.map(|_| None),
                1 => {
                    // From now on it may be gone.
                    self.amend(&path, |timed| timed.not_before = None);
                    is_deleted = true;
                    key.delete().await.map(|()| None)
                }
                _ => {
                    self.amend(&path, |timed| timed.not_after = None);
                    key.refresh().await.map(Some)
                }
            };
            self.bounded(since, "a call for a key with a time to live");
            let late = ttl + self.world.latest_expiry() + GOING;
            self.amend(&path, |timed| {
                timed.not_after.get_or_insert_with(|| Instant::now() + late);
            });
            match outcome {
                Ok(Some(left)) if left == ttl => {
                    self.world.count("refreshed");
                    self.lives(&path, begun, ttl);
                }
                Ok(None) => {}
                Ok(left) => self.world.broken("I9", format_args!("{path} has {left:?}")),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let books = lock(&self.recipe.books);
                    let not_before = books.timed.get(&path).and_then(|timed| timed.not_before);
                    let early = not_before.is_some_and(|at| Instant::now() < at);
                    if early && self.world.schedule.assumed {
                        self.world
                            .broken("I9", format_args!("before its time, {error}"));
                    }
                    return;
                }
                Err(error) => self.expected(&error),
            }
        }
    }

    /// A key has been given a time to live since `begun`.
    fn lives(&self, path: &str, begun: Instant, ttl: Duration) {
        let late = ttl + self.world.latest_expiry() + GOING;
        let timed = Timed {
            client: self.client,
            not_before: Some(begun + ttl),
            not_after: Some(Instant::now() + late),
            ttl,
        };
        lock(&self.recipe.books)
            .timed
            .insert(path.to_owned(), timed);
    }

    fn amend(&self, path: &str, change: impl FnOnce(&mut Timed)) {
        lock(&self.recipe.books).timed.get_mut(path).map(change);
    }

    fn bounded(&self, begun: Begun, what: &str) {
        self.within(begun, CALL, what);
    }

    fn within(&self, begun: Begun, most: Duration, what: &str) {
        let books = lock(&self.recipe.books);
        books
            .pauses
            .bounded(&self.world, self.client, begun, most, what);
    }

    fn expected(&self, error: &Error) {
        let kinds = [
            ErrorKind::Lost,
            ErrorKind::NotFound,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
        ];
        self.world.expect(error, &kinds);
    }
}

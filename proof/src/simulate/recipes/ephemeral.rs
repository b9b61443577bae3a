//! Ephemeral keys of rivals that want the same paths, and of owners with many; keys with a time to live.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, Delete, EphemeralKey, EphemeralState, Error, ErrorKind, Event, KeyRange, KeyValue,
    LeaseId, Loss, Op, Revision, Runtime, Session, Txn, WatchRequest,
    backend::{Backend, WatchStream},
};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

use super::Recipe;
use crate::simulate::{
    cut::{cut_after, noting},
    glance::{Begun, Mirror, Pauses},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

/// Everything of this recipe.
const ALL: &str = "e/";

/// The paths that all want.
const RIVAL: [&str; 3] = ["e/rival/0", "e/rival/1", "e/alone"];

/// How many paths each client has for itself: enough to be watched as a directory.
const OWN: u64 = 12;

/// What somebody writes who is none of the clients.
const BY_HAND: &str = "by hand";

/// How long a key may be missing once all is well.
const RECREATION: Duration = Duration::from_secs(1);

/// The longest time to live of this recipe.
const LONGEST: Duration = Duration::from_secs(3);

/// How late a key may go.
const GOING: Duration = Duration::from_millis(500);

/// The recipe, and what is known of the keys.
#[derive(Default)]
pub(crate) struct Ephemeral {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    guards: BTreeMap<u64, Guard>,
    paths: BTreeMap<String, Path>,
    /// Those whose keys shall stand, and of them those whose keys do not.
    made: BTreeMap<u64, Weak<Owned>>,
    missing: Vec<Weak<Owned>>,
    /// Keys with a time to live.
    timed: BTreeMap<String, Timed>,
    /// The revisions of what was done by hand.
    by_hand: BTreeSet<Revision>,
    /// The guards that outlive the storm.
    kept: Vec<Arc<Owned>>,
    /// Whether leases are ended and keys deleted to see what comes of it.
    is_tried: bool,
    mirror: Mirror,
    pauses: Pauses,
    next_value: u64,
}

/// What others do to the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manners {
    Gentle,
    /// Somebody writes and deletes by hand.
    Rough,
    /// Clients take over, too.
    Rude,
}

/// One creation of a key, and what became of it.
struct Guard {
    client: MachineId,
    path: String,
    phase: Phase,
    takes_over: bool,
    /// The revision of the store when it began.
    since: Revision,
    owned: Weak<Owned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Creating,
    /// Its key shall stand.
    Made,
    /// Its key shall be gone.
    Left,
}

/// An owner's key.
struct Owned {
    client: MachineId,
    guard: u64,
    path: String,
    key: EphemeralKey,
    /// The value set last.
    wanted: Mutex<u64>,
}

/// What happened to a path.
#[derive(Default)]
struct Path {
    present: Option<Incarnation>,
    /// Who wrote it last at which revision; by hand if it is no client.
    writers: BTreeMap<Option<MachineId>, Revision>,
}

#[derive(Clone, Copy, Debug)]
struct Incarnation {
    created: Revision,
    lease: Option<LeaseId>,
    tag: Option<Tag>,
}

/// A client's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    client: MachineId,
    guard: u64,
    /// Zero is a value that is set again and again.
    number: u64,
}

/// When a key with a time to live may go, and when it must have gone.
struct Timed {
    not_before: Option<Instant>,
    not_after: Option<Instant>,
    ttl: Duration,
}

impl Recipe for Ephemeral {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        let this = Arc::clone(&self);
        // The store answers at once.
        let changes = world
            .store
            .watch(WatchRequest::new(KeyRange::prefix(ALL)))
            .now_or_never();
        world.aside(move |world| async move {
            if let Some(Ok(watching)) = changes {
                this.audit(&world, watching.stream).await;
            }
        });
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    place: worker,
                    manners: manners(world),
                    random: world.random(client, worker),
                    owned: Vec::new(),
                };
                world.work(client, worker.run());
            }
        }
    }

    fn look(&self, world: &World) {
        let mut books = lock(&self.books);
        let books = &mut *books;
        books.pauses.look(world);
        if !world.schedule.assumed || books.is_tried {
            return;
        }
        let is_news = books.mirror.look(world, || KeyRange::prefix(ALL));
        let there = books.mirror.keys();
        let find = |path: &str| there.iter().find(|kv| kv.key == path);
        if is_news {
            books.missing = books.made.values().cloned().collect();
        }
        let is_gentle = manners(world) == Manners::Gentle;
        books.missing.retain(|owned| {
            let Some(owned) = owned.upgrade() else {
                return false;
            };
            let token = owned.key.token();
            let stands = find(&owned.path).is_some_and(|kv| kv.create_revision == token);
            // Who is asked may notice what it would not have, so only who has no key is.
            if is_gentle && !stands && owned.key.is_held() {
                let (client, path) = (owned.client, &owned.path);
                let what = format_args!("client {client} relies on {path} by {token}: it is gone");
                world.broken("I1", what);
            }
            !stands
        });
        let now = Instant::now();
        let late = world.latest_expiry() + GOING;
        let renewed = world.healed() + late;
        books.timed.retain(|path, timed| {
            let stands = find(path).is_some();
            if !stands && timed.not_before.is_some_and(|not_before| now < not_before) {
                world.broken("I9", format_args!("{path} is gone before its time"));
            }
            let not_after = timed
                .not_after
                .map(|not_after| not_after.max(renewed + timed.ttl));
            let is_over = not_after.is_some_and(|not_after| now > not_after);
            if stands && is_over {
                world.broken("I9", format_args!("{path} stands after its time"));
            }
            !is_over
        });
        for member in &world.members {
            let client = member.machine.id();
            let Some(death) = books.pauses.since(client) else {
                continue;
            };
            let mut owned = there.iter().filter(|kv| {
                kv.lease.is_some() && Tag::of(kv).is_some_and(|tag| tag.client == client)
            });
            if now > death.max(world.healed()) + LONGEST + late
                && let Some(kv) = owned.next()
            {
                let key = &kv.key;
                world.broken(
                    "I9",
                    format_args!("client {client} is as good as dead, {key} stands"),
                );
            }
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let sessions = alive(&world).await;
            let patience = 2 * CALL + 4 * LONGEST;
            self.stand(&world, patience, "I8", "all is well").await;
            // So that no pause goes on that began in the storm.
            sleep(LONGEST).await;
            lock(&self.books).is_tried = true;
            for lease in world.leases() {
                world.store.expire(lease);
            }
            self.stand(&world, RECREATION, "I9", "the leases ended")
                .await;
            for kv in self.standing(&world) {
                self.by_hand(&world, Op::Delete(Delete::new(&kv.key)), &[]);
            }
            self.stand(&world, RECREATION, "I9", "the keys were deleted")
                .await;
            drop(sessions);
            let sessions = alive(&world).await;
            self.overwritten(&world).await;
            self.leave(&world).await;
            drop(sessions);
            lock(&self.books).kept.clear();
            world.nothing_left().await;
        })
    }
}

/// How rough a run is follows from its seed.
fn manners(world: &World) -> Manners {
    match world.schedule.seed / 3 % 4 {
        0 => Manners::Rough,
        1 => Manners::Rude,
        _ => Manners::Gentle,
    }
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

impl Ephemeral {
    /// Follows all changes: nobody touches another's key.
    async fn audit(&self, world: &World, mut changes: Box<dyn WatchStream>) {
        while let Some(Ok(batch)) = changes.next().await {
            for event in batch.events {
                self.changed(world, event);
            }
        }
    }

    fn changed(&self, world: &World, event: Event) {
        let mut books = lock(&self.books);
        let books = &mut *books;
        let at = event.revision();
        let path = event.key().to_string();
        if books.timed.contains_key(&path) || path.starts_with("e/timed/") {
            return;
        }
        let known = books.paths.entry(path.clone()).or_default();
        let by_hand = books.by_hand.contains(&at);
        let before = known.present.take();
        let Event::Put { kv, .. } = event else {
            if let Some(gone) = before
                && !by_hand
                && world.schedule.assumed
                && !is_explained(world, &books.guards, &path, gone)
            {
                world.broken(
                    "I14",
                    format_args!("somebody deleted {path} at {at}, {gone:?}"),
                );
            }
            return;
        };
        let tag = Tag::of(&kv);
        let writer = tag.map(|tag| tag.client);
        known.writers.insert(writer, at);
        known.present = Some(Incarnation {
            created: kv.create_revision,
            lease: kv.lease,
            tag,
        });
        if by_hand {
            return;
        }
        if kv.lease.is_none() {
            world.broken("I9", format_args!("{path} has no lease at {at}"));
        }
        let Some(before) = before.filter(|before| before.created == kv.create_revision) else {
            world.count("made");
            return;
        };
        match (before.tag, tag) {
            (Some(former), Some(tag)) if former.client == tag.client => {
                let undone = tag.number < former.number && tag.number != 0;
                if undone && tag.guard == former.guard {
                    world.broken(
                        "I10",
                        format_args!("{tag:?} undid {former:?} of {path} at {at}"),
                    );
                }
            }
            (former, tag) => {
                let what = format_args!("{tag:?} overwrote {former:?} of {path} at {at}");
                world.broken("I14", what);
            }
        }
    }

    /// Does something to keys in nobody's name; the store answers at once.
    fn by_hand(&self, world: &World, op: Op, when: &[quorate::Compare]) {
        let mut txn = Txn::new().then(op);
        for compare in when {
            txn = txn.when(compare.clone());
        }
        let answer = unconstrained(world.store.txn(txn)).now_or_never();
        if let Some(Ok(answer)) = answer {
            lock(&self.books).by_hand.insert(answer.header.revision);
        }
    }

    fn leave_guard(&self, guard: u64) {
        let mut books = lock(&self.books);
        books.made.remove(&guard);
        if let Some(guard) = books.guards.get_mut(&guard) {
            guard.phase = Phase::Left;
        }
    }

    /// Follows the states of a key to their end.
    async fn follow(self: Arc<Self>, world: Arc<World>, owned: Weak<Owned>) {
        let Some((guard, mut states)) = owned
            .upgrade()
            .map(|owned| (owned.guard, owned.key.states()))
        else {
            return;
        };
        let mut last = Revision::ZERO;
        let mut state = states.current();
        loop {
            match state {
                EphemeralState::Present { token } if token < last => {
                    world.broken("I14", format_args!("{token} comes after {last}"));
                }
                EphemeralState::Present { token } => {
                    last = token;
                    world.count("present");
                }
                EphemeralState::Lost(loss) => {
                    // So that what was seen is in the books, too.
                    sleep(Duration::from_millis(1)).await;
                    self.lost(&world, guard, loss);
                    if let Ok(state) = timeout(CALL, states.changed()).await {
                        world.broken("I14", format_args!("{state:?} comes after {loss:?}"));
                    }
                    return;
                }
                _ => world.count("gaps"),
            }
            state = states.changed().await;
        }
    }

    /// A key was told to be lost: there must have been a reason.
    fn lost(&self, world: &World, number: u64, loss: Loss) {
        let books = lock(&self.books);
        let Some(guard) = books.guards.get(&number) else {
            return;
        };
        let deposed = || {
            let others = books.guards.iter().filter(|(other, _)| **other != number);
            let mut others = others.map(|(_, other)| other);
            others.any(|other| other.takes_over && other.path == guard.path)
        };
        let taken = || {
            let writers = books.paths.get(&guard.path).map(|path| &path.writers);
            let mut writers = writers.into_iter().flatten();
            writers.any(|(writer, at)| *writer != Some(guard.client) && *at > guard.since)
        };
        let explained = match loss {
            Loss::Released => guard.phase == Phase::Left,
            Loss::Conflict => taken() || deposed(),
            _ => false,
        };
        if !explained {
            let (client, path) = (guard.client, &guard.path);
            world.broken(
                "I9",
                format_args!("client {client} lost {path} for good: {loss:?}"),
            );
        }
        if loss == Loss::Conflict {
            world.count("conflicts");
        }
    }

    /// The keys that stand, as the owners want them or not.
    fn standing(&self, world: &World) -> Vec<KeyValue> {
        let mut there = world.keys(KeyRange::prefix(ALL));
        there.retain(|kv| Tag::of(kv).is_some());
        there
    }

    /// Each key that is wanted has to stand as its owner wants it, and no other.
    async fn stand(&self, world: &World, patience: Duration, invariant: &'static str, when: &str) {
        let deadline = Instant::now() + patience;
        while let Some(wrong) = self.not_as_wanted(world) {
            if Instant::now() > deadline {
                world.broken(invariant, format_args!("{when}, and {wrong}"));
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn not_as_wanted(&self, world: &World) -> Option<String> {
        let mut there = self.standing(world);
        let books = lock(&self.books);
        for owned in &books.kept {
            let state = owned.key.state();
            if let EphemeralState::Lost(_) = state {
                continue;
            }
            let path = &owned.path;
            let nth = there.iter().position(|kv| kv.key == path.as_str());
            let Some(kv) = nth.map(|nth| there.swap_remove(nth)) else {
                return Some(format!("{path} of client {} is missing", owned.client));
            };
            let wanted = Tag {
                client: owned.client,
                guard: owned.guard,
                number: *lock(&owned.wanted),
            };
            let present = EphemeralState::Present {
                token: kv.create_revision,
            };
            if Tag::of(&kv) != Some(wanted) || state != present || owned.key.error().is_some() {
                let (value, error) = (&kv.value, owned.key.error());
                return Some(format!(
                    "{path} is {value} by {}, not as {wanted:?} is: {state:?}, {error:?}",
                    kv.create_revision
                ));
            }
        }
        there
            .first()
            .map(|kv| format!("nobody wants {} ({})", kv.key, kv.value))
    }

    /// Whose key somebody overwrites has lost it, and leaves it alone.
    async fn overwritten(&self, world: &World) {
        let kept = lock(&self.books).kept.clone();
        let open = |owned: &&Arc<Owned>| !matches!(owned.key.state(), EphemeralState::Lost(_));
        let Some(owned) = kept.iter().find(open) else {
            return;
        };
        let path = owned.path.as_str();
        self.by_hand(world, Op::put(path, BY_HAND), &[]);
        let lost = timeout(RECREATION, owned.key.lost()).await;
        if lost != Ok(Loss::Conflict) {
            world.broken(
                "I9",
                format_args!("{path} was overwritten, and it is {lost:?}"),
            );
        }
        sleep(RECREATION).await;
        let there = world.keys(KeyRange::key(path));
        if there.first().is_none_or(|kv| kv.value != BY_HAND) {
            world.broken(
                "I14",
                format_args!("{path} was overwritten, and is {there:?}"),
            );
        }
        self.by_hand(world, Op::delete(path), &[]);
    }

    /// What is let go is gone, though the sessions live on.
    async fn leave(&self, world: &World) {
        let kept = std::mem::take(&mut lock(&self.books).kept);
        for (nth, owned) in kept.into_iter().enumerate() {
            self.leave_guard(owned.guard);
            let is_lost = matches!(owned.key.state(), EphemeralState::Lost(_));
            match Arc::into_inner(owned) {
                Some(owned) if nth % 2 == 0 && !is_lost => {
                    if let Err(error) = owned.key.release().await {
                        world.broken(
                            "I12",
                            format_args!("{} is not released: {error}", owned.path),
                        );
                    }
                }
                other => drop(other),
            }
        }
        self.stand(world, RECREATION, "I5", "all was let go").await;
    }
}

/// Whether an incarnation may be gone: its owner has left it, or has lost its lease, or somebody took the
/// path.
fn is_explained(
    world: &World,
    guards: &BTreeMap<u64, Guard>,
    path: &str,
    gone: Incarnation,
) -> bool {
    if guards
        .values()
        .any(|guard| guard.takes_over && guard.path == path)
    {
        return true;
    }
    let Some(tag) = gone.tag else {
        return false;
    };
    let is_wanted = guards.get(&tag.guard).is_some_and(|guard| {
        guard.phase == Phase::Made
            && guard.owned.upgrade().is_some_and(|owned| {
                !matches!(owned.key.states().current(), EphemeralState::Lost(_))
            })
    });
    let lives = gone
        .lease
        .is_some_and(|lease| world.leases().contains(&lease));
    !is_wanted || !lives
}

impl Tag {
    fn of(kv: &KeyValue) -> Option<Self> {
        let mut numbers = kv.value.as_str()?.split('.');
        Some(Self {
            client: numbers.next()?.parse().ok()?,
            guard: numbers.next()?.parse().ok()?,
            number: numbers.next()?.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.client, self.guard, self.number)
    }
}

/// Makes keys, writes them, and lets go of them.
struct Worker {
    recipe: Arc<Ephemeral>,
    world: Arc<World>,
    client: MachineId,
    place: u64,
    manners: Manners,
    random: fastrand::Rng,
    owned: Vec<Arc<Owned>>,
}

impl Worker {
    async fn run(mut self) {
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
        let expected = [
            ErrorKind::Lost,
            ErrorKind::NotFound,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
        ];
        if !expected.contains(&error.kind()) {
            self.world
                .broken("I13", format_args!("an error that nobody expects: {error}"));
        }
    }
}

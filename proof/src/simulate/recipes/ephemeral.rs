//! Ephemeral keys of rivals that want the same paths, and of owners with many; keys with a time to live.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate::{Delete, EphemeralKey, KeyRange, KeyValue, LeaseId, Op, Revision};
use tokio::time::{Instant, sleep};

use self::worker::Worker;
use super::Recipe;
use crate::simulate::{
    glance::{Log, Mirror, Pauses, wake},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

mod judge;
mod worker;

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
pub(crate) struct Ephemeral {
    books: Mutex<Books>,
}

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
    log: Log,
    mirror: Mirror,
    pauses: Pauses,
    /// Who was judged to be as good as dead, since when.
    buried: BTreeSet<(MachineId, Instant)>,
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
    /// At which revision each guard wrote it last, and somebody by hand.
    writers: BTreeMap<Option<u64>, Revision>,
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
    client: MachineId,
    not_before: Option<Instant>,
    not_after: Option<Instant>,
    ttl: Duration,
}

impl Default for Ephemeral {
    fn default() -> Self {
        let books = Books {
            guards: BTreeMap::new(),
            paths: BTreeMap::new(),
            made: BTreeMap::new(),
            missing: Vec::new(),
            timed: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            kept: Vec::new(),
            is_tried: false,
            log: Log::new(KeyRange::prefix(ALL)),
            mirror: Mirror::default(),
            pauses: Pauses::default(),
            buried: BTreeSet::new(),
            next_value: 0,
        };
        Self {
            books: Mutex::new(books),
        }
    }
}

impl Recipe for Ephemeral {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        wake(world, KeyRange::prefix(ALL));
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
        for event in books.log.look(world) {
            books.changed(world, event);
        }
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
        let renewed = |client| world.healed(client).max(world.kept_alive()) + late;
        books.timed.retain(|path, timed| {
            let stands = find(path).is_some();
            if !stands && timed.not_before.is_some_and(|not_before| now < not_before) {
                world.broken("I9", format_args!("{path} is gone before its time"));
            }
            let not_after = timed
                .not_after
                .map(|not_after| not_after.max(renewed(timed.client) + timed.ttl));
            let is_over = not_after.is_some_and(|not_after| now > not_after);
            if stands && is_over {
                world.broken("I9", format_args!("{path} stands after its time"));
            }
            if is_over {
                world.count("judged timed");
            }
            !is_over
        });
        for member in &world.members {
            let client = member.machine.id();
            let Some(death) = world.stopped(client) else {
                continue;
            };
            let mut owned = there.iter().filter(|kv| {
                kv.lease.is_some() && Tag::of(kv).is_some_and(|tag| tag.client == client)
            });
            if now <= renewed(client).max(death + late) + LONGEST {
                continue;
            }
            if books.buried.insert((client, death)) {
                world.count("judged dead");
            }
            if let Some(kv) = owned.next() {
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
            let sessions = super::sessions(&world).await;
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
            let sessions = super::sessions(&world).await;
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

//! Holds that no process keeps, found and renewed and released by their tokens, in one queue with locks
//! that are kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate::{
    Detached, ErrorKind, KeyRange, LockGuard, Moment, Revision, Runtime, backend::fault::CallKind,
};
use tokio::time::{Instant, sleep, timeout};

use self::worker::Worker;
use super::Recipe;
use crate::simulate::{
    glance::{Mirror, Pauses, wake},
    ledger::Ledger,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

mod worker;

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
            ledger: Ledger::new(NAME),
        }
    }
}

impl Recipe for Holds {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        wake(world, queue());
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
        self.ledger.look(world);
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
            let sessions = super::sessions(&world).await;
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

//! Sessions, a client's shared one and those of its own: until when they may be relied on, and that their
//! end is final.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use quorate::{
    KeyRange, LeaseId, Loss, Moment, Put, Runtime, Session, SessionState, Txn, backend::Backend,
};
use tokio::time::{sleep, timeout};

use self::worker::Worker;
use super::Recipe;
use crate::simulate::{
    glance::{Begun, Due, Pauses, wake},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

mod worker;

/// A key of each lease, whose end wakes the oracle.
const ALIVE: &str = "alive/";

/// The recipe, and what is known of its sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    known: BTreeMap<LeaseId, Known>,
    /// The session that was last seen to be shared by a client, which keeps it as well.
    shared: BTreeMap<MachineId, Arc<Session>>,
    generations: BTreeSet<(MachineId, u64)>,
    pauses: Pauses,
}

/// A session that somebody was given.
struct Known {
    client: MachineId,
    session: Weak<Session>,
    deadline: Moment,
    end: Option<End>,
    /// What its `lost()` said.
    told: Option<Loss>,
    /// Whether it ought to have said so.
    untold: Due,
}

/// How a session was first seen to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By the clock alone; nobody was made to look.
    Due,
    Lost(Loss),
}

impl Recipe for Sessions {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        wake(world, KeyRange::prefix(ALIVE));
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    random: world.random(client, worker),
                    kept: Vec::new(),
                };
                world.work(client, worker.run());
            }
        }
    }

    fn look(&self, world: &World) {
        let mut books = lock(&self.books);
        books.pauses.look(world);
        if books.known.is_empty() {
            return;
        }
        let leases = world.leases();
        for (lease, known) in &mut books.known {
            known.look(world, *lease, &leases);
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            lock(&self.books).shared.clear();
            let sessions = self.sessions_live(&world).await;
            for (client, session) in &sessions {
                if client % 2 == 0 {
                    self.client_closes(&world, *client, session).await;
                }
            }
            lock(&self.books).shared.clear();
            drop(sessions);
            world.nothing_left().await;
        })
    }
}

impl Known {
    /// What must be true after every step. It never asks a session whose time is up, since that would
    /// notice it for the library.
    fn look(&mut self, world: &World, lease: LeaseId, leases: &[LeaseId]) {
        if let Some(session) = self.session.upgrade() {
            let machine = &world.members[self.client].machine;
            let deadline = session.deadline();
            match self.end {
                Some(end) => {
                    if deadline != self.deadline {
                        let former = self.deadline;
                        let what = format_args!(
                            "{lease} is over ({end:?}), and its deadline moves from {former:?} to {deadline:?}"
                        );
                        world.broken("I14", what);
                    }
                    if let End::Lost(loss) = end
                        && session.state() != SessionState::Lost(loss)
                    {
                        let state = session.state();
                        world.broken("I14", format_args!("{lease} was {end:?}, and is {state:?}"));
                    }
                }
                None => {
                    if deadline < self.deadline {
                        world.broken("I14", format_args!("the deadline of {lease} goes back"));
                    }
                    self.deadline = deadline;
                    self.end = if machine.now() >= deadline {
                        Some(End::Due)
                    } else if let SessionState::Lost(loss) = session.state() {
                        Some(End::Lost(loss))
                    } else {
                        None
                    };
                    if self.end.is_none() && world.schedule.assumed && !leases.contains(&lease) {
                        let what = format_args!("{lease} is relied on, and the store has ended it");
                        world.broken("I1", what);
                    }
                }
            }
        }
        let is_due = self.end.is_some() && self.told.is_none() && !world.is_stopped(self.client);
        if self.untold.is_late(is_due) {
            let end = self.end;
            let what = format_args!("{lease} is over ({end:?}), and nobody is told");
            world.broken("I3", what);
        }
    }
}

impl Sessions {
    /// Takes note of a session that somebody was given just now.
    fn given(
        self: &Arc<Self>,
        world: &Arc<World>,
        client: MachineId,
        session: Session,
        is_shared: bool,
    ) -> Arc<Session> {
        let (lease, generation) = (session.lease(), session.generation());
        let mut books = lock(&self.books);
        let books = &mut *books;
        if let Some(present) = books
            .known
            .get(&lease)
            .and_then(|known| known.session.upgrade())
        {
            return present;
        }
        let session = Arc::new(session);
        if is_shared && let Some(former) = books.shared.insert(client, Arc::clone(&session)) {
            world.count("replaced");
            if !former.is_lost() {
                let what = format_args!("client {client} shares {lease}, and {former:?} lives");
                world.broken("I14", what);
            }
            if former.generation() >= generation {
                let what = format_args!("{lease} is of generation {generation}, after {former:?}");
                world.broken("I14", what);
            }
        }
        if is_shared && session.is_lost() {
            world.broken("I14", format_args!("{lease} is shared, and over"));
        }
        if let Some(known) = books.known.get_mut(&lease) {
            known.session = Arc::downgrade(&session);
            return session;
        }
        world.count("sessions");
        world.trace.say(format_args!("{client} has {lease}"));
        if !books.generations.insert((client, generation)) {
            let what = format_args!("client {client} has two sessions of generation {generation}");
            world.broken("I14", what);
        }
        let key = Put::new(format!("{ALIVE}{lease}"), "").lease(lease);
        // The store answers at once. That the lease is over already is seen by who looks.
        drop(world.store.txn(Txn::new().then(key)).now_or_never());
        let known = Known {
            client,
            session: Arc::downgrade(&session),
            deadline: session.deadline(),
            end: None,
            told: None,
            untold: Due::default(),
        };
        books.known.insert(lease, known);
        let (lost, this, outer) = (session.lost(), Arc::clone(self), Arc::clone(world));
        let machine = &world.members[client].machine;
        machine.spawn(Box::pin(async move {
            let loss = lost.await;
            this.told(&outer, lease, loss);
        }));
        session
    }

    /// The `lost()` of a session has fired.
    fn told(&self, world: &World, lease: LeaseId, loss: Loss) {
        let mut books = lock(&self.books);
        let Some(known) = books.known.get_mut(&lease) else {
            return;
        };
        world
            .trace
            .say(format_args!("{lease} is told to be lost: {loss}"));
        known.told = Some(loss);
        if let Some(session) = known.session.upgrade()
            && session.state() != SessionState::Lost(loss)
        {
            let state = session.state();
            world.broken(
                "I14",
                format_args!("{lease} is told {loss:?}, and is {state:?}"),
            );
        }
        world.count(match loss {
            Loss::Closed => "closed",
            Loss::Expired => "expired",
            Loss::Unreachable => "unreachable",
            _ => "revoked",
        });
        if world.schedule.assumed && loss == Loss::Revoked {
            world.broken(
                "I3",
                format_args!("{lease} is told that somebody revoked it"),
            );
        }
    }

    fn bounded(&self, world: &World, client: MachineId, begun: Begun, what: &str) {
        lock(&self.books)
            .pauses
            .bounded(world, client, begun, CALL, what);
    }

    /// Once all is well, sessions live on.
    async fn sessions_live(self: &Arc<Self>, world: &Arc<World>) -> Vec<(MachineId, Arc<Session>)> {
        let mut sessions = Vec::new();
        for client in 0..world.members.len() {
            // That of the storm may be past saving, or be told only now.
            for _ in 0..3 {
                drop(world.members[client].client().session().await);
                sleep(world.schedule.ttl).await;
            }
            match world.members[client].client().session().await {
                Ok(session) => sessions.push((client, self.given(world, client, session, true))),
                Err(error) => world.broken("I12", format_args!("no session is made: {error}")),
            }
        }
        // A stream that breaks or falls silent is replaced in time.
        for member in &world.members {
            member.faults.cut_beats();
        }
        sleep(2 * world.schedule.ttl).await;
        for member in &world.members {
            member.faults.silence_beats();
        }
        sleep(3 * world.schedule.ttl).await;
        for (client, session) in &sessions {
            let state = session.state();
            if state != SessionState::Live {
                world.broken(
                    "I9",
                    format_args!("all is well, and client {client} is {state:?}"),
                );
            }
        }
        sessions
    }

    async fn client_closes(&self, world: &World, client: MachineId, session: &Session) {
        let closed = timeout(2 * CALL, world.members[client].client().close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            world.broken(
                "I12",
                format_args!("client {client} is not closed: {closed:?}"),
            );
        }
        let state = session.state();
        let lives = world.leases().contains(&session.lease());
        if state != SessionState::Lost(Loss::Closed) || lives {
            let what =
                format_args!("client {client} was closed: {state:?}, its lease lives: {lives}");
            world.broken("I5", what);
        }
    }
}

//! Who holds, and who waits.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures_util::{FutureExt, future::Either};
use quorate::{Compare, Error, Key, Leadership, LockGuard, Moment, Revision, Runtime, Session};

use crate::simulate::{
    scheduler::MachineId,
    world::{World, lock},
};

/// One that was told that it holds.
pub(super) struct Held {
    pub(super) client: MachineId,
    pub(super) session: Session,
    pub(super) key: Key,
    pub(super) token: Revision,
    pub(super) fence: Compare,
    /// When it ends in any case.
    limit: Option<Moment>,
    /// Absent while it is at work, and when it is given up.
    guard: Mutex<Option<Guard>>,
    /// Whether its `lost()` has fired.
    told: AtomicBool,
}

/// Either kind of hold on the one queue.
pub(super) enum Guard {
    Leads(Leadership),
    Locks(LockGuard),
}

/// One that waits under a session that is known.
pub(super) struct Waiter {
    pub(super) client: MachineId,
    pub(super) session: Session,
}

impl Held {
    pub(super) fn new(client: MachineId, guard: Guard, limit: Option<Moment>) -> Self {
        let (session, key, fence) = match &guard {
            Guard::Leads(guard) => (guard.session(), guard.key(), guard.fence()),
            Guard::Locks(guard) => (guard.session(), guard.key(), guard.fence()),
        };
        Self {
            client,
            session: session.clone(),
            key: key.clone(),
            token: guard.token(),
            fence,
            limit,
            guard: Mutex::new(Some(guard)),
            told: AtomicBool::new(false),
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether its time is up, or its session is over. A session whose time is up is not asked, since
    /// that would notice it for the library.
    pub(super) fn is_over(&self, world: &World) -> bool {
        let now = world.members[self.client].machine.now();
        self.limit.is_some_and(|limit| now >= limit) || is_over(&self.session, world, self.client)
    }

    /// Whether it says that it holds. In every other schedule it is not asked when its time is up: who
    /// is asked notices what `lost()` might not have.
    pub(super) fn believes(&self, world: &World) -> bool {
        if world.schedule.seed.is_multiple_of(2) && self.is_over(world) {
            return false;
        }
        self.is_held()
    }

    pub(super) fn is_held(&self) -> bool {
        lock(&self.guard).as_ref().is_some_and(Guard::is_held)
    }

    pub(super) fn take(&self) -> Option<Guard> {
        lock(&self.guard).take()
    }

    pub(super) fn put_back(&self, guard: Guard) {
        lock(&self.guard).replace(guard);
    }
}

impl Waiter {
    pub(super) fn is_over(&self, world: &World) -> bool {
        is_over(&self.session, world, self.client)
    }
}

fn is_over(session: &Session, world: &World, client: MachineId) -> bool {
    world.members[client].machine.now() >= session.deadline() || session.is_lost()
}

impl Guard {
    pub(super) fn token(&self) -> Revision {
        match self {
            Self::Leads(leadership) => leadership.token(),
            Self::Locks(guard) => guard.token(),
        }
    }

    fn is_held(&self) -> bool {
        match self {
            Self::Leads(leadership) => leadership.is_held(),
            Self::Locks(guard) => guard.is_held(),
        }
    }

    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        match self {
            Self::Leads(leadership) => Either::Left(leadership.lost()),
            Self::Locks(guard) => Either::Right(guard.lost()),
        }
        .map(drop)
    }

    pub(super) async fn release(self) -> Result<(), Error> {
        match self {
            Self::Leads(leadership) => leadership.resign().await,
            Self::Locks(guard) => guard.release().await,
        }
    }
}

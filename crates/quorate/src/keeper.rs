//! Keeps ephemeral keys as their owners want them, in one task for all keys of a session: so a key
//! costs no task, and whoever goes away leaves nothing behind.

mod batch;
mod entry;
mod flight;
mod slot;
mod task;
mod tenure;
mod watches;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::sync::Notify;

pub(crate) use self::slot::{OpenPaths, Slot, Told};
use self::task::Task;
use crate::{
    Loss,
    link::{Link, lock},
};

/// The keepers of a client: keys that ask for the same time to live share one, and its session.
#[derive(Debug)]
pub(crate) struct Keepers {
    /// That of the session which the client shares.
    pub(crate) shared: Arc<Keeper>,
    /// Those of other times to live, while they keep anything.
    others: Mutex<HashMap<Duration, Weak<Keeper>>>,
}

impl Default for Keepers {
    fn default() -> Self {
        Self {
            shared: Keeper::new(Arc::default(), None),
            others: Mutex::default(),
        }
    }
}

impl Keepers {
    /// The keeper of keys that ask for this time to live, or for none.
    pub(crate) fn of(&self, ttl: Option<Duration>) -> Arc<Keeper> {
        let Some(time) = ttl else {
            return Arc::clone(&self.shared);
        };
        let mut others = lock(&self.others);
        if let Some(present) = others.get(&time).and_then(Weak::upgrade) {
            return present;
        }
        others.retain(|_, keeper| keeper.strong_count() > 0);
        let keeper = Keeper::new(Arc::clone(&self.shared.paths), ttl);
        others.insert(time, Arc::downgrade(&keeper));
        keeper
    }
}

/// Where the owners of keys and the task that keeps them meet.
pub(crate) struct Keeper {
    pub(crate) paths: Arc<OpenPaths>,
    /// The time to live of its session; `None` for the session that the client shares.
    ttl: Option<Duration>,
    inbox: Mutex<Inbox>,
    wake: Notify,
}

#[derive(Default)]
struct Inbox {
    /// The slots whose owners want something else than the task knows.
    slots: Vec<Arc<Slot>>,
    /// Whether the task runs. It ends when it keeps nothing.
    running: bool,
}

impl Keeper {
    fn new(paths: Arc<OpenPaths>, ttl: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            paths,
            ttl,
            inbox: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Keeps a slot from now on. Runs where tasks can be spawned.
    pub(crate) fn keep(self: &Arc<Self>, link: &Link, slot: &Arc<Slot>) {
        let mut inbox = lock(&self.inbox);
        if slot.enter_inbox() {
            inbox.slots.push(Arc::clone(slot));
        }
        let runs = std::mem::replace(&mut inbox.running, true);
        drop(inbox);
        if !runs {
            // A runtime that is ending drops the task right here, which then takes the inbox.
            let task = Task::new(Arc::clone(self), link);
            link.runtime().spawn(Box::pin(task.run()));
        }
        self.wake.notify_one();
    }

    /// Lets the task look what the owner of a slot wants.
    pub(crate) fn look_at(&self, slot: &Arc<Slot>) {
        let mut inbox = lock(&self.inbox);
        if inbox.running && slot.enter_inbox() {
            inbox.slots.push(Arc::clone(slot));
            drop(inbox);
            self.wake.notify_one();
        }
    }

    /// Ends all that is kept, for good, since the session will be closed.
    pub(crate) fn close(self: &Arc<Self>) {
        for slot in self.paths.kept_by(self) {
            slot.depart(Loss::Closed);
        }
    }

    /// What the owners want looked at; `None` if there is nothing, and `idle`: then the task is to end.
    fn take_inbox(&self, idle: bool) -> Option<Vec<Arc<Slot>>> {
        let mut inbox = lock(&self.inbox);
        if idle && inbox.slots.is_empty() {
            inbox.running = false;
            return None;
        }
        Some(inbox.take())
    }

    /// What the owners want looked at by a task that does not run any more.
    fn abandon_inbox(&self) -> Vec<Arc<Slot>> {
        let mut inbox = lock(&self.inbox);
        inbox.running = false;
        inbox.take()
    }
}

impl Inbox {
    fn take(&mut self) -> Vec<Arc<Slot>> {
        let slots = std::mem::take(&mut self.slots);
        slots.iter().for_each(|slot| slot.leave_inbox());
        slots
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

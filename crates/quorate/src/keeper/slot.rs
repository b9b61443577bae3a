//! One ephemeral key as its owner and its keeper both know it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::watch;

use super::Keeper;
use crate::{EphemeralState, Error, Key, Loss, Result, Revision, Session, Value, link::lock};

/// What the owner wants of a key, and what the keeper tells of it.
pub(crate) struct Slot {
    /// The key as its owner names it.
    pub(crate) name: Key,
    /// The key as the whole store names it.
    pub(crate) path: Key,
    pub(crate) keeper: Arc<Keeper>,
    /// Whether whoever owns the path shall be deposed when the key is first made.
    pub(super) takes_over: bool,
    wish: Mutex<Wish>,
    told: watch::Sender<Told>,
}

/// A value that a key shall have. Later ones have higher numbers.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) value: Value,
    pub(super) number: u64,
}

struct Wish {
    /// `None` if the key shall be gone.
    goal: Option<Goal>,
    /// How many values were wished for.
    count: u64,
    /// Whether the keeper has yet to look, so that each slot is in its inbox once at most.
    in_inbox: bool,
}

/// What the keeper tells of a key.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) state: EphemeralState,
    /// The create revision of the last incarnation; zero before the first.
    pub(crate) token: Revision,
    /// By which the present incarnation lives.
    pub(crate) session: Option<Session>,
    /// The number of the newest value that was written for certain.
    pub(crate) confirmed: u64,
    /// The number of the newest value that was refused, and why.
    pub(crate) refused: Option<(u64, Error)>,
    /// Why the key does not stand, or not with its newest value.
    pub(crate) error: Option<Error>,
    /// How it ended, once it was to be gone.
    pub(crate) gone: Option<Result<()>>,
}

impl Slot {
    pub(crate) fn new(
        name: Key,
        path: Key,
        keeper: Arc<Keeper>,
        value: Value,
        takes_over: bool,
    ) -> Self {
        let told = Told {
            state: EphemeralState::Recreating,
            token: Revision::ZERO,
            session: None,
            confirmed: 0,
            refused: None,
            error: None,
            gone: None,
        };
        Self {
            name,
            path,
            keeper,
            takes_over,
            wish: Mutex::new(Wish {
                goal: Some(Goal { value, number: 1 }),
                count: 1,
                in_inbox: false,
            }),
            told: watch::Sender::new(told),
        }
    }

    /// Wishes for another value, and returns its number; `None` if the key shall be gone already.
    pub(crate) fn wish(self: &Arc<Self>, value: Value) -> Option<u64> {
        let mut wish = lock(&self.wish);
        wish.goal.as_ref()?;
        wish.count += 1;
        let number = wish.count;
        wish.goal = Some(Goal { value, number });
        drop(wish);
        self.keeper.look_at(self);
        Some(number)
    }

    /// Ends it for its owner, at once. The keeper deletes the key.
    pub(crate) fn depart(self: &Arc<Self>, loss: Loss) {
        self.lose(loss);
        self.keeper.look_at(self);
    }

    pub(crate) fn told(&self) -> watch::Ref<'_, Told> {
        self.told.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Latches the first loss; there is nothing to be wished for any more.
    pub(super) fn lose(&self, loss: Loss) {
        lock(&self.wish).goal = None;
        self.told.send_if_modified(|told| {
            let first = !matches!(told.state, EphemeralState::Lost(_));
            if first {
                told.state = EphemeralState::Lost(loss);
                told.session = None;
            }
            first
        });
    }

    /// Tells the owner what changed, unless it is over for it.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Told)) {
        self.told.send_if_modified(|told| {
            let open = !matches!(told.state, EphemeralState::Lost(_));
            if open {
                change(told);
            }
            open
        });
    }

    pub(super) fn tell_gone(&self, outcome: Result<()>) {
        self.told.send_modify(|told| {
            told.gone.get_or_insert(outcome);
        });
    }

    /// What the owner wants now.
    pub(super) fn goal(&self) -> Option<Goal> {
        lock(&self.wish).goal.clone()
    }

    /// Goes back to an earlier value, if the one that was refused is still what is wanted.
    pub(super) fn revert(&self, refused: u64, to: &Goal) {
        let mut wish = lock(&self.wish);
        if wish
            .goal
            .as_ref()
            .is_some_and(|goal| goal.number == refused)
        {
            wish.goal = Some(to.clone());
        }
    }

    /// Notes that it is in the keeper's inbox; false if it was.
    pub(super) fn enter_inbox(&self) -> bool {
        !std::mem::replace(&mut lock(&self.wish).in_inbox, true)
    }

    pub(super) fn leave_inbox(&self) {
        lock(&self.wish).in_inbox = false;
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.told.borrow();
        f.debug_struct("Slot")
            .field("key", &self.name)
            .field("state", &told.state)
            .field("token", &told.token)
            .finish_non_exhaustive()
    }
}

/// The paths that are open in a client, so that each has one owner there.
#[derive(Debug, Default)]
pub(crate) struct OpenPaths(Mutex<BTreeMap<Key, Weak<Slot>>>);

impl OpenPaths {
    /// Opens the path of `slot`, or returns the slot that has it open, or has yet to leave it.
    pub(crate) fn open(&self, slot: &Arc<Slot>) -> Result<(), Arc<Slot>> {
        let mut paths = lock(&self.0);
        if let Some(present) = paths.get(&slot.path).and_then(Weak::upgrade)
            && present.told().gone.is_none()
        {
            return Err(present);
        }
        paths.insert(slot.path.clone(), Arc::downgrade(slot));
        Ok(())
    }

    pub(crate) fn close(&self, slot: &Slot) {
        let mut paths = lock(&self.0);
        if paths
            .get(&slot.path)
            .is_some_and(|open| std::ptr::eq(open.as_ptr(), slot))
        {
            paths.remove(&slot.path);
        }
    }

    /// The slots that `keeper` keeps.
    pub(crate) fn kept_by(&self, keeper: &Arc<Keeper>) -> Vec<Arc<Slot>> {
        let paths = lock(&self.0);
        paths
            .values()
            .filter_map(Weak::upgrade)
            .filter(|slot| Arc::ptr_eq(&slot.keeper, keeper))
            .collect()
    }
}

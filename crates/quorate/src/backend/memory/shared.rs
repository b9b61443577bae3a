//! The store behind its lock, who waits for its changes, and the task that expires its leases.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use quorate_engine::{Key, Password, Revision, Store, WatchBatch, Watcher};
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use crate::{
    Result,
    backend::{AuthRequest, AuthResponse, Status},
};

/// A store, and who waits for it.
pub(super) struct Shared {
    pub(super) endpoint: String,
    origin: Instant,
    /// A std mutex: no call waits for anything while it holds it.
    state: Mutex<State>,
    /// Wakes the expiry task before its time.
    nudge: Arc<Notify>,
}

pub(super) struct State {
    pub(super) store: Store,
    /// The latest time that the store was told. Clocks of several runtimes may disagree.
    now: Duration,
    /// How much later than its time a lease ends.
    pub(super) expiry_delay: Duration,
    timer: Timer,
    watches: HashMap<u64, Watch>,
    last_watch: u64,
    /// The watches of single keys, and those of ranges: a commit wakes only whom it concerns.
    by_key: HashMap<Key, BTreeSet<u64>>,
    by_range: BTreeSet<u64>,
}

/// What the expiry task does.
#[derive(Clone, Copy)]
enum Timer {
    /// There is none, or its runtime has ended.
    Absent,
    /// It sleeps until this time, or until it is nudged.
    Asleep(Option<Duration>),
}

pub(super) struct Watch {
    watcher: Watcher,
    /// Who waits for the next change.
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn new(endpoint: String) -> Arc<Self> {
        let state = State {
            store: Store::new(fastrand::u64(1..), fastrand::u64(1..)),
            now: Duration::ZERO,
            expiry_delay: Duration::ZERO,
            timer: Timer::Absent,
            watches: HashMap::new(),
            last_watch: 0,
            by_key: HashMap::new(),
            by_range: BTreeSet::new(),
        };
        Arc::new(Self {
            endpoint,
            origin: Instant::now(),
            state: Mutex::new(state),
            nudge: Arc::new(Notify::new()),
        })
    }

    /// Nothing that holds the lock runs foreign code, so a panic that poisoned it was not between
    /// two changes that belong together.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call after whatever is due, then wakes whom the changes concern.
    pub(super) fn with<T>(self: &Arc<Self>, call: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut wakers = Vec::new();
        let (answer, former, timer) = {
            let mut state = self.lock();
            state.now = state.now.max(self.origin.elapsed());
            let now = state.now;

            // A compaction may take the changes away, so those that were due are looked at first.
            let before = state.store.header().revision;
            state.expire(now);
            state.take_wakers(before, &mut wakers);
            let before = state.store.header().revision;
            let answer = call(&mut state, now);
            state.take_wakers(before, &mut wakers);
            let former = state.timer;
            (answer, former, state.set_timer())
        };
        // Outside the lock: to wake, or to spawn on a runtime that ends, may run foreign code.
        wakers.into_iter().for_each(Waker::wake);
        match (former, timer) {
            (Timer::Absent, Timer::Asleep(_)) => self.spawn_timer(),
            (Timer::Asleep(before), Timer::Asleep(after)) if before != after => {
                self.nudge.notify_one();
            }
            _ => {}
        }
        answer
    }

    #[allow(clippy::disallowed_methods)] // the task belongs to the store, not to a client
    fn spawn_timer(self: &Arc<Self>) {
        let timer = expire(TimerOf(Arc::downgrade(self)), Arc::clone(&self.nudge));
        // Outside a runtime the task is dropped, and the next call tries again.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timer);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.nudge.notify_one();
    }
}

/// Ends leases when their time has come, as long as there is a store.
async fn expire(store: TimerOf, nudge: Arc<Notify>) {
    while let Some(shared) = store.0.upgrade() {
        let left = shared.with(|state, now| {
            let next = state.next_expiry();
            state.timer = Timer::Asleep(next);
            next.map(|next| next.saturating_sub(now))
        });
        drop(shared);
        match left {
            // Whether it was nudged or has slept enough, it looks again.
            Some(left) => drop(tokio::time::timeout(left, nudge.notified()).await),
            None => nudge.notified().await,
        }
    }
}

/// The store that an expiry task works for. If its runtime ends before the store, even before the
/// task has begun, the next call on the store spawns another.
struct TimerOf(Weak<Shared>);

impl Drop for TimerOf {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.lock().timer = Timer::Absent;
        }
    }
}

impl State {
    fn expire(&mut self, now: Duration) {
        if let Some(time) = now.checked_sub(self.expiry_delay) {
            self.store.tick(time);
        }
    }

    fn next_expiry(&self) -> Option<Duration> {
        Some(self.store.next_expiry()?.saturating_add(self.expiry_delay))
    }

    /// Lets the expiry task know of a lease that ends before it would look again.
    fn set_timer(&mut self) -> Timer {
        if let Some(next) = self.next_expiry() {
            let late = match self.timer {
                Timer::Absent => true,
                Timer::Asleep(until) => until.is_none_or(|until| next < until),
            };
            if late {
                self.timer = Timer::Asleep(Some(next));
            }
        }
        self.timer
    }

    /// Takes the wakers of those whose keys changed after a revision.
    fn take_wakers(&mut self, before: Revision, wakers: &mut Vec<Waker>) {
        for key in self.store.changed_since(before) {
            for id in self.by_key.get(key).into_iter().flatten() {
                wakers.extend(
                    self.watches
                        .get_mut(id)
                        .and_then(|watch| watch.waker.take()),
                );
            }
            for id in &self.by_range {
                if let Some(watch) = self.watches.get_mut(id)
                    && watch.waker.is_some()
                    && watch.watcher.keys().contains(key)
                {
                    wakers.extend(watch.waker.take());
                }
            }
        }
    }

    /// Lets every watch hold what a compaction might take from it.
    pub(super) fn read_ahead(&mut self) {
        for watch in self.watches.values_mut() {
            watch.watcher.read_ahead(&self.store);
        }
    }

    /// The next changes of a watch. If there are none, the next one will wake `waker`. The waker
    /// that is no longer needed is returned, to be dropped outside the lock.
    pub(super) fn poll_watch(
        &mut self,
        id: u64,
        waker: Waker,
    ) -> (
        Result<Option<WatchBatch>, quorate_engine::Error>,
        Option<Waker>,
    ) {
        let watch = self
            .watches
            .get_mut(&id)
            .expect("only the drop of its stream removes a watch");
        match watch.watcher.next(&self.store) {
            Ok(None) => (Ok(None), watch.waker.replace(waker)),
            told => (told, Some(waker)),
        }
    }

    /// Takes the waker of a watch, to be woken outside the lock.
    pub(super) fn take_waker(&mut self, id: u64) -> Option<Waker> {
        self.watches.get_mut(&id)?.waker.take()
    }

    /// Adds a watch, and tells its place.
    pub(super) fn register(&mut self, watcher: Watcher) -> u64 {
        self.last_watch += 1;
        let id = self.last_watch;
        let keys = watcher.keys();
        if keys.is_single() {
            let ids = self.by_key.entry(keys.start.clone()).or_default();
            ids.insert(id);
        } else {
            self.by_range.insert(id);
        }
        let waker = None;
        self.watches.insert(id, Watch { watcher, waker });
        id
    }

    /// Removes a watch. It must be dropped outside the lock, since its waker may own a task that owns
    /// another stream.
    pub(super) fn unregister(&mut self, id: u64) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        let key = &watch.watcher.keys().start;
        self.by_range.remove(&id);
        if let Some(ids) = self.by_key.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_key.remove(key);
            }
        }
        Some(watch)
    }

    #[cfg(test)]
    pub(super) fn is_unwatched(&self) -> bool {
        self.watches.is_empty() && self.by_key.is_empty() && self.by_range.is_empty()
    }

    pub(super) fn status(&self) -> Status {
        let header = self.store.header();
        // Every write is an entry of a log, as far as anyone can tell.
        let index = header.revision.0.unsigned_abs();
        Status {
            header,
            version: "3.5.0".to_owned(),
            db_size: self.store.bytes(),
            db_size_in_use: self.store.bytes(),
            db_size_quota: Some(u64::MAX),
            leader: header.member_id,
            raft_index: index,
            raft_term: header.raft_term,
            raft_applied_index: index,
            errors: Vec::new(),
            is_learner: false,
        }
    }

    /// Keeps the books of users and roles.
    pub(super) fn administer(
        &mut self,
        request: AuthRequest,
    ) -> Result<AuthResponse, quorate_engine::Error> {
        let auth = self.store.auth_mut();
        let names = |names: &mut dyn Iterator<Item = &str>| {
            AuthResponse::Names(names.map(str::to_owned).collect())
        };
        match request {
            AuthRequest::Enable => auth.enable()?,
            AuthRequest::Disable => auth.disable(),
            AuthRequest::Status => {
                return Ok(AuthResponse::Status {
                    enabled: auth.is_enabled(),
                    revision: auth.revision(),
                });
            }
            // Nobody authenticates here, so no password is kept.
            AuthRequest::UserAdd { name, password } => auth.add_user(
                &name,
                match password {
                    Some(_) => Password::Hash(Bytes::new()),
                    None => Password::None,
                },
            )?,
            AuthRequest::UserDelete { name } => auth.delete_user(&name)?,
            AuthRequest::UserChangePassword { name, password: _ } => {
                auth.change_password(&name, Bytes::new())?;
            }
            AuthRequest::UserRoles { name } => return Ok(names(&mut auth.roles_of(&name)?)),
            AuthRequest::UserList => return Ok(names(&mut auth.users())),
            AuthRequest::UserGrantRole { name, role } => auth.grant_role(&name, &role)?,
            AuthRequest::UserRevokeRole { name, role } => auth.revoke_role(&name, &role)?,
            AuthRequest::RoleAdd { name } => auth.add_role(&name)?,
            AuthRequest::RoleDelete { name } => auth.delete_role(&name)?,
            AuthRequest::RolePermissions { name } => {
                return Ok(AuthResponse::Permissions(auth.permissions(&name)?.to_vec()));
            }
            AuthRequest::RoleList => return Ok(names(&mut auth.roles())),
            AuthRequest::RoleGrant { name, permission } => auth.grant(&name, permission)?,
            AuthRequest::RoleRevoke { name, keys } => auth.revoke(&name, &keys)?,
        }
        Ok(AuthResponse::Done)
    }
}

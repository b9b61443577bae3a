//! The queue of a name: the keys under it, the oldest of which holds a lock, or leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use quorate_engine::{
    Compare, Error, Header, Key, KeyRange, LeaseId, Op, OpResult, Order, Put, Range, Revision,
    SortBy, Txn, Value,
};
use tonic::{Code, Status};

use crate::{
    access::{Need, caller::Caller},
    services::kv::check_size,
    status::refused,
    store::{
        shared::{Shared, State},
        wait::Waiter,
    },
};

/// How long a lease lives that nobody brought; nobody keeps it alive either.
pub(crate) const OWN_TTL: Duration = Duration::from_secs(60);

/// A place in a queue. Whoever drops it before its turn leaves nothing behind.
pub(crate) struct Place {
    shared: Arc<Shared>,
    queue: KeyRange,
    key: Key,
    lease: Lease,
    waiter: Waiter,
    /// None until the key is there.
    entered: Option<Entered>,
    has_turn: bool,
}

/// The lease of a place.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    /// It was granted for this, since the caller brought none.
    is_own: bool,
}

/// What is known of a place since it was entered.
#[derive(Clone, Copy)]
struct Entered {
    /// The answer to that.
    header: Header,
    /// When its key was made, by this caller or with the same lease before.
    created: Revision,
}

/// A place whose turn has come.
pub(crate) struct Turn {
    pub(crate) key: Key,
    pub(crate) lease: LeaseId,
    pub(crate) created: Revision,
    /// As it was when the place was entered.
    pub(crate) entered: Header,
    /// As it was when the turn had come.
    pub(crate) come: Header,
}

/// What a look at the queue shows.
enum Look {
    Behind,
    First(Header),
    Lost,
}

impl Place {
    /// Enters the queue of a name and waits for the turn. None if the key is lost before that, as
    /// when its lease ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the turn has come, it leaves the queue as if it had never been there.
    pub(crate) async fn turn(
        shared: &Arc<Shared>,
        caller: &Caller,
        name: &[u8],
        lease: i64,
        value: Value,
    ) -> Result<Option<Turn>, Status> {
        let lease = Lease::new(lease);
        let queue = queue_of(name);
        let mut place = Self {
            shared: Arc::clone(shared),
            key: key_in(&queue, lease.id),
            queue,
            lease,
            waiter: Waiter::new(shared),
            entered: None,
            has_turn: false,
        };
        let mut look = place.enter(caller, value).await?;
        loop {
            match look {
                Look::Behind => {}
                Look::First(come) => return Ok(place.take_turn(come)),
                Look::Lost => return Ok(None),
            }
            place.waiter.ready().await;
            // Whoever may enter may wait, even if his token does not last so long.
            let nobody = Caller::default();
            let look_again = |state: &mut State, _| place.look(state);
            let answer = shared.answer(&nobody, Need::Nothing, look_again);
            look = answer.await.map_err(unknown)?.into_inner();
        }
    }

    /// Puts the key, unless it is there already by the same lease, and looks at the queue.
    async fn enter(&mut self, caller: &Caller, value: Value) -> Result<Look, Status> {
        let key = self.key.clone();
        let put = Put::new(key.clone(), value.clone()).lease(self.lease.id);
        let txn = Txn::new()
            .when(Compare::absent(key.clone()))
            .then(put.clone())
            .then(oldest(&self.queue))
            .or_else(Op::range(key))
            .or_else(oldest(&self.queue));
        let shared = Arc::clone(&self.shared);
        let refuse_large = check_size(&txn, self.key.len() + value.len());
        let enter = |state: &mut State, now| {
            refuse_large?;
            self.lease.grant(state, now)?;
            let result = state.store.txn(&txn);
            let result = result.inspect_err(|_| self.lease.give_back(state))?;
            let header = result.header;
            let mut created = header.revision;
            if let Some(OpResult::Range(found)) = result.results.first() {
                let kv = found.kvs.first().ok_or(Error::KeyNotFound)?;
                created = kv.create_revision;
                if kv.value != value {
                    state.store.txn(&Txn::new().then(put))?;
                }
            }
            self.entered = Some(Entered { header, created });
            let place = (self.key.clone(), created);
            state.queued.enter(place, result.succeeded);
            self.look(state)
        };
        let answer = shared.answer(caller, Need::Txn(&txn), enter);
        Ok(answer.await.map_err(unknown)?.into_inner())
    }

    /// Looks who is before this place, and waits for what may change that: the end of the nearest
    /// one, or of this one.
    fn look(&mut self, state: &mut State) -> Result<Look, Error> {
        self.waiter.clear(state);
        let Some(Entered { created, .. }) = self.entered else {
            return Ok(Look::Lost);
        };
        let own = state.store.range(&Range::new(self.key.clone()))?;
        if own.kvs.first().map(|kv| kv.create_revision) != Some(created) {
            return Ok(Look::Lost);
        }
        let before = Range::new(self.queue.clone())
            .max_create_revision(created.previous())
            .order(SortBy::CreateRevision, Order::Descending)
            .limit(1);
        let found = state.store.range(&before)?;
        let Some(nearest) = found.kvs.first() else {
            return Ok(Look::First(found.header));
        };
        let next = found.header.revision.next();
        for key in [&nearest.key, &self.key] {
            let key = KeyRange::key(key.clone());
            self.waiter.watch(state, &key, next)?;
        }
        // They begin after all there is; until the first change there is nothing to look for.
        while self.waiter.take(state).is_some() {}
        Ok(Look::Behind)
    }

    fn take_turn(mut self, come: Header) -> Option<Turn> {
        let Entered { header, created } = self.entered?;
        self.has_turn = true;
        Some(Turn {
            key: self.key.clone(),
            lease: self.lease.id,
            created,
            entered: header,
            come,
        })
    }
}

/// Leaves the queue, unless the turn has come.
impl Drop for Place {
    fn drop(&mut self) {
        let Some(Entered { created, .. }) = self.entered else {
            return;
        };
        let place = (self.key.clone(), created);
        self.shared.look(|state, _| {
            if !state.queued.leave(&place, self.has_turn) {
                return;
            }
            let (key, created) = place;
            let delete = Txn::new()
                .when(Compare::create_revision(key.clone()).eq(created))
                .then(Op::delete(key));
            // Without the key there is nothing to delete.
            let _ = state.store.txn(&delete);
            self.lease.give_back(state);
        });
    }
}

impl Lease {
    /// The lease that a caller brings; for zero one that is not there yet.
    pub(crate) fn new(id: i64) -> Self {
        let is_own = id == 0;
        let id = LeaseId(if is_own { fastrand::i64(1..) } else { id });
        Self { id, is_own }
    }

    /// Lets it begin, unless the caller brought it.
    pub(crate) fn grant(self, state: &mut State, now: Duration) -> Result<(), Error> {
        if self.is_own {
            state.store.grant(now, self.id, OWN_TTL)?;
        }
        Ok(())
    }

    /// Ends it, unless the caller brought it.
    pub(crate) fn give_back(self, state: &mut State) {
        if self.is_own {
            // It may have ended by itself.
            let _ = state.store.revoke(self.id);
        }
    }
}

/// Who waits here, by the key and when it was made. Calls with one lease share a key: it goes with
/// the last of them, unless one had its turn, or somebody else made it.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    places: HashMap<(Key, Revision), Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: usize,
    /// The key was made here.
    is_ours: bool,
    had_turn: bool,
}

impl Queued {
    fn enter(&mut self, place: (Key, Revision), is_ours: bool) {
        let waiting = self.places.entry(place).or_default();
        waiting.calls += 1;
        waiting.is_ours |= is_ours;
    }

    /// Leaves a place, and tells whether its key has to go.
    fn leave(&mut self, place: &(Key, Revision), has_turn: bool) -> bool {
        let Some(waiting) = self.places.get_mut(place) else {
            return false;
        };
        waiting.calls -= 1;
        waiting.had_turn |= has_turn;
        if waiting.calls > 0 {
            return false;
        }
        let waiting = self.places.remove(place).unwrap_or_default();
        waiting.is_ours && !waiting.had_turn
    }
}

/// The keys that are the queue of a name.
pub(crate) fn queue_of(name: &[u8]) -> KeyRange {
    KeyRange::prefix([name, b"/"].concat())
}

/// Reads the key whose turn it is.
pub(crate) fn oldest(queue: &KeyRange) -> Range {
    Range::new(queue.clone())
        .order(SortBy::CreateRevision, Order::Ascending)
        .limit(1)
}

/// A refusal as these services give it: etcd forwards the text, and not the code.
pub(crate) fn unknown(status: Status) -> Status {
    match status.code() {
        Code::Unavailable => status,
        _ => Status::unknown(status.message()),
    }
}

/// A refusal of the store.
pub(crate) fn unknown_error(error: Error) -> Status {
    unknown(refused(error))
}

/// The key of a lease, whose number is written as Go writes it.
fn key_in(queue: &KeyRange, LeaseId(lease): LeaseId) -> Key {
    let sign = if lease < 0 { "-" } else { "" };
    let number = format!("{sign}{:x}", lease.unsigned_abs());
    Key::from([&*queue.start, number.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_bear_the_lease_as_go_writes_it() {
        let key = |lease| key_in(&queue_of(b"jobs"), LeaseId(lease)).to_string();
        assert_eq!(key(0x2a), "jobs/2a");
        assert_eq!(key(-1), "jobs/-1");
        assert_eq!(key(i64::MIN), "jobs/-8000000000000000");
    }

    #[test]
    fn a_key_goes_with_the_last_who_waits_by_it() {
        let mut queued = Queued::default();
        let place = || (Key::from("jobs/1"), Revision(2));
        queued.enter(place(), true);
        queued.enter(place(), false);
        assert!(!queued.leave(&place(), false));
        assert!(queued.leave(&place(), false));

        queued.enter(place(), true);
        queued.enter(place(), false);
        assert!(!queued.leave(&place(), true));
        assert!(!queued.leave(&place(), false), "it is held");

        queued.enter(place(), false);
        assert!(!queued.leave(&place(), false), "somebody else made it");
        assert!(queued.places.is_empty());
    }
}

//! Watches: cursors that read on through the history.

use crate::{
    Error, Event, Header, Key, KeyRange, KeyValue, RangeEnd, Revision, Store, WatchBatch,
    WatchRequest, log::Change,
};

/// How many revisions one batch may tell of, as in etcd.
const MAX_BATCH_REVISIONS: usize = 1000;

/// A watch: a place in the history of a [`Store`], and what is looked for from there on. However far
/// it lags it costs the same, and holds nothing back.
#[derive(Debug)]
pub struct Watcher {
    keys: KeyRange,
    /// The first revision that is not yet told of.
    next: Revision,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// What was read ahead of a compaction.
    ahead: Option<WatchBatch>,
}

impl Watcher {
    /// Opens a watch, and tells at which revision of the store. An empty key is the smallest key.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyWatchRange`], or [`Error::Compacted`] for a start below zero. That any other
    /// start is compacted is told by the first [`next`](Watcher::next).
    pub fn new(store: &Store, request: WatchRequest) -> Result<(Self, Header), Error> {
        let mut keys = request.keys;
        if keys.start.is_empty() {
            keys.start = Key::from(b"\0");
        }
        if request.start < Revision::ZERO {
            return Err(crate::store::compacted());
        }
        if matches!(&keys.end, RangeEnd::Before(end) if *end <= keys.start) {
            return Err(Error::EmptyWatchRange);
        }
        let watcher = Self {
            keys,
            next: match request.start {
                Revision::ZERO => store.revision.next(),
                start => start,
            },
            prev_kv: request.prev_kv,
            no_put: request.no_put,
            no_delete: request.no_delete,
            ahead: None,
        };
        Ok((watcher, store.header()))
    }

    /// What it watches.
    pub const fn keys(&self) -> &KeyRange {
        &self.keys
    }

    /// The next changes, whole revisions and a bounded number of them; none if there are none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`] if the next revision is gone; it stays so.
    pub fn next(&mut self, store: &Store) -> Result<Option<WatchBatch>, Error> {
        match self.ahead.take() {
            Some(batch) => Ok(Some(batch)),
            None => self.read(store),
        }
    }

    /// Prepares for a compaction: a watch that is up to date, or one batch behind, shall not miss
    /// anything, however many compactions come before it is looked at. A real etcd has sent those
    /// events already.
    pub fn read_ahead(&mut self, store: &Store) {
        loop {
            let Ok(Some(batch)) = self.read(store) else {
                return;
            };
            match &mut self.ahead {
                None => self.ahead = Some(batch),
                Some(ahead) if ahead.events.len() < MAX_BATCH_REVISIONS => {
                    ahead.header = batch.header;
                    ahead.events.extend(batch.events);
                }
                Some(_) => {
                    // Too far behind: it stops where something would be missed.
                    self.next = batch.events.first().map_or(self.next, Event::revision);
                    return;
                }
            }
        }
    }

    fn read(&mut self, store: &Store) -> Result<Option<WatchBatch>, Error> {
        if self.next < store.compacted {
            return Err(Error::Compacted {
                oldest: store.compacted,
            });
        }
        let mut events = Vec::new();
        while events.is_empty() && self.next <= store.revision {
            match self.keys.end {
                RangeEnd::Single => self.read_key(store, &mut events),
                RangeEnd::Before(_) | RangeEnd::Unbounded => self.read_range(store, &mut events),
            }
        }
        Ok((!events.is_empty()).then(|| WatchBatch {
            header: store.header(),
            events,
        }))
    }

    /// Reads on in the history of the one key that is watched.
    fn read_key(&mut self, store: &Store, events: &mut Vec<Event>) {
        let mut revisions = 0;
        let mut last = Revision::ZERO;
        for version in store.index.changes(&self.keys.start, self.next) {
            if version.revision != last {
                if revisions == MAX_BATCH_REVISIONS {
                    self.next = version.revision;
                    return;
                }
                revisions += 1;
                last = version.revision;
            }
            events.extend(self.event(store, version.revision, &self.keys.start, &version.kv));
        }
        self.next = store.revision.next();
    }

    /// Reads on in the log of all changes.
    fn read_range(&mut self, store: &Store, events: &mut Vec<Event>) {
        let mut revisions = 0;
        for (revision, changes) in store.log.since(self.next) {
            if revisions == MAX_BATCH_REVISIONS {
                self.next = revision;
                return;
            }
            let known = events.len();
            for Change { key, kv, .. } in changes {
                if self.keys.contains(key) {
                    events.extend(self.event(store, revision, key, kv));
                }
            }
            revisions += usize::from(events.len() > known);
        }
        self.next = store.revision.next();
    }

    /// The change as it is told; none if it is filtered out.
    fn event(
        &self,
        store: &Store,
        revision: Revision,
        key: &Key,
        kv: &Option<KeyValue>,
    ) -> Option<Event> {
        match kv {
            Some(_) if self.no_put => None,
            None if self.no_delete => None,
            Some(kv) => Some(Event::Put {
                prev: if kv.create_revision < revision {
                    self.prev(store, revision, key)
                } else {
                    None
                },
                kv: kv.clone(),
            }),
            None => Some(Event::Delete {
                key: key.clone(),
                revision,
                prev: self.prev(store, revision, key),
            }),
        }
    }

    /// The key as it stood before the transaction; none if that was not asked for, or is gone.
    fn prev(&self, store: &Store, revision: Revision, key: &Key) -> Option<KeyValue> {
        let before = revision.previous();
        if !self.prev_kv || before < store.compacted {
            return None;
        }
        store.index.get(key, before).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Txn};

    fn put(store: &mut Store, key: &str) {
        store
            .txn(&Txn::new().then(Op::put(key, "v")))
            .expect("a plain put");
    }

    fn watch(store: &Store, request: WatchRequest) -> Watcher {
        Watcher::new(store, request).expect("a range with keys").0
    }

    fn told(watcher: &mut Watcher, store: &Store) -> Vec<i64> {
        let batch = watcher.next(store).expect("nothing is missed");
        let events = batch.map(|batch| batch.events).unwrap_or_default();
        events.iter().map(|event| event.revision().0).collect()
    }

    #[test]
    fn a_start_that_is_yet_to_come_is_waited_for() {
        let mut store = Store::new(1, 1);
        let mut watcher = watch(&store, WatchRequest::new("a").start(Revision(3)));
        put(&mut store, "a");
        assert!(told(&mut watcher, &store).is_empty());
        put(&mut store, "a");
        assert_eq!(told(&mut watcher, &store), [3]);
    }

    #[test]
    fn batches_are_bounded_and_of_whole_revisions() {
        let mut store = Store::new(1, 1);
        for _ in 0..1500 {
            store
                .txn(&Txn::new().then(Op::put("a", "v")).then(Op::put("b", "v")))
                .expect("plain puts");
        }
        for (keys, per_revision) in [(KeyRange::key("a"), 1), (KeyRange::all(), 2)] {
            let mut watcher = watch(&store, WatchRequest::new(keys).start(Revision(1)));
            assert_eq!(told(&mut watcher, &store).len(), 1000 * per_revision);
            assert_eq!(told(&mut watcher, &store).len(), 500 * per_revision);
            assert!(told(&mut watcher, &store).is_empty());
        }
    }

    #[test]
    fn a_watch_that_has_nothing_to_tell_survives_a_compaction() {
        for keys in [KeyRange::key("a"), KeyRange::prefix("a")] {
            let mut store = Store::new(1, 1);
            let mut watcher = watch(&store, WatchRequest::new(keys));
            put(&mut store, "b");
            put(&mut store, "a");
            put(&mut store, "b");
            watcher.read_ahead(&store);
            store.compact(Revision(4)).expect("a revision that is kept");
            assert_eq!(told(&mut watcher, &store), [3]);
            assert!(told(&mut watcher, &store).is_empty());
            put(&mut store, "a");
            assert_eq!(told(&mut watcher, &store), [5]);
        }
    }

    #[test]
    fn a_watch_that_was_read_ahead_survives_the_next_compaction() {
        for keys in [KeyRange::key("a"), KeyRange::all()] {
            let mut store = Store::new(1, 1);
            let mut watcher = watch(&store, WatchRequest::new(keys));
            put(&mut store, "a");
            watcher.read_ahead(&store);
            store.compact(Revision(2)).expect("a revision that is kept");
            let deletion = Op::delete(KeyRange::from("a"));
            store
                .txn(&Txn::new().then(Op::put("a", "v")).then(deletion))
                .expect("a put, and a range that has no upper end");
            watcher.read_ahead(&store);
            store.compact(Revision(3)).expect("a revision that is kept");
            assert_eq!(told(&mut watcher, &store), [2, 3, 3]);
            assert!(told(&mut watcher, &store).is_empty());
        }
    }

    #[test]
    fn a_watch_far_behind_a_compaction_is_told_what_it_missed() {
        let mut store = Store::new(1, 1);
        let mut watcher = watch(&store, WatchRequest::new("a"));
        for _ in 0..1001 {
            put(&mut store, "a");
        }
        put(&mut store, "b");
        let revision = store.header().revision;
        watcher.read_ahead(&store);
        store.compact(revision).expect("a revision that is kept");
        assert_eq!(told(&mut watcher, &store).len(), 1000);
        for _ in 0..2 {
            let missed = watcher.next(&store);
            assert_eq!(missed, Err(Error::Compacted { oldest: revision }));
        }
    }

    #[test]
    fn a_watch_from_the_compacted_revision_is_told_of_its_deletions() {
        let mut store = Store::new(1, 1);
        put(&mut store, "a");
        store
            .txn(&Txn::new().then(Op::delete("a")))
            .expect("a plain deletion");
        store.compact(Revision(3)).expect("a revision that is kept");
        let mut watcher = watch(&store, WatchRequest::new("a").start(Revision(3)).prev_kv());
        let batch = watcher.next(&store).expect("kept").expect("a deletion");
        let deletion = Event::Delete {
            key: "a".into(),
            revision: Revision(3),
            prev: None,
        };
        assert_eq!(batch.events, [deletion]);
    }

    #[test]
    fn a_range_without_keys_is_refused() {
        let store = Store::new(1, 1);
        for end in ["a", "b"] {
            let request = WatchRequest::new(KeyRange::between("b", end));
            assert_eq!(
                Watcher::new(&store, request).err(),
                Some(Error::EmptyWatchRange)
            );
        }
    }
}

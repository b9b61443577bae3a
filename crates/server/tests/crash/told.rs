//! What clients were told.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Mutex, MutexGuard},
};

use quorate::{Event, Header, Key, KeyValue, LeaseId, Revision, Value};

/// What the changes of a revision made of keys: values, or nothing.
pub(crate) type Changes = BTreeMap<Key, Option<Value>>;

/// Everything that a server must remember because somebody was told.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Facts>);

#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// By revision, as far as they were told.
    pub(crate) changes: BTreeMap<Revision, Changes>,
    /// The ids of cluster and member.
    pub(crate) ids: Option<(u64, u64)>,
    /// The highest revision that was named.
    pub(crate) revision: Revision,
    /// The highest revision that was compacted.
    pub(crate) compacted: Revision,
    /// The leases that nobody tried to end, with the keys that live by them.
    pub(crate) leases: BTreeMap<LeaseId, Key>,
    /// The leases that were ended.
    pub(crate) ended: BTreeSet<LeaseId>,
    count: usize,
}

impl Told {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }

    /// How many changes were told.
    pub(crate) fn count(&self) -> usize {
        self.facts().count
    }
}

impl Facts {
    pub(crate) fn header(&mut self, header: Header) {
        let ids = (header.cluster_id, header.member_id);
        assert_eq!(*self.ids.get_or_insert(ids), ids, "the ids have changed");
        self.revision = self.revision.max(header.revision);
    }

    /// Notes a change. Whatever was told of it before must have been the same.
    pub(crate) fn change(&mut self, revision: Revision, key: Key, value: Option<Value>) {
        self.revision = self.revision.max(revision);
        let changes = self.changes.entry(revision).or_default();
        match changes.entry(key) {
            Entry::Occupied(known) => {
                assert_eq!(*known.get(), value, "{}@{revision}", known.key());
            }
            Entry::Vacant(new) => {
                new.insert(value);
                self.count += 1;
            }
        }
    }

    pub(crate) fn kv(&mut self, kv: KeyValue) {
        self.change(kv.mod_revision, kv.key, Some(kv.value));
    }

    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Delete { key, revision, .. } => self.change(revision, key, None),
            Event::Put { kv, .. } => self.kv(kv),
        }
    }
}

//! What can be asked of a store, and what it answers.

use std::time::Duration;

use crate::{Compare, Event, Header, Key, KeyRange, KeyValue, LeaseId, Revision, Value};

/// How many operations one transaction may hold in each of its three lists.
pub const MAX_OPS: usize = 128;

/// A read of one key or of a range of keys, all at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Range {
    /// The keys to read.
    pub keys: KeyRange,
    /// The revision to read at; zero is the latest.
    pub revision: Revision,
    /// At most this many keys are returned; zero is no limit.
    pub limit: i64,
    /// The order of the keys returned; ascending keys if none is given.
    pub order: Option<(SortBy, Order)>,
    /// Answer from the member's own store, which may lag, rather than by consensus.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return the count alone.
    pub count_only: bool,
    /// Leave out keys last written before this revision; zero is no bound.
    pub min_mod_revision: Revision,
    /// Leave out keys last written after this revision; zero is no bound.
    pub max_mod_revision: Revision,
    /// Leave out keys made before this revision; zero is no bound.
    pub min_create_revision: Revision,
    /// Leave out keys made after this revision; zero is no bound.
    pub max_create_revision: Revision,
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortBy {
    /// The revision that made the key.
    CreateRevision,
    /// The key.
    Key,
    /// The revision of the last write.
    ModRevision,
    /// The value.
    Value,
    /// The number of writes.
    Version,
}

/// The direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The smallest first.
    Ascending,
    /// The largest first.
    Descending,
    /// The smallest first, but the limit chooses before: of the first keys, one more than the limit,
    /// the smallest are returned. It is what etcd does when told by what to sort, but in no order.
    Unstated,
}

impl Range {
    /// Reads `keys`: one key, or any [`KeyRange`].
    pub fn new(keys: impl Into<KeyRange>) -> Self {
        Self {
            keys: keys.into(),
            revision: Revision::ZERO,
            limit: 0,
            order: None,
            serializable: false,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision::ZERO,
            max_mod_revision: Revision::ZERO,
            min_create_revision: Revision::ZERO,
            max_create_revision: Revision::ZERO,
        }
    }

    /// Reads every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        Self::new(KeyRange::prefix(prefix))
    }

    /// Reads at `revision` rather than at the latest.
    #[must_use]
    pub fn revision(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// Returns at most `limit` keys; zero is no limit.
    #[must_use]
    pub fn limit(self, limit: i64) -> Self {
        Self { limit, ..self }
    }

    /// Sorts the keys.
    #[must_use]
    pub fn order(self, by: SortBy, order: Order) -> Self {
        Self {
            order: Some((by, order)),
            ..self
        }
    }

    /// Answers from the member's own store, which may lag.
    #[must_use]
    pub fn serializable(self) -> Self {
        Self {
            serializable: true,
            ..self
        }
    }

    /// Leaves the values out.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self {
            keys_only: true,
            ..self
        }
    }

    /// Returns the count alone.
    #[must_use]
    pub fn count_only(self) -> Self {
        Self {
            count_only: true,
            ..self
        }
    }

    /// Leaves out keys last written before `revision`.
    #[must_use]
    pub fn min_mod_revision(self, revision: Revision) -> Self {
        Self {
            min_mod_revision: revision,
            ..self
        }
    }

    /// Leaves out keys last written after `revision`.
    #[must_use]
    pub fn max_mod_revision(self, revision: Revision) -> Self {
        Self {
            max_mod_revision: revision,
            ..self
        }
    }

    /// Leaves out keys made before `revision`.
    #[must_use]
    pub fn min_create_revision(self, revision: Revision) -> Self {
        Self {
            min_create_revision: revision,
            ..self
        }
    }

    /// Leaves out keys made after `revision`.
    #[must_use]
    pub fn max_create_revision(self, revision: Revision) -> Self {
        Self {
            max_create_revision: revision,
            ..self
        }
    }
}

/// One key, or any range of keys, is read as it is.
impl<K: Into<KeyRange>> From<K> for Range {
    fn from(keys: K) -> Self {
        Self::new(keys)
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// Who answered, and at which revision of the store.
    pub header: Header,
    /// The keys, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left keys out.
    pub more: bool,
    /// How many keys the range holds at that revision, whatever the limit and the revision bounds.
    pub count: i64,
}

/// One key, or any range of keys, is deleted.
impl<K: Into<KeyRange>> From<K> for Delete {
    fn from(keys: K) -> Self {
        Self::new(keys)
    }
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Put {
    /// The key.
    pub key: Key,
    /// Its new value.
    pub value: Value,
    /// The lease that the key shall live by; none detaches it from its former lease.
    pub lease: Option<LeaseId>,
    /// Return the key as it stood before.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

impl Put {
    /// Writes `value` to `key`, with no lease.
    pub fn new(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            lease: None,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }

    /// Lets the key live by `lease`.
    #[must_use]
    pub fn lease(self, lease: LeaseId) -> Self {
        Self {
            lease: Some(lease),
            ..self
        }
    }

    /// Returns the key as it stood before.
    #[must_use]
    pub fn prev_kv(self) -> Self {
        Self {
            prev_kv: true,
            ..self
        }
    }

    /// Keeps the present value and writes only the lease; the key must exist.
    #[must_use]
    pub fn ignore_value(self) -> Self {
        Self {
            value: Value::default(),
            ignore_value: true,
            ..self
        }
    }

    /// Keeps the present lease and writes only the value; the key must exist.
    #[must_use]
    pub fn ignore_lease(self) -> Self {
        Self {
            lease: None,
            ignore_lease: true,
            ..self
        }
    }
}

/// A deletion of one key or of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delete {
    /// The keys to delete.
    pub keys: KeyRange,
    /// Return the keys as they stood before.
    pub prev_kv: bool,
}

impl Delete {
    /// Deletes `keys`: one key, or any [`KeyRange`].
    pub fn new(keys: impl Into<KeyRange>) -> Self {
        Self {
            keys: keys.into(),
            prev_kv: false,
        }
    }

    /// Returns the keys as they stood before.
    #[must_use]
    pub fn prev_kv(self) -> Self {
        Self {
            prev_kv: true,
            ..self
        }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Deletes.
    Delete(Delete),
    /// Writes.
    Put(Put),
    /// Reads; it sees what the operations before it wrote.
    Range(Range),
    /// A transaction within the transaction. Its conditions see the store as it was before all.
    Txn(Txn),
}

impl Op {
    /// Deletes one key or a range.
    pub fn delete(keys: impl Into<KeyRange>) -> Self {
        Self::Delete(Delete::new(keys))
    }

    /// Reads one key or a range.
    pub fn range(keys: impl Into<KeyRange>) -> Self {
        Self::Range(Range::new(keys))
    }

    /// Writes one key.
    pub fn put(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::Put(Put::new(key, value))
    }
}

impl From<Delete> for Op {
    fn from(delete: Delete) -> Self {
        Self::Delete(delete)
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Self {
        Self::Put(put)
    }
}

impl From<Range> for Op {
    fn from(range: Range) -> Self {
        Self::Range(range)
    }
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Self {
        Self::Txn(txn)
    }
}

/// A transaction: if all conditions hold the operations of `success` are applied, else those of
/// `failure`, all of them at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions; none at all hold.
    pub compares: Vec<Compare>,
    /// What is done if all conditions hold.
    pub success: Vec<Op>,
    /// What is done otherwise.
    pub failure: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub const fn new() -> Self {
        Self {
            compares: Vec::new(),
            success: Vec::new(),
            failure: Vec::new(),
        }
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for when all conditions hold.
    #[must_use]
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.success.push(op.into());
        self
    }

    /// Adds an operation for when a condition does not hold.
    #[must_use]
    pub fn or_else(mut self, op: impl Into<Op>) -> Self {
        self.failure.push(op.into());
        self
    }
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// Who answered, and the store's revision after the transaction.
    pub header: Header,
    /// Whether all conditions held.
    pub succeeded: bool,
    /// One answer an operation, of the list that was applied.
    pub results: Vec<OpResult>,
}

/// The answer to an [`Op`]. The headers of inner answers hold the revision alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Of a deletion.
    Delete {
        /// How many keys were deleted.
        deleted: i64,
        /// The keys as they stood before, if asked for.
        prevs: Vec<KeyValue>,
    },
    /// Of a write.
    Put {
        /// The key as it stood before, if asked for and there was one.
        prev: Option<KeyValue>,
    },
    /// Of a read.
    Range(RangeResult),
    /// Of a transaction within the transaction.
    Txn(TxnResult),
}

/// Which changes to be told of, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WatchRequest {
    /// The keys to watch.
    pub keys: KeyRange,
    /// The first revision to be told of; zero begins after the present one.
    pub start: Revision,
    /// Tell the key as it stood before each change.
    pub prev_kv: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
}

impl WatchRequest {
    /// Watches `keys`, one key or any [`KeyRange`], from now on.
    pub fn new(keys: impl Into<KeyRange>) -> Self {
        Self {
            keys: keys.into(),
            start: Revision::ZERO,
            prev_kv: false,
            no_put: false,
            no_delete: false,
        }
    }

    /// Begins with the changes of `revision` rather than with the next one.
    #[must_use]
    pub fn start(self, revision: Revision) -> Self {
        Self {
            start: revision,
            ..self
        }
    }

    /// Tells the key as it stood before each change.
    #[must_use]
    pub fn prev_kv(self) -> Self {
        Self {
            prev_kv: true,
            ..self
        }
    }

    /// Leaves out puts.
    #[must_use]
    pub fn deletes_only(self) -> Self {
        Self {
            no_put: true,
            no_delete: false,
            ..self
        }
    }

    /// Leaves out deletions.
    #[must_use]
    pub fn puts_only(self) -> Self {
        Self {
            no_delete: true,
            no_put: false,
            ..self
        }
    }
}

/// One key, or any range of keys, is watched from now on.
impl<K: Into<KeyRange>> From<K> for WatchRequest {
    fn from(keys: K) -> Self {
        Self::new(keys)
    }
}

/// Changes of one or more whole revisions, in order. Without events it only tells how far the
/// watch has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchBatch {
    /// Who tells, and the revision of its store.
    pub header: Header,
    /// The changes, in the order of their revisions; those of one revision are never parted.
    pub events: Vec<Event>,
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Who granted it.
    pub header: Header,
    /// Its id.
    pub id: LeaseId,
    /// Its time to live, which may be longer than was asked for.
    pub ttl: Duration,
}

/// What is known of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Who answered.
    pub header: Header,
    /// Its id.
    pub id: LeaseId,
    /// The time to live that was granted.
    pub granted: Duration,
    /// The time that is left, in whole seconds; none if there is no such lease.
    pub remaining: Option<Duration>,
    /// The keys that live by it, if they were asked for.
    pub keys: Vec<Key>,
}

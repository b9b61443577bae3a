//! What a store holds: keys with their history, under revisions and leases.

use std::fmt;

use crate::{Key, Value};

/// A revision of the store: it rises by one with every write. Zero stands for "none" or "latest".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// No revision, or in a request the latest.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The revision before this one.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a lease, shown in hexadecimal as etcd's tools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// Reads an id off the wire, where zero means no lease.
    pub const fn from_wire(id: i64) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// Writes an optional id as on the wire.
    pub const fn to_wire(id: Option<Self>) -> i64 {
        match id {
            Some(id) => id.0,
            None => 0,
        }
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// A key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision that made the key; a deleted key that is put again is made anew.
    pub create_revision: Revision,
    /// The revision of the last write to the key.
    pub mod_revision: Revision,
    /// How often the key was written since it was made: 1 after the first put.
    pub version: i64,
    /// The lease that the key lives by, if any.
    pub lease: Option<LeaseId>,
}

/// Who answered, and how far its store was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster; it changes only when a client talks to another cluster.
    pub cluster_id: u64,
    /// The member that answered.
    pub member_id: u64,
    /// The store's revision when the request was served.
    pub revision: Revision,
    /// The raft term of that member.
    pub raft_term: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put {
        /// The key as it now stands.
        kv: KeyValue,
        /// The key as it stood before, if that was asked for and there was one.
        prev: Option<KeyValue>,
    },
    /// The key was deleted, by a request or by the end of its lease.
    Delete {
        /// The key.
        key: Key,
        /// The revision that deleted it.
        revision: Revision,
        /// The key as it stood before, if that was asked for.
        prev: Option<KeyValue>,
    },
}

impl Event {
    /// The key that changed.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

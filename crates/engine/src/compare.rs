//! The conditions of transactions.

use crate::{KeyRange, LeaseId, Revision, Value};

/// A condition of a transaction, on one key or on every key of a range.
///
/// A key that does not exist has version, create revision, mod revision and lease zero; a compare of
/// its value is false. A compare of a range holds if it holds for every key in it, and for an empty
/// range as for a key that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys that must all satisfy the condition.
    pub keys: KeyRange,
    /// How the key's side and the target are compared.
    pub op: CompareOp,
    /// Which side of the key is compared, and with what.
    pub target: CompareTarget,
}

/// The relation that a [`Compare`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// The key's side equals the target.
    Equal,
    /// The key's side is above the target.
    Greater,
    /// The key's side is below the target.
    Less,
    /// The key's side differs from the target.
    NotEqual,
}

/// What a [`Compare`] compares with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompareTarget {
    /// The revision that made the key.
    CreateRevision(Revision),
    /// The key's lease; none is compared as zero.
    Lease(Option<LeaseId>),
    /// The revision of the last write.
    ModRevision(Revision),
    /// The value.
    Value(Value),
    /// The number of writes since the key was made.
    Version(i64),
}

impl Compare {
    /// Compares the revision that made the key: `Compare::create_revision("k").eq(revision)`.
    pub fn create_revision(keys: impl Into<KeyRange>) -> CompareWhat<Revision> {
        CompareWhat {
            keys: keys.into(),
            target: CompareTarget::CreateRevision,
        }
    }

    /// Compares the revision of the last write.
    pub fn mod_revision(keys: impl Into<KeyRange>) -> CompareWhat<Revision> {
        CompareWhat {
            keys: keys.into(),
            target: CompareTarget::ModRevision,
        }
    }

    /// Compares the number of writes since the key was made.
    pub fn version(keys: impl Into<KeyRange>) -> CompareWhat<i64> {
        CompareWhat {
            keys: keys.into(),
            target: CompareTarget::Version,
        }
    }

    /// Compares the value.
    pub fn value(keys: impl Into<KeyRange>) -> CompareWhat<Value> {
        CompareWhat {
            keys: keys.into(),
            target: CompareTarget::Value,
        }
    }

    /// Compares the lease.
    pub fn lease(keys: impl Into<KeyRange>) -> CompareWhat<Option<LeaseId>> {
        CompareWhat {
            keys: keys.into(),
            target: CompareTarget::Lease,
        }
    }

    /// Holds if no key of `keys` exists.
    pub fn absent(keys: impl Into<KeyRange>) -> Self {
        Self::create_revision(keys).eq(Revision::ZERO)
    }

    /// Holds if every key of `keys` exists, and at least one does.
    pub fn present(keys: impl Into<KeyRange>) -> Self {
        Self::create_revision(keys).gt(Revision::ZERO)
    }
}

/// A [`Compare`] that still lacks its relation.
#[derive(Clone, Debug)]
pub struct CompareWhat<T> {
    keys: KeyRange,
    target: fn(T) -> CompareTarget,
}

impl<T> CompareWhat<T> {
    /// Holds if it equals `target`.
    #[allow(clippy::should_implement_trait)] // a condition is built, not evaluated
    pub fn eq(self, target: impl Into<T>) -> Compare {
        self.with(CompareOp::Equal, target)
    }

    /// Holds if it differs from `target`.
    #[allow(clippy::should_implement_trait)] // as above
    pub fn ne(self, target: impl Into<T>) -> Compare {
        self.with(CompareOp::NotEqual, target)
    }

    /// Holds if it is below `target`.
    pub fn lt(self, target: impl Into<T>) -> Compare {
        self.with(CompareOp::Less, target)
    }

    /// Holds if it is above `target`.
    pub fn gt(self, target: impl Into<T>) -> Compare {
        self.with(CompareOp::Greater, target)
    }

    fn with(self, op: CompareOp, target: impl Into<T>) -> Compare {
        Compare {
            keys: self.keys,
            op,
            target: (self.target)(target.into()),
        }
    }
}

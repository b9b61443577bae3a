//! What a request may be refused for.

use crate::Revision;

/// Why a request was refused. The texts are etcd's, since clients compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The revision asked for is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision that can still be read; zero if the answer did not tell.
        oldest: Revision,
    },
    /// A transaction writes one key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// The request names no key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// The revision asked for is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// A put that keeps the value or the lease of a key found no such key.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// The id of a new lease is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// There is no such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A put that keeps its lease names one.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// The time to live is out of etcd's bounds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The database is full.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The request is larger than the server takes.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// A list of a transaction holds more than 128 entries.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A put that keeps its value brings one.
    #[error("etcdserver: value is provided")]
    ValueProvided,
}

impl Error {
    /// Reads a refusal off etcd's text for it.
    pub fn from_text(text: &str) -> Option<Self> {
        [
            Self::Compacted {
                oldest: Revision::ZERO,
            },
            Self::DuplicateKey,
            Self::EmptyKey,
            Self::FutureRevision,
            Self::KeyNotFound,
            Self::LeaseExists,
            Self::LeaseNotFound,
            Self::LeaseProvided,
            Self::LeaseTtlTooLarge,
            Self::NoSpace,
            Self::RequestTooLarge,
            Self::TooManyOps,
            Self::ValueProvided,
        ]
        .into_iter()
        .find(|refusal| refusal.to_string() == text)
    }
}

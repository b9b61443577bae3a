//! The contract between the recipes and a store: [`Backend`].
//!
//! It is written in etcd v3's own terms. Users never call it; who adds a backend implements it, and
//! runs the conformance suite of feature `testing` against it.
//!
//! There are two stores, [`Memory`] and with feature `etcd` [`etcd::Etcd`], and two adapters that wrap any
//! store: [`Namespace`], and with feature `testing` [`fault::Fault`]. An [address](crate::connect) chooses
//! among them; [`Client::with_backend`](crate::Client::with_backend) takes any other.

mod admin;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "testing")]
pub mod fault;
mod memory;
mod namespace;
#[cfg(test)]
pub(crate) mod recorder;

use std::{fmt, time::Duration};

use futures_core::{Stream, future::BoxFuture};
use quorate_engine::{
    Granted, Header, LeaseId, LeaseStatus, Range, RangeResult, Revision, Txn, TxnResult,
    WatchBatch, WatchRequest,
};

pub use self::admin::{
    Alarm, AlarmKind, AuthRequest, AuthResponse, Member, Permission, PermissionKind, Status,
};
pub use self::memory::Memory;
pub use self::namespace::Namespace;
use crate::Result;

/// A store with etcd's semantics.
///
/// Calls return within a bound of the backend's own choice, or may hang: the caller has a deadline of
/// its own. A dropped call may or may not happen. A write whose fate is unknown fails with an error
/// that [is indefinite](crate::Error::is_indefinite) and is never repeated by the backend.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Reads keys.
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>>;

    /// Applies a transaction. Every write of a key is one.
    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>>;

    /// Drops the history before `revision`; with `physical` it waits until the space is free.
    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>>;

    /// Opens a watch; it is open when this returns, and closed when the stream is dropped.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>>;

    /// Grants a lease of at least `ttl` (in whole seconds, rounded up) with the caller's `id`.
    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>>;

    /// Ends a lease and deletes its keys.
    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>>;

    /// Opens a stream on which any number of leases are kept alive.
    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>>;

    /// Tells what is left of a lease, and with `keys` which keys live by it.
    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>>;

    /// Lists the leases that live.
    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>>;

    /// Lists the members of the cluster.
    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>>;

    /// The endpoints that this backend was given, as [`Backend::status`] takes them.
    fn endpoints(&self) -> Vec<String>;

    /// Asks the member at `endpoint` for its status; any member if none is named.
    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>>;

    /// Lists the alarms that are raised.
    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>>;

    /// Administers users, roles and permissions.
    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>>;
}

/// An open watch.
pub struct Watching {
    /// The answer that opened it: every change after this revision (or from the start asked for) will
    /// be told.
    pub created: Header,
    /// The changes.
    pub stream: Box<dyn WatchStream>,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// The changes of a watch. An error is the last item; [`Compacted`](crate::ErrorKind::Compacted) says
/// that the start lies before the oldest revision kept, any other that the stream broke and may be
/// opened again after the last revision seen.
pub trait WatchStream: Stream<Item = Result<WatchBatch>> + Send + Unpin {
    /// Asks for a sign of life: a batch without events. Its revision is no promise that all events
    /// up to it have come.
    fn request_progress(&mut self);

    /// Tells that the stream went silent, so that the next one takes another way to the store.
    fn distrust(&mut self);
}

/// Keepalives of any number of leases on one stream. Answers for one lease come in the order in which
/// its beats were sent. An error is the last item.
pub trait BeatStream: Stream<Item = Result<Beat>> + Send + Unpin {
    /// Sends one beat for a lease, without waiting.
    ///
    /// # Errors
    ///
    /// The stream is broken or its queue is full; it should be replaced.
    fn send(&mut self, lease: LeaseId) -> Result<()>;

    /// Tells that the stream went silent, so that the next one takes another way to the store.
    fn distrust(&mut self);
}

/// The answer to one beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Who answered.
    pub header: Header,
    /// The lease.
    pub lease: LeaseId,
    /// Its time to live, counted anew; zero if there is no such lease.
    pub ttl: Duration,
}

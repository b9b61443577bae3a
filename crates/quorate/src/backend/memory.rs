//! The backend that needs nothing: the engine in this process.

mod shared;
mod streams;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate_engine::{
    Granted, Header, LeaseId, LeaseStatus, Range, RangeResult, Revision, Txn, TxnResult,
    WatchRequest, Watcher,
};

use self::{
    shared::{Shared, State},
    streams::{Beats, Changes},
};
use super::{Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Status, Watching};
use crate::{Error, ErrorKind, Result};

/// Every store that was opened by name and is still in use.
static NAMED: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// An etcd store in this process, with one member. Clones share it; it goes with the last of them
/// and of their streams.
///
/// Its clock is tokio's, so tests that pause tokio's time pause the store too. It spawns one task,
/// on the runtime that first grants a lease, which ends with the store; outside any runtime leases
/// expire at the next call.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

impl Memory {
    /// A store of its own.
    pub fn new() -> Self {
        Self {
            shared: Shared::new("mem:".to_owned()),
        }
    }

    /// The store that everybody in this process opens by this name; a new one if nobody has it.
    pub fn named(name: &str) -> Self {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = named.get(name).and_then(Weak::upgrade) {
            return Self { shared };
        }
        named.retain(|_, shared| shared.strong_count() > 0);
        let shared = Shared::new(format!("mem:{name}"));
        named.insert(name.to_owned(), Arc::downgrade(&shared));
        Self { shared }
    }

    /// The revision of the store.
    pub fn revision(&self) -> Revision {
        self.shared.with(|state, _| state.store.header().revision)
    }

    /// Ends a lease as if its time had run out, for tests. It tells whether it lived.
    pub fn expire(&self, lease: LeaseId) -> bool {
        self.shared
            .with(|state, _| state.store.revoke(lease).is_ok())
    }

    /// Lets every lease begin its time to live anew, for tests: a new leader of a cluster does so.
    #[cfg(feature = "testing")]
    pub fn keep_all_alive(&self) {
        self.shared
            .with(|state, now| state.store.keep_all_alive(now));
    }

    /// Ends leases so much later than their time, for tests, as a store that is busy does.
    #[cfg(feature = "testing")]
    pub fn delay_expiry(&self, delay: Duration) {
        self.shared.with(|state, _| state.expiry_delay = delay);
    }

    /// Runs a call on the store when it is polled. A caller that never has to wait still lets others
    /// run from time to time.
    fn call<'a, T: Send>(
        &'a self,
        call: impl FnOnce(&mut State, Duration) -> Result<T, quorate_engine::Error> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            tokio::task::consume_budget().await;
            Ok(self.shared.with(call)?)
        })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory")
            .field(&self.shared.endpoint)
            .finish()
    }
}

impl Backend for Memory {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        self.call(move |state, _| state.store.range(&request))
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        self.call(move |state, _| state.store.txn(&request))
    }

    fn compact(&self, revision: Revision, _physical: bool) -> BoxFuture<'_, Result<Header>> {
        self.call(move |state, _| {
            state.read_ahead();
            state.store.compact(revision)
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        self.call(move |state, _| {
            let (watcher, created) = Watcher::new(&state.store, request)?;
            let watch = state.register(watcher);
            let stream = Changes::new(Arc::clone(&self.shared), watch);
            Ok(Watching {
                created,
                stream: Box::new(stream),
            })
        })
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        self.call(move |state, now| state.store.grant(now, id, ttl))
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>> {
        self.call(move |state, _| state.store.revoke(id))
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        Box::pin(async move {
            let stream = Beats::new(Arc::clone(&self.shared));
            Ok(Box::new(stream) as Box<dyn BeatStream>)
        })
    }

    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        self.call(move |state, now| Ok(state.store.lease_status(now, id, keys)))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        self.call(|state, _| Ok(state.store.leases()))
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        self.call(|state, _| {
            Ok(vec![Member {
                id: state.store.header().member_id,
                name: "mem".to_owned(),
                peer_urls: Vec::new(),
                client_urls: self.endpoints(),
                is_learner: false,
            }])
        })
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.shared.endpoint.clone()]
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        Box::pin(async move {
            if let Some(endpoint) = endpoint.filter(|endpoint| *endpoint != self.shared.endpoint) {
                let message = format!("{endpoint} is no endpoint of {}", self.shared.endpoint);
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            Ok(self.shared.with(|state, _| state.status()))
        })
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        Box::pin(async move {
            if matches!(request, AuthRequest::Enable) {
                let message = "authentication cannot be enabled on a store in memory, \
                               whose clients have no identity";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            Ok(self.shared.with(|state, _| state.administer(request))?)
        })
    }
}

//! A client's way to the store: one namespace's backend, with a deadline for every call and an eye on
//! answers that go back in time.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{Either, select},
};

use crate::{
    Error, ErrorKind, Granted, Header, Key, KeyRange, LeaseId, LeaseStatus, Moment, Op, Range,
    RangeResult, Result, Revision, Runtime, Txn, TxnResult, WatchRequest,
    backend::{Backend, Beat, Watching},
    keeper::Keepers,
    mutant::{self, Mutant, planted},
    sessions::Sessions,
    shared_watch::SharedWatches,
};

/// What a client was told to do where there is a choice.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a call may take.
    pub(crate) call_timeout: Duration,
    /// The time to live of sessions that ask for none of their own.
    pub(crate) session_ttl: Duration,
    /// How far the rates of two clocks may differ, as a fraction.
    pub(crate) drift: f64,
    /// What is taken off a session's deadline for good measure; a fiftieth of its time to live, and
    /// no less than 50 ms, if nothing else is said.
    pub(crate) margin: Option<Duration>,
    /// Who holds, as others are told.
    pub(crate) holder: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(5),
            session_ttl: Duration::from_secs(10),
            drift: 0.05,
            margin: None,
            holder: None,
        }
    }
}

/// What all namespaces of a client share.
#[derive(Debug)]
pub(crate) struct Core {
    /// The backend without any namespace, for leases.
    pub(crate) root: Arc<dyn Backend>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) watches: SharedWatches,
    /// Keep the ephemeral keys.
    pub(crate) keepers: Keepers,
    /// The cluster, if it is one.
    #[cfg(feature = "raw")]
    pub(crate) etcd: std::sync::OnceLock<Arc<crate::backend::etcd::Etcd>>,
    seen: Mutex<Seen>,
}

/// The newest state of the cluster that an answer has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cluster_id: u64,
    revision: Revision,
    /// How many times it was found to be another than it was.
    changes: u64,
}

/// A cheaply cloned handle on one namespace of a client.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) core: Arc<Core>,
    pub(crate) backend: Arc<dyn Backend>,
    /// What `backend` puts before every key, as far as the client knows: together with `core` it
    /// tells which links lead to the same keys.
    pub(crate) namespace: Key,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
    ) -> Self {
        let sessions = Sessions::new(Arc::clone(&backend), Arc::clone(&runtime), settings.clone());
        let core = Core {
            root: Arc::clone(&backend),
            runtime,
            settings,
            sessions,
            watches: SharedWatches::default(),
            keepers: Keepers::default(),
            #[cfg(feature = "raw")]
            etcd: std::sync::OnceLock::new(),
            seen: Mutex::default(),
        };
        Self {
            core: Arc::new(core),
            backend,
            namespace: Key::default(),
        }
    }

    /// The way to all keys of the client, whatever namespace this link leads to.
    pub(crate) fn root(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            backend: Arc::clone(&self.core.root),
            namespace: Key::default(),
        }
    }

    /// The same way to the store, for a task that must not keep the client, and the session that it
    /// shares, from being dropped.
    pub(crate) fn detached(&self) -> Self {
        let Core {
            root,
            runtime,
            settings,
            ..
        } = &*self.core;
        Self {
            backend: Arc::clone(&self.backend),
            namespace: self.namespace.clone(),
            ..Self::new(Arc::clone(root), Arc::clone(runtime), settings.clone())
        }
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.core.runtime
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.core.settings
    }

    pub(crate) async fn range(&self, request: Range) -> Result<RangeResult> {
        let linearizable = !request.serializable;
        let before = self.core.seen();
        let what = format!("read of {}", request.keys);
        let result = self
            .bounded(&what, false, self.backend.range(request))
            .await?;
        self.core
            .check(linearizable.then_some(before), result.header)?;
        Ok(result)
    }

    /// The present revision of the store, for who may read `keys`.
    pub(crate) async fn revision(&self, keys: &KeyRange) -> Result<Revision> {
        let mut first = keys.start.clone();
        if first.is_empty() {
            first = Key::from(b"\0");
        }
        let probe = Range::new(first).keys_only();
        Ok(self.range(probe).await?.header.revision)
    }

    pub(crate) async fn txn(&self, request: Txn) -> Result<TxnResult> {
        let writes = writes(&request);
        let linearizable = writes || !only_serializable(&request);
        let before = self.core.seen();
        let send = |request| self.bounded("transaction", writes, self.backend.txn(request));
        let result = match planted(Mutant::BlindRetry) {
            true => mutant::send_blindly(request, send).await?,
            false => send(request).await?,
        };
        let checked = self
            .core
            .check(linearizable.then_some(before), result.header);
        match checked {
            Ok(()) => Ok(result),
            // What it wrote is written, if in another cluster than was meant.
            Err(error) if writes => Err(error.indefinite()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn watch(&self, request: WatchRequest) -> Result<Watching> {
        let what = format!("watch of {}", request.keys);
        self.bounded(&what, false, self.backend.watch(request))
            .await
    }

    pub(crate) async fn compact(&self, revision: Revision, physical: bool) -> Result<Header> {
        self.bounded("compaction", true, self.backend.compact(revision, physical))
            .await
    }

    pub(crate) async fn grant(&self, id: LeaseId, ttl: Duration) -> Result<Granted> {
        self.bounded("grant of a lease", true, self.core.root.grant(id, ttl))
            .await
    }

    pub(crate) async fn revoke(&self, id: LeaseId) -> Result<Header> {
        self.bounded("revocation of a lease", true, self.core.root.revoke(id))
            .await
    }

    /// Sends one beat for a lease, and returns its time to live, counted anew; zero if there is no such
    /// lease. After `patience` the next beat goes another way.
    pub(crate) async fn beat(
        &self,
        what: &str,
        lease: LeaseId,
        patience: Duration,
    ) -> Result<Duration> {
        let mut opened = None;
        let beat = async {
            let stream = opened.insert(self.core.root.keep_alive().await?);
            stream.send(lease)?;
            while let Some(answer) = stream.next().await {
                let beat: Beat = answer?;
                if beat.lease == lease {
                    return Ok(beat.ttl);
                }
            }
            let message = "the stream of beats ended";
            Err(Error::new(ErrorKind::Unavailable, message))
        };
        let ttl = bounded(&*self.core.runtime, patience, what, false, beat).await;
        if let (Err(error), Some(stream)) = (&ttl, &mut opened)
            && error.kind() == ErrorKind::Timeout
        {
            stream.distrust();
        }
        ttl
    }

    pub(crate) async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<LeaseStatus> {
        self.bounded(
            "status of a lease",
            false,
            self.backend.lease_status(id, keys),
        )
        .await
    }

    /// Ends `call` with an error at the deadline.
    pub(crate) async fn bounded<T>(
        &self,
        what: &str,
        writes: bool,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        bounded(
            &*self.core.runtime,
            self.core.settings.call_timeout,
            what,
            writes,
            call,
        )
        .await
    }
}

/// Ends `call` with an error after `timeout`; for a call that `writes` the error is indefinite.
pub(crate) async fn bounded<T>(
    runtime: &dyn Runtime,
    timeout: Duration,
    what: &str,
    writes: bool,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let deadline = runtime.now() + timeout;
    bounded_by(runtime, deadline, timeout, what, writes, call).await
}

/// Ends `call` with an error at `deadline`, which is that of something that was given `timeout`.
pub(crate) async fn bounded_by<T>(
    runtime: &dyn Runtime,
    deadline: Moment,
    timeout: Duration,
    what: &str,
    writes: bool,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match select(pin!(call), runtime.sleep_until(deadline)).await {
        Either::Left((result, _)) => result.map_err(|error| error.context(what)),
        Either::Right(((), _)) => {
            let error = Error::new(
                ErrorKind::Timeout,
                format!("{what}: no answer in {timeout:?}"),
            );
            Err(if writes { error.indefinite() } else { error })
        }
    }
}

impl Core {
    fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// The newest revision that an answer has shown.
    pub(crate) fn newest(&self) -> Revision {
        self.seen().revision
    }

    /// How many times the store was found to be another than it was: who holds on to what it knew
    /// compares that, since the error is reported only once.
    pub(crate) fn cluster_changes(&self) -> u64 {
        self.seen().changes
    }

    /// Takes note of an answer's header. An answer of another cluster, or a linearizable one older
    /// than what had been `seen_before` the question, tells that the cluster is not the one that it
    /// was: that is reported once, and the new state is what counts from then on.
    fn check(&self, seen_before: Option<Seen>, header: Header) -> Result<()> {
        let mut seen = lock(&self.seen);
        let foreign = seen.cluster_id != 0 && seen.cluster_id != header.cluster_id;
        let turned_back = seen_before.is_some_and(|before| {
            before.cluster_id == seen.cluster_id && header.revision < before.revision
        });
        if foreign || turned_back {
            let was = *seen;
            *seen = Seen {
                cluster_id: header.cluster_id,
                revision: header.revision,
                changes: was.changes + 1,
            };
            let message = if foreign {
                format!(
                    "the answer is of cluster {:x}, not {:x}",
                    header.cluster_id, was.cluster_id
                )
            } else {
                format!(
                    "the store went back from revision {} to {}",
                    was.revision, header.revision
                )
            };
            return Err(Error::new(ErrorKind::ClusterChanged, message));
        }
        seen.cluster_id = header.cluster_id;
        seen.revision = seen.revision.max(header.revision);
        Ok(())
    }
}

/// Whether a transaction can change anything.
fn writes(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Delete(_) | Op::Put(_) => true,
        Op::Range(_) => false,
        Op::Txn(inner) => writes(inner),
    })
}

/// Whether every read of a transaction is content with a member's own store.
fn only_serializable(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Delete(_) | Op::Put(_) => false,
        Op::Range(range) => range.serializable,
        Op::Txn(inner) => only_serializable(inner),
    })
}

/// Locks a mutex whose holder never panics half-way: every critical section of this crate leaves the
/// value whole at each step, so what a panic elsewhere left behind is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

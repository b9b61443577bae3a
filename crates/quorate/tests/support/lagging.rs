//! A member that is behind the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use quorate::{
    Granted, Header, KeyRange, LeaseId, LeaseStatus, Op, Range, RangeResult, Result, Revision, Txn,
    TxnResult, WatchRequest,
    backend::{Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Status, Watching},
};

/// Answers serializable reads, and opens watches from now, as of some revisions ago.
#[derive(Debug)]
pub struct Lagging {
    inner: Arc<dyn Backend>,
    behind: AtomicI64,
}

impl Lagging {
    pub fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            behind: AtomicI64::new(0),
        })
    }

    pub fn lag(&self, revisions: i64) {
        self.behind.store(revisions, Ordering::SeqCst);
    }

    /// The revision that this member has come to.
    async fn at(&self) -> Result<Revision> {
        let range = Range::new(KeyRange::all()).count_only();
        let present = self.inner.range(range).await?.header.revision.0;
        Ok(Revision(
            (present - self.behind.load(Ordering::SeqCst)).max(1),
        ))
    }
}

fn is_serializable(op: &Op) -> bool {
    matches!(op, Op::Range(range) if range.serializable)
}

impl Backend for Lagging {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        self.inner.range(request)
    }

    fn txn(&self, mut request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(async move {
            if !request
                .success
                .iter()
                .chain(&request.failure)
                .all(is_serializable)
            {
                return self.inner.txn(request).await;
            }
            let at = self.at().await?;
            for op in request.success.iter_mut().chain(&mut request.failure) {
                if let Op::Range(range) = op {
                    range.revision = at;
                }
            }
            let mut result = self.inner.txn(request).await?;
            result.header.revision = at;
            Ok(result)
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        Box::pin(async move {
            if request.start != Revision::ZERO {
                return self.inner.watch(request).await;
            }
            let at = self.at().await?;
            let mut watching = self.inner.watch(request.start(at.next())).await?;
            watching.created.revision = at;
            Ok(watching)
        })
    }

    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>> {
        self.inner.compact(revision, physical)
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        self.inner.grant(id, ttl)
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>> {
        self.inner.revoke(id)
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        self.inner.keep_alive()
    }

    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        self.inner.lease_status(id, keys)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        self.inner.leases()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        self.inner.members()
    }

    fn endpoints(&self) -> Vec<String> {
        self.inner.endpoints()
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        self.inner.status(endpoint)
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        self.inner.alarms()
    }

    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        self.inner.auth(request)
    }
}

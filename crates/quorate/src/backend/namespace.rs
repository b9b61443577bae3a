//! A store that sees only the keys under a prefix.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture};
use quorate_engine::{
    Compare, Event, Granted, Header, Key, KeyRange, KeyValue, LeaseId, LeaseStatus, Op, OpResult,
    Range, RangeEnd, RangeResult, Revision, Txn, TxnResult, WatchBatch, WatchRequest,
};

use super::{
    Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Status, WatchStream, Watching,
};
use crate::{Error, ErrorKind, Result};

/// Keeps all keys of a client under a prefix, which the client does not see.
///
/// Every key that goes out gets the prefix and every key that comes in loses it; ranges without an
/// end stop where the prefix does. The prefix is taken byte for byte: it is for the caller to end it
/// with a slash. A namespace in a namespace has the outer prefix first.
///
/// It is a convenience, no fence: revisions, leases, compaction, members, alarms, users and the keys
/// in permissions are those of the whole store.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<dyn Backend>,
    prefix: Prefix,
}

impl Namespace {
    /// The keys of `inner` that begin with `prefix`.
    pub fn new(inner: Arc<dyn Backend>, prefix: impl Into<Key>) -> Self {
        Self {
            inner,
            prefix: Prefix(prefix.into()),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Namespace {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        let request = self.prefix.range(request);
        Box::pin(async move { self.prefix.strip_range(self.inner.range(request).await?) })
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        let request = self.prefix.txn(request);
        Box::pin(async move { self.prefix.strip_txn(self.inner.txn(request).await?) })
    }

    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>> {
        self.inner.compact(revision, physical)
    }

    fn watch(&self, mut request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        if request.keys.start.is_empty() {
            // Unlike a read, a watch may name no key: etcd takes the smallest one for it.
            request.keys.start = Key::from(b"\0");
        }
        request.keys = self.prefix.keys(request.keys);
        Box::pin(async move {
            let Watching { created, stream } = self.inner.watch(request).await?;
            let stream = Stripped {
                inner: Some(stream),
                prefix: self.prefix.clone(),
            };
            Ok(Watching {
                created,
                stream: Box::new(stream),
            })
        })
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
        Box::pin(async move {
            let mut status = self.inner.lease_status(id, keys).await?;
            // A lease may hold keys elsewhere; those do not exist in here.
            status.keys = status
                .keys
                .iter()
                .filter_map(|key| self.prefix.stripped(key))
                .collect();
            Ok(status)
        })
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

/// The changes of a watch, without the prefix.
struct Stripped {
    /// None once a key from elsewhere has ended it.
    inner: Option<Box<dyn WatchStream>>,
    prefix: Prefix,
}

impl Stream for Stripped {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let item = ready!(Pin::new(inner).poll_next(cx));
        let item = item.map(|batch| batch.and_then(|batch| self.prefix.strip_batch(batch)));
        if !matches!(item, Some(Ok(_))) {
            self.inner = None;
        }
        Poll::Ready(item)
    }
}

impl WatchStream for Stripped {
    fn request_progress(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.request_progress();
        }
    }

    fn distrust(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.distrust();
        }
    }
}

/// Adds the prefix to what goes out and takes it from what comes in.
#[derive(Clone, Debug)]
struct Prefix(Key);

impl Prefix {
    fn key(&self, key: &[u8]) -> Key {
        [&self.0, key].concat().into()
    }

    fn keys(&self, keys: KeyRange) -> KeyRange {
        if keys.start.is_empty() {
            // No key at all: sent as it is, the store refuses it in its own words and at its own
            // turn among its checks.
            return KeyRange::key(keys.start);
        }
        let end = match keys.end {
            RangeEnd::Single => RangeEnd::Single,
            RangeEnd::Before(end) => RangeEnd::Before(self.key(&end)),
            RangeEnd::Unbounded => KeyRange::prefix(&self.0).end,
        };
        KeyRange {
            start: self.key(&keys.start),
            end,
        }
    }

    fn range(&self, mut request: Range) -> Range {
        request.keys = self.keys(request.keys);
        request
    }

    fn txn(&self, request: Txn) -> Txn {
        let compare = |compare: Compare| Compare {
            keys: self.keys(compare.keys),
            ..compare
        };
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| self.op(op)).collect();
        Txn {
            compares: request.compares.into_iter().map(compare).collect(),
            success: ops(request.success),
            failure: ops(request.failure),
        }
    }

    fn op(&self, op: Op) -> Op {
        match op {
            Op::Delete(mut delete) => {
                delete.keys = self.keys(delete.keys);
                Op::Delete(delete)
            }
            Op::Put(mut put) => {
                put.key = self.keys(KeyRange::key(put.key)).start;
                Op::Put(put)
            }
            Op::Range(range) => Op::Range(self.range(range)),
            Op::Txn(txn) => Op::Txn(self.txn(txn)),
        }
    }

    /// The key as it is called in the namespace; none if it is not in it. The prefix alone is not: no
    /// key is empty.
    fn stripped(&self, key: &Key) -> Option<Key> {
        let rest = key.strip_prefix(&*self.0)?;
        (!rest.is_empty()).then(|| Key::new(key.clone().into_bytes().slice(self.0.len()..)))
    }

    fn strip(&self, key: &Key) -> Result<Key> {
        self.stripped(key).ok_or_else(|| {
            let message = format!("the answer names {key}, outside of namespace {}", self.0);
            Error::new(ErrorKind::Internal, message)
        })
    }

    fn strip_kv(&self, kv: KeyValue) -> Result<KeyValue> {
        Ok(KeyValue {
            key: self.strip(&kv.key)?,
            ..kv
        })
    }

    fn strip_kvs(&self, kvs: Vec<KeyValue>) -> Result<Vec<KeyValue>> {
        kvs.into_iter().map(|kv| self.strip_kv(kv)).collect()
    }

    fn strip_range(&self, result: RangeResult) -> Result<RangeResult> {
        Ok(RangeResult {
            kvs: self.strip_kvs(result.kvs)?,
            ..result
        })
    }

    fn strip_txn(&self, result: TxnResult) -> Result<TxnResult> {
        let strip = |result| {
            Ok(match result {
                OpResult::Delete { deleted, prevs } => OpResult::Delete {
                    deleted,
                    prevs: self.strip_kvs(prevs)?,
                },
                OpResult::Put { prev } => OpResult::Put {
                    prev: prev.map(|kv| self.strip_kv(kv)).transpose()?,
                },
                OpResult::Range(range) => OpResult::Range(self.strip_range(range)?),
                OpResult::Txn(txn) => OpResult::Txn(self.strip_txn(txn)?),
            })
        };
        Ok(TxnResult {
            results: result
                .results
                .into_iter()
                .map(strip)
                .collect::<Result<_>>()?,
            ..result
        })
    }

    fn strip_batch(&self, batch: WatchBatch) -> Result<WatchBatch> {
        let strip = |event| {
            Ok(match event {
                Event::Put { kv, prev } => Event::Put {
                    kv: self.strip_kv(kv)?,
                    prev: prev.map(|kv| self.strip_kv(kv)).transpose()?,
                },
                Event::Delete {
                    key,
                    revision,
                    prev,
                } => Event::Delete {
                    key: self.strip(&key)?,
                    revision,
                    prev: prev.map(|kv| self.strip_kv(kv)).transpose()?,
                },
            })
        };
        Ok(WatchBatch {
            events: batch.events.into_iter().map(strip).collect::<Result<_>>()?,
            ..batch
        })
    }
}

#[cfg(test)]
mod tests;

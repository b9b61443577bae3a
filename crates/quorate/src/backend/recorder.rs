//! A backend for the tests of adapters: it records what it is asked and answers what it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture};
use quorate_engine::{
    Granted, Header, KeyValue, LeaseId, LeaseStatus, Range, RangeResult, Revision, Txn, TxnResult,
    WatchBatch, WatchRequest,
};
use tokio::sync::mpsc;

use super::{
    Alarm, AuthRequest, AuthResponse, Backend, Beat, BeatStream, Member, Status, WatchStream,
    Watching,
};
use crate::Result;

/// What was asked, and what is answered.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Recorded>);

#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) ranges: Vec<Range>,
    pub(crate) txns: Vec<Txn>,
    pub(crate) watches: Vec<WatchRequest>,
    pub(crate) granted: Vec<LeaseId>,
    pub(crate) beats: Vec<LeaseId>,
    pub(crate) progress_requests: usize,
    pub(crate) distrusted: usize,
    /// What every range answers.
    pub(crate) kvs: Vec<KeyValue>,
    /// What every transaction answers.
    pub(crate) txn_result: TxnResult,
    /// What every lease holds.
    pub(crate) lease_keys: Vec<quorate_engine::Key>,
    /// The cluster's list.
    pub(crate) members: Vec<Member>,
    /// What is answered where, in turn; then, and elsewhere, it is [`status`].
    pub(crate) statuses: BTreeMap<String, VecDeque<Status>>,
    /// Where the newest watch gets its batches from; dropping it ends the stream.
    pub(crate) watcher: Option<mpsc::Sender<Result<WatchBatch>>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// Lets the newest watch tell `batch`.
    pub(crate) fn tell(&self, batch: WatchBatch) {
        let watcher = self.lock().watcher.clone().expect("a watch is open");
        watcher.try_send(Ok(batch)).expect("the watch has room");
    }
}

/// What a member tells that is well.
pub(crate) fn status() -> Status {
    Status {
        header: header(9),
        version: "3.5.0".into(),
        db_size: 0,
        db_size_in_use: 0,
        db_size_quota: None,
        leader: 2,
        raft_index: 1,
        raft_term: 3,
        raft_applied_index: 1,
        errors: Vec::new(),
        is_learner: false,
    }
}

pub(crate) fn header(revision: i64) -> Header {
    Header {
        cluster_id: 1,
        member_id: 2,
        revision: Revision(revision),
        raft_term: 3,
    }
}

pub(crate) fn kv(key: impl Into<quorate_engine::Key>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: "value".into(),
        create_revision: Revision(2),
        mod_revision: Revision(3),
        version: 2,
        lease: None,
    }
}

impl Backend for Arc<Recorder> {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        Box::pin(async move {
            let mut recorded = self.lock();
            recorded.ranges.push(request);
            Ok(RangeResult {
                header: header(9),
                kvs: recorded.kvs.clone(),
                more: false,
                count: recorded.kvs.len() as i64,
            })
        })
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(async move {
            let mut recorded = self.lock();
            recorded.txns.push(request);
            Ok(recorded.txn_result.clone())
        })
    }

    fn compact(&self, _: Revision, _: bool) -> BoxFuture<'_, Result<Header>> {
        Box::pin(async { Ok(header(9)) })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        Box::pin(async move {
            let (watcher, events) = mpsc::channel(16);
            let mut recorded = self.lock();
            recorded.watches.push(request);
            recorded.watcher = Some(watcher);
            Ok(Watching {
                created: header(9),
                stream: Box::new(RecordedWatch {
                    recorder: Self::clone(self),
                    events,
                }),
            })
        })
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        Box::pin(async move {
            self.lock().granted.push(id);
            Ok(Granted {
                header: header(9),
                id,
                ttl,
            })
        })
    }

    fn revoke(&self, _: LeaseId) -> BoxFuture<'_, Result<Header>> {
        Box::pin(async { Ok(header(9)) })
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        Box::pin(async {
            let (answer, answers) = mpsc::channel(1024);
            Ok(Box::new(RecordedBeats {
                recorder: Self::clone(self),
                answer,
                answers,
            }) as Box<dyn BeatStream>)
        })
    }

    fn lease_status(&self, id: LeaseId, _: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        Box::pin(async move {
            Ok(LeaseStatus {
                header: header(9),
                id,
                granted: Duration::from_secs(10),
                remaining: Some(Duration::from_secs(7)),
                keys: self.lock().lease_keys.clone(),
            })
        })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        Box::pin(async { Ok(self.lock().granted.clone()) })
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        Box::pin(async { Ok(self.lock().members.clone()) })
    }

    fn endpoints(&self) -> Vec<String> {
        vec!["recorder".into()]
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        Box::pin(async move {
            let mut recorded = self.lock();
            let told = recorded.statuses.get_mut(&endpoint.unwrap_or_default());
            Ok(told.and_then(VecDeque::pop_front).unwrap_or_else(status))
        })
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn auth(&self, _: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        Box::pin(async { Ok(AuthResponse::Done) })
    }
}

struct RecordedWatch {
    recorder: Arc<Recorder>,
    events: mpsc::Receiver<Result<WatchBatch>>,
}

impl Stream for RecordedWatch {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx)
    }
}

impl WatchStream for RecordedWatch {
    fn request_progress(&mut self) {
        self.recorder.lock().progress_requests += 1;
    }

    fn distrust(&mut self) {
        self.recorder.lock().distrusted += 1;
    }
}

struct RecordedBeats {
    recorder: Arc<Recorder>,
    answer: mpsc::Sender<Result<Beat>>,
    answers: mpsc::Receiver<Result<Beat>>,
}

impl Stream for RecordedBeats {
    type Item = Result<Beat>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_recv(cx)
    }
}

impl BeatStream for RecordedBeats {
    fn send(&mut self, lease: LeaseId) -> Result<()> {
        self.recorder.lock().beats.push(lease);
        let beat = Beat {
            header: header(9),
            lease,
            ttl: Duration::from_secs(10),
        };
        self.answer.try_send(Ok(beat)).expect("the stream has room");
        Ok(())
    }

    fn distrust(&mut self) {
        self.recorder.lock().distrusted += 1;
    }
}

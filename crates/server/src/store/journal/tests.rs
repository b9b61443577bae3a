//! Disks that are slow or fail: nothing is told before it is on disk, or when it never will be.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use quorate_engine::{Op, Range, Txn};
use quorate_wire::{
    etcdserverpb::{
        CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest,
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, kv_client::KvClient,
        lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
    v3electionpb::{LeaderRequest, election_client::ElectionClient},
    v3lockpb::{LockRequest, lock_client::LockClient},
};
use redb::{StorageBackend, backends::InMemoryBackend};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tower::Service;

use super::*;
use crate::{Control, routes::Routes, store::shared::Shared};

const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than anything takes that waits for nothing.
const A_WHILE: Duration = Duration::from_millis(200);

/// A disk whose syncs can be held up, and that can fail. What was written to it stays.
#[derive(Clone, Debug, Default)]
struct TestDisk {
    content: Arc<InMemoryBackend>,
    held: Arc<(Mutex<bool>, Condvar)>,
    failing: Arc<Mutex<Option<io::ErrorKind>>>,
    syncs: Arc<AtomicUsize>,
}

impl TestDisk {
    fn hold(&self, hold: bool) {
        *self.held.0.lock().unwrap() = hold;
        self.held.1.notify_all();
    }

    fn fail(&self, kind: io::ErrorKind) {
        *self.failing.lock().unwrap() = Some(kind);
    }

    fn check(&self) -> io::Result<()> {
        let failing = *self.failing.lock().unwrap();
        failing.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        self.content.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.content.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.content.set_len(len)
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        let held = self.held.0.lock().unwrap();
        drop(self.held.1.wait_while(held, |held| *held).unwrap());
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.content.write(offset, data)
    }
}

/// A server on a disk, without connections.
struct Served {
    disk: TestDisk,
    routes: Routes,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Served {
    async fn on(disk: TestDisk) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let backend = disk.clone();
        let open = move || Ok(Disk::open_on(backend).unwrap());
        let opened = Opened::open_with("test".into(), open, &tasks, &stop);
        let opened = opened.await.unwrap();
        let shared = Shared::new(String::new(), PATIENCE, Some(opened));
        let control = Control::new(Arc::clone(&shared), &stop, &stop);
        let routes = Routes::new(&shared, &control);
        tokio::spawn(crate::store::shared::end_watches(shared));
        Self {
            disk,
            routes,
            tasks,
            stop,
        }
    }

    fn kv(&self) -> KvClient<Routes> {
        KvClient::new(self.routes.clone())
    }

    async fn put(&self, key: &'static str) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.into(),
            ..PutRequest::default()
        };
        let answer = timeout(PATIENCE, self.kv().put(request)).await.unwrap()?;
        Ok(answer.into_inner().header.unwrap().revision)
    }

    async fn get(&self, key: &'static str) -> Result<i64, Status> {
        let request = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        let answer = timeout(PATIENCE, self.kv().range(request)).await.unwrap()?;
        Ok(answer.into_inner().count)
    }

    /// Asks over plain HTTP.
    async fn ask(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = timeout(PATIENCE, self.routes.clone().call(request));
        let answer = answer.await.unwrap().unwrap();
        let status = answer.status();
        let body = Body::new(answer.into_body());
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn watch(&self) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
        let (requests, receiver) = mpsc::channel(8);
        let create = RequestUnion::CreateRequest(WatchCreateRequest {
            key: "a".into(),
            ..WatchCreateRequest::default()
        });
        send(&requests, create).await;
        let mut client = WatchClient::new(self.routes.clone());
        let answers = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        let mut answers = answers.into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        (requests, answers)
    }

    async fn stop(self) -> TestDisk {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.unwrap();
        self.disk
    }
}

async fn send(requests: &mpsc::Sender<WatchRequest>, request: RequestUnion) {
    let request_union = Some(request);
    requests.send(WatchRequest { request_union }).await.unwrap();
}

async fn is_waiting(answer: &mut (impl Future + Unpin)) -> bool {
    timeout(A_WHILE, answer).await.is_err()
}

#[tokio::test]
async fn nothing_is_told_before_it_is_on_disk() {
    let served = Served::on(TestDisk::default()).await;
    let (requests, mut answers) = served.watch().await;
    let mut leases = LeaseClient::new(served.routes.clone());
    let (beats, receiver) = mpsc::channel(8);
    let grant = LeaseGrantRequest { ttl: 60, id: 7 };
    leases.lease_grant(grant).await.unwrap();
    let beaten = leases.lease_keep_alive(ReceiverStream::new(receiver));
    let mut beaten = beaten.await.unwrap().into_inner();

    served.disk.hold(true);
    let mut put = Box::pin(served.put("a"));
    assert!(is_waiting(&mut put).await);
    // Nor may a crash take back what a read, a watch, a sign of life or a beat has told of.
    let mut get = Box::pin(served.get("a"));
    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
    send(&requests, progress).await;
    let mut told = Box::pin(answers.message());
    beats.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let mut beat = Box::pin(beaten.message());
    assert!(is_waiting(&mut get).await);
    assert!(is_waiting(&mut told).await);
    assert!(is_waiting(&mut beat).await);
    // A refusal tells of the store too.
    let mut kv = served.kv();
    let too_far = CompactionRequest {
        revision: 9,
        physical: false,
    };
    let mut refusal = Box::pin(kv.compact(too_far));
    assert!(is_waiting(&mut refusal).await);

    served.disk.hold(false);
    assert_eq!(put.await.unwrap(), 2);
    assert_eq!(get.await.unwrap(), 1);
    assert_eq!(told.await.unwrap().unwrap().events.len(), 1);
    assert_eq!(beat.await.unwrap().unwrap().ttl, 60);
    assert_eq!(refusal.await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn writes_that_arrive_during_a_sync_share_the_next() {
    let served = Served::on(TestDisk::default()).await;
    served.disk.hold(true);
    let mut first = Box::pin(served.put("a"));
    assert!(is_waiting(&mut first).await);
    let before = served.disk.syncs.load(Ordering::Relaxed);
    let mut others: Vec<_> = (0..50).map(|_| Box::pin(served.put("b"))).collect();
    for other in &mut others {
        assert!(futures_util::poll!(other).is_pending());
    }
    served.disk.hold(false);
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    let syncs = served.disk.syncs.load(Ordering::Relaxed) - before;
    assert!(syncs <= 6, "{syncs} syncs for two commits");
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_survives() {
    let served = Served::on(TestDisk::default()).await;
    served.disk.hold(true);
    {
        let mut put = Box::pin(served.put("a"));
        assert!(is_waiting(&mut put).await);
    }
    served.disk.hold(false);
    let served = Served::on(served.stop().await).await;
    assert_eq!(served.get("a").await.unwrap(), 1);
}

#[tokio::test]
async fn nothing_is_acknowledged_by_a_disk_that_fails() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let served = Served::on(TestDisk::default()).await;
        let (_requests, mut answers) = served.watch().await;
        assert_eq!(served.put("b").await.unwrap(), 2);
        served.disk.fail(kind);
        let refused = served.put("a").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let text = refused.message();
        assert!(
            text.starts_with("etcdserver: cannot write to test: "),
            "{text}"
        );
        assert!(text.contains(&io::Error::from(kind).to_string()), "{text}");
        // From now on it knows nothing for certain.
        for refused in [served.put("c").await, served.get("b").await] {
            assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
        }
        let ended = timeout(PATIENCE, answers.message()).await.unwrap();
        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);

        let disk = served.stop().await;
        *disk.failing.lock().unwrap() = None;
        let served = Served::on(disk).await;
        assert_eq!(served.get("b").await.unwrap(), 1);
        assert_eq!(served.get("c").await.unwrap(), 0);
    }
}

#[tokio::test]
async fn whoever_watches_over_a_server_is_told_that_its_disk_has_failed() {
    let served = Served::on(TestDisk::default()).await;
    let well = [
        ("/health", r#"{"health":"true","reason":""}"#),
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
    ];
    for (path, body) in well {
        let (status, told) = served.ask(path).await;
        assert_eq!((status, &*told), (StatusCode::OK, body), "{path}");
    }
    served.disk.fail(io::ErrorKind::StorageFull);
    served.put("a").await.unwrap_err();
    for (path, _) in well {
        let (status, told) = served.ask(path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {told}");
        assert!(told.contains("cannot write to test"), "{path}: {told}");
    }
    let (_, told) = served.ask("/health").await;
    assert!(told.starts_with(r#"{"health":"false","#), "{told}");
}

#[tokio::test]
async fn nobody_waits_for_a_turn_on_a_disk_that_has_failed() {
    let served = Served::on(TestDisk::default()).await;
    // Its key lives by no lease, so that nothing else would ever end the waits.
    served.put("jobs/holder").await.unwrap();
    let mut locks = LockClient::new(served.routes.clone());
    let mut turn = Box::pin(locks.lock(LockRequest {
        name: "jobs".into(),
        lease: 0,
    }));
    let mut elections = ElectionClient::new(served.routes.clone());
    let observed = elections.observe(LeaderRequest {
        name: "jobs".into(),
    });
    let mut leaders = observed.await.unwrap().into_inner();
    assert!(leaders.message().await.unwrap().is_some());
    let mut leader = Box::pin(leaders.message());
    assert!(is_waiting(&mut turn).await);
    assert!(is_waiting(&mut leader).await);

    served.disk.fail(io::ErrorKind::StorageFull);
    served.put("a").await.unwrap_err();
    let turn = timeout(PATIENCE, turn).await.expect("it waits for ever");
    assert_eq!(turn.unwrap_err().code(), Code::Unavailable);
    let leader = timeout(PATIENCE, leader).await.expect("it waits for ever");
    assert_eq!(leader.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn calls_wait_while_too_much_waits_for_the_disk() {
    let served = Served::on(TestDisk::default()).await;
    served.disk.hold(true);
    let large = || {
        let request = PutRequest {
            key: "large".into(),
            value: vec![0; 1024 * 1024].into(),
            ..PutRequest::default()
        };
        let mut kv = served.kv();
        Box::pin(async move { kv.put(request).await })
    };
    // Nobody waits for the answers, so nothing else would bound what is queued.
    let mut applied = 0;
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut large()).is_pending());
        tokio::task::yield_now().await;
        applied += 1;
    }
    served.disk.hold(false);
    let done = large().await.unwrap().into_inner();
    let revision = done.header.unwrap().revision;
    assert!(revision < 100, "{revision} revisions of {applied} requests");
}

#[test]
fn the_disk_is_bounded_by_what_is_kept() {
    let disk = TestDisk::default();
    let (mut written, mut store) = Disk::open_on(disk.clone()).unwrap();
    let mut commit = |store: &mut Store| written.commit(store.take_records()).unwrap();
    let mut full = 0;
    for round in 0..8 {
        for n in 0..2000 {
            let put = Op::put(format!("k{}", n % 100), vec![b'v'; 500]);
            store.txn(&Txn::new().then(put)).unwrap();
            if n % 100 == 0 {
                commit(&mut store);
            }
        }
        store.compact(store.header().revision).unwrap();
        commit(&mut store);
        commit(&mut store);
        let len = disk.content.len().unwrap();
        match round {
            0 | 1 => full = full.max(len),
            _ => assert!(len <= full * 2, "{len} bytes after {full}"),
        }
    }
    assert!(!written.has_garbage());
    drop(written);
    let (_, restored) = Disk::open_on(disk).unwrap();
    assert_eq!(restored.records(), store.records());
    assert_eq!(restored.header(), store.header());
}

#[test]
fn a_compaction_that_was_cut_off_goes_on() {
    let disk = TestDisk::default();
    let (mut written, mut store) = Disk::open_on(disk.clone()).unwrap();
    for _ in 0..10_000 {
        store.txn(&Txn::new().then(Op::put("k", "v"))).unwrap();
    }
    store.compact(store.header().revision).unwrap();
    written.commit(store.take_records()).unwrap();
    assert!(written.has_garbage());
    drop(written);
    let (mut written, restored) = Disk::open_on(disk.clone()).unwrap();
    assert_eq!(restored.records(), store.records());
    while written.has_garbage() {
        written.commit(Vec::new()).unwrap();
    }
    drop(written);
    let (written, restored) = Disk::open_on(disk).unwrap();
    assert!(!written.has_garbage());
    let all = Range::prefix("");
    assert_eq!(restored.range(&all).unwrap().count, 1);
}

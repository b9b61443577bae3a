use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use quorate_engine::{Compare, KeyRange, LeaseId, Op, Put, Range, Revision, Txn, WatchRequest};

use super::*;
use crate::backend::{Beat, WatchStream};

const LEASE: LeaseId = LeaseId(7);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn put(store: &Memory, key: &str) {
    store.txn(Txn::new().then(Op::put(key, "v"))).await.unwrap();
}

async fn put_leased(store: &Memory, key: &str) {
    let put = Put::new(key, "v").lease(LEASE);
    store.txn(Txn::new().then(put)).await.unwrap();
}

async fn watch(store: &Memory, request: WatchRequest) -> Box<dyn WatchStream> {
    store.watch(request).await.unwrap().stream
}

async fn told(stream: &mut Box<dyn WatchStream>) -> Vec<i64> {
    let batch = stream.next().await.unwrap().unwrap();
    batch
        .events
        .iter()
        .map(|event| event.revision().0)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_lease_expires_on_time_with_nobody_calling() {
    let store = Memory::new();
    let begun = tokio::time::Instant::now();
    store.grant(LEASE, seconds(5)).await.unwrap();
    put_leased(&store, "k").await;
    let mut stream = watch(&store, WatchRequest::new("k")).await;
    assert_eq!(told(&mut stream).await, [3]);
    let elapsed = begun.elapsed();
    assert!(elapsed >= seconds(5) && elapsed < seconds(5) + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_lease_expires_before_a_longer_one_that_is_older() {
    let store = Memory::new();
    store.grant(LeaseId(1), seconds(100)).await.unwrap();
    tokio::time::sleep(seconds(1)).await;
    store.grant(LEASE, seconds(5)).await.unwrap();
    put_leased(&store, "k").await;
    let begun = tokio::time::Instant::now();
    let mut stream = watch(&store, WatchRequest::new("k")).await;
    told(&mut stream).await;
    assert!(begun.elapsed() < seconds(6));
    assert_eq!(store.leases().await.unwrap(), [LeaseId(1)]);
}

#[tokio::test(start_paused = true)]
async fn beats_keep_a_lease_and_unknown_leases_are_answered_with_zero() {
    let store = Memory::new();
    store.grant(LEASE, seconds(5)).await.unwrap();
    let mut beats = store.keep_alive().await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(seconds(4)).await;
        beats.send(LEASE).unwrap();
        beats.send(LeaseId(9)).unwrap();
        let Beat { lease, ttl, .. } = beats.next().await.unwrap().unwrap();
        assert_eq!((lease, ttl), (LEASE, seconds(5)));
        let Beat { lease, ttl, .. } = beats.next().await.unwrap().unwrap();
        assert_eq!((lease, ttl), (LeaseId(9), Duration::ZERO));
    }
    assert!(beats.next().now_or_never().is_none());
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(
        store.lease_status(LEASE, true).await.unwrap().remaining,
        None
    );
}

#[tokio::test]
async fn beats_that_nobody_reads_are_bounded() {
    let mut beats = Memory::new().keep_alive().await.unwrap();
    let most = streams::MAX_UNREAD_BEATS;
    let sent = (0..=most).take_while(|_| beats.send(LEASE).is_ok()).count();
    assert_eq!(sent, most);
}

#[tokio::test]
async fn a_commit_wakes_only_whom_it_concerns() {
    /// Notes that it was woken.
    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let store = Memory::new();
    let mut waiting = Vec::new();
    for keys in [KeyRange::key("a"), KeyRange::prefix("b"), KeyRange::all()] {
        let mut stream = watch(&store, WatchRequest::new(keys)).await;
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        assert!(
            stream
                .poll_next_unpin(&mut Context::from_waker(&waker))
                .is_pending()
        );
        waiting.push((stream, flag));
    }
    put(&store, "b1").await;
    let woken: Vec<bool> = waiting
        .iter()
        .map(|(_, flag)| flag.0.load(Ordering::Relaxed))
        .collect();
    assert_eq!(woken, [false, true, true]);
}

#[tokio::test]
async fn progress_comes_after_what_there_was_to_tell() {
    let store = Memory::new();
    let mut stream = watch(&store, WatchRequest::new("k")).await;
    put(&store, "other").await;
    put(&store, "k").await;
    stream.request_progress();
    assert_eq!(told(&mut stream).await, [3]);
    let progress = stream.next().await.unwrap().unwrap();
    assert!(progress.events.is_empty());
    assert_eq!(progress.header.revision, Revision(3));
    assert!(stream.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_compaction_takes_nothing_from_a_watch_that_keeps_up() {
    let store = Memory::new();
    let mut stream = watch(&store, WatchRequest::new("k").prev_kv()).await;
    put(&store, "k").await;
    put(&store, "other").await;
    store.compact(Revision(3), true).await.unwrap();
    assert_eq!(told(&mut stream).await, [2]);
    put(&store, "k").await;
    assert_eq!(told(&mut stream).await, [4]);
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_ends_with_the_oldest_one() {
    let store = Memory::new();
    put(&store, "k").await;
    put(&store, "k").await;
    store.compact(Revision(3), true).await.unwrap();
    let mut stream = watch(&store, WatchRequest::new("k").start(Revision(2))).await;
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compacted);
    assert_eq!(error.oldest_revision(), Some(Revision(3)));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_watch_leaves_nothing_behind() {
    let store = Memory::new();
    for keys in [KeyRange::key("a"), KeyRange::prefix("a")] {
        drop(watch(&store, WatchRequest::new(keys)).await);
    }
    assert!(store.shared.lock().is_unwatched());
}

#[tokio::test]
async fn a_call_that_is_never_polled_does_nothing() {
    let store = Memory::new();
    drop(store.txn(Txn::new().then(Op::put("k", "v"))));
    assert_eq!(store.revision(), Revision(1));
}

#[tokio::test]
async fn a_named_store_lives_as_long_as_somebody_has_it() {
    let name = "a_named_store_lives_as_long_as_somebody_has_it";
    let store = Memory::named(name);
    put(&store, "k").await;
    assert_eq!(Memory::named(name).revision(), Revision(2));
    assert_eq!(store.endpoints(), [format!("mem:{name}")]);
    assert_eq!(Memory::new().revision(), Revision(1));
    drop(store);
    assert_eq!(Memory::named(name).revision(), Revision(1));
}

#[tokio::test]
async fn the_task_ends_with_the_store() {
    let store = Memory::new();
    store.grant(LEASE, seconds(3600)).await.unwrap();
    let shared = Arc::downgrade(&store.shared);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(tasks(), 1);
    drop(store);
    while tasks() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(shared.upgrade().is_none());
}

#[test]
fn leases_still_expire_when_the_first_runtime_has_ended() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let store = Memory::new();
    runtime().block_on(async { store.grant(LEASE, seconds(1)).await.unwrap() });
    runtime().block_on(async {
        put_leased(&store, "k").await;
        let mut stream = watch(&store, WatchRequest::new("k")).await;
        assert_eq!(told(&mut stream).await, [3]);
    });
}

#[tokio::test]
async fn a_test_can_end_a_lease() {
    let store = Memory::new();
    store.grant(LEASE, seconds(5)).await.unwrap();
    put_leased(&store, "k").await;
    assert!(store.expire(LEASE));
    assert!(!store.expire(LEASE));
    let absent = store
        .txn(Txn::new().when(Compare::absent("k")))
        .await
        .unwrap();
    assert!(absent.succeeded);
}

#[tokio::test]
async fn refusals_have_kinds_and_the_texts_of_etcd() {
    let store = Memory::new();
    let error = store.revoke(LEASE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "etcdserver: requested lease not found");
    let error = store.range(Range::new("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = store.auth(AuthRequest::Enable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = store.status(Some("elsewhere".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn it_is_a_cluster_of_one_member() {
    let store = Memory::new();
    put(&store, "key").await;
    let members = store.members().await.unwrap();
    let status = store.status(None).await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, "mem");
    assert_eq!(status.leader, members[0].id);
    assert_eq!(status.db_size, 4);
    assert!(store.alarms().await.unwrap().is_empty());
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn leases_may_be_kept_for_ever() {
    let store = Memory::new();
    store.delay_expiry(Duration::MAX);
    store.grant(LEASE, seconds(5)).await.unwrap();
    tokio::time::sleep(seconds(3600)).await;
    assert_eq!(store.leases().await.unwrap(), [LEASE]);
    store.delay_expiry(Duration::ZERO);
    assert!(store.leases().await.unwrap().is_empty());
}

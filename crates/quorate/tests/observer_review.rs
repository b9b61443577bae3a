//! Observers where it is narrow: polls given up, runtimes that end, stores that are replaced.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use quorate::{
    Client, ErrorKind, Granted, Header, KeyRange, LeaseId, LeaseStatus, Observed, Observer, Range,
    RangeResult, Result, Revision, Txn, TxnResult, WatchRequest,
    backend::{
        Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Memory, Status, Watching,
        fault::{CallKind, Fate, Fault, Faults, Partition},
    },
};
use support::{until, world::World};
use tokio::{runtime::Runtime, time::timeout};

fn all() -> KeyRange {
    KeyRange::prefix("k/")
}

async fn next(observer: &mut Observer) -> Observed {
    let told = timeout(Duration::from_secs(60), observer.next()).await;
    told.expect("nothing is told")
        .expect("an observer never just ends")
        .unwrap()
}

async fn revision(observer: &mut Observer) -> Revision {
    match next(observer).await {
        Observed::Changes(changes) => changes.revision(),
        Observed::Reset(all) => panic!("a reset: {all:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_was_polled_before_is_opened_without_a_change() {
    let ours = World::memory().join();
    for mut observer in [
        ours.client.observe(all()),
        ours.client.observe(all()).from_now(),
    ] {
        ours.faults
            .next(CallKind::Watch, Fate::DelayReply(Duration::from_secs(1)));
        let mut told = 0;
        for _ in 0..2 {
            told += usize::from(observer.next().now_or_never().is_some());
            let opened = timeout(Duration::from_secs(10), observer.opened()).await;
            opened
                .expect("nobody changes anything, and nobody has to")
                .unwrap();
            told += usize::from(observer.next().now_or_never().is_some());
        }
        assert!(told <= 1);
        let put = ours.client.put("k/1", "v").await.unwrap();
        assert_eq!(revision(&mut observer).await, put);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn an_observer_outlives_the_runtime_in_which_another_began() {
    let (first, second) = (runtime(), runtime());
    let client = Client::with_backend(Arc::new(Memory::new()));
    let mut early = client.observe(all());
    let mut late = client.observe(all());
    first.block_on(next(&mut early));
    second.block_on(next(&mut late));
    drop(first);
    second.block_on(async {
        let put = client.put("k/1", "v").await.unwrap();
        let told = timeout(Duration::from_secs(5), revision(&mut late)).await;
        assert_eq!(told.expect("it goes on"), put);
        let mut new = client.observe(all());
        let told = timeout(Duration::from_secs(5), next(&mut new)).await;
        told.expect("a new one begins");
    });
}

#[test]
fn an_observer_that_waits_for_a_watch_outlives_the_runtime_that_opens_it() {
    let (first, second) = (runtime(), runtime());
    let ours = second.block_on(async { World::memory().join() });
    ours.faults.partition(Partition::Hang);
    let mut early = ours.client.observe(all());
    let mut late = ours.client.observe(all());
    let asked = |runtime: &Runtime, observer: &mut Observer| {
        let told = runtime.block_on(async {
            let told = observer.next().now_or_never();
            tokio::task::yield_now().await;
            told
        });
        assert!(told.is_none(), "{told:?}");
    };
    asked(&first, &mut early);
    asked(&second, &mut late);
    drop(first);
    ours.faults.heal();
    second.block_on(async {
        let told = timeout(Duration::from_secs(5), next(&mut late)).await;
        told.expect("another watch is opened");
    });
}

#[tokio::test(start_paused = true)]
async fn observers_of_the_past_share_one_watch_once_they_are_in_the_present() {
    let world = World::memory();
    let ours = world.join();
    let writer = world.observer();
    let first = writer.put("k/1", "0").await.unwrap();
    for n in 1..5000 {
        writer.put("k/1", n.to_string()).await.unwrap();
    }
    let mut observers = [(); 3].map(|()| ours.client.observe(all()).from(first));
    for observer in &mut observers {
        for n in 0..5000 {
            assert_eq!(revision(observer).await, Revision(first.0 + n));
        }
    }
    let put = writer.put("k/1", "x").await.unwrap();
    for observer in &mut observers {
        assert_eq!(revision(observer).await, put);
    }
    until("their own watches are closed", async || {
        ours.faults.open_streams(CallKind::Watch) == 1
    })
    .await;
    assert!(
        ours.faults.count(CallKind::Watch) <= 4,
        "{} watches",
        ours.faults.count(CallKind::Watch)
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_from_the_oldest_that_started_over_seeks_the_oldest_no_more() {
    let world = World::memory();
    let ours = world.join();
    let writer = world.observer();
    writer.put("k/1", "v").await.unwrap();
    let mut observer = ours.client.observe(all()).from_oldest();
    observer.opened().await.unwrap();
    ours.faults
        .next(CallKind::Watch, Fate::Refuse(ErrorKind::ClusterChanged));
    assert!(matches!(next(&mut observer).await, Observed::Reset(_)));
    ours.faults.partition(Partition::Refuse);
    writer.delete("k/1").await.unwrap();
    let last = writer.put("k/2", "v").await.unwrap();
    writer.compact(last, true).await.unwrap();
    ours.faults.heal();
    let told = next(&mut observer).await;
    assert!(
        matches!(told, Observed::Reset(_)),
        "a gap before {told:?}: the deletion is not told"
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_from_the_oldest_that_is_open_misses_nothing_by_a_compaction() {
    for others in [false, true] {
        let world = World::memory();
        let ours = world.join();
        let writer = world.observer();
        writer.put("k/1", "v").await.unwrap();
        let mut other = ours.client.observe(all());
        if others {
            next(&mut other).await;
        }
        let mut observer = ours.client.observe(all()).from_oldest();
        observer.opened().await.unwrap();
        let written = [
            writer.put("k/1", "w").await.unwrap(),
            writer.put("k/1", "x").await.unwrap(),
        ];
        writer.compact(written[1], true).await.unwrap();
        let told = [revision(&mut observer).await, revision(&mut observer).await];
        assert_eq!(told, written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_deletion_is_compacted_away_is_not_waited_for() {
    let world = World::memory();
    let client = world.observer();
    let put = client.put("k/1", "v").await.unwrap();
    client.delete("k/1").await.unwrap();
    let last = client.put("other", "v").await.unwrap();
    client.compact(last, true).await.unwrap();
    let mut observer = client.observe("k/1").from(put.next()).until_deleted();
    let Observed::Reset(state) = next(&mut observer).await else {
        panic!("no reset")
    };
    assert_eq!(state.kvs, []);
    let end = timeout(Duration::from_secs(10), observer.next()).await;
    assert!(end.expect("the key is gone").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_reads_for_itself_notices_another_cluster() {
    let (ours, faults, switch) = switched();
    let mut first = Revision::ZERO;
    for _ in 0..20 {
        first = ours.put("k/1", "old").await.unwrap();
    }
    let mut observer = ours.observe(all()).from(Revision(5));
    observer.opened().await.unwrap();
    // Its own watch is opened only after the store was replaced.
    faults.next(CallKind::Watch, Fate::Refuse(ErrorKind::Unavailable));
    assert!(observer.next().now_or_never().is_none());
    let other = Memory::new();
    let writer = Client::with_backend(Arc::new(other.clone()));
    writer.put("k/1", "new").await.unwrap();
    switch.to(Arc::new(other));
    faults.cut_watches();
    // Somebody else is told that it is another one.
    let told = ours.get("k/1").await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::ClusterChanged);
    let put = writer.put("k/1", "newer").await.unwrap();
    assert!(put < first);
    let Observed::Reset(state) = next(&mut observer).await else {
        panic!("no reset")
    };
    assert_eq!(state.kvs[0].value, "newer");
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_told_by_its_id_though_its_revisions_are_higher() {
    let (ours, _faults, switch) = switched();
    ours.put("k/1", "old").await.unwrap();
    let other = Memory::new();
    let writer = Client::with_backend(Arc::new(other.clone()));
    for _ in 0..100 {
        writer.put("k/1", "new").await.unwrap();
    }
    switch.to(Arc::new(other));
    let told = ours.get("k/1").await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::ClusterChanged);
    assert_eq!(ours.get("k/1").await.unwrap().unwrap().value, "new");
    // What was written there is written.
    switch.to(Arc::new(Memory::new()));
    let told = ours.put("k/2", "newer").await.unwrap_err();
    assert!(told.kind() == ErrorKind::ClusterChanged && told.is_indefinite());
    assert_eq!(ours.get("k/2").await.unwrap().unwrap().value, "newer");
}

#[tokio::test(start_paused = true)]
async fn who_observes_leaders_goes_on_in_another_cluster() {
    let (ours, faults, switch) = switched();
    let election = ours.election("e");
    let mut leaders = election.observe();
    assert_eq!(leaders.next().await.unwrap().unwrap(), None);
    ours.put("x", "x").await.unwrap();
    assert!(leaders.next().now_or_never().is_none());
    switch.to(Arc::new(Memory::new()));
    faults.cut_watches();
    let follower = tokio::spawn(async move { leaders.next().await.unwrap() });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let candidate = ours.election("e").value("me");
    let _leads = loop {
        match candidate.campaign().await {
            Ok(leads) => break leads,
            // Its session was of the former cluster.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ClusterChanged),
        }
    };
    let told = timeout(Duration::from_secs(30), follower).await;
    let leader = told.expect("it hears of it").unwrap().unwrap();
    assert_eq!(leader.unwrap().value, "me");
}

/// A client whose store can be replaced by another, and what can go wrong between them.
fn switched() -> (Client, Faults, Switch) {
    let switch = Switch(Arc::new(Mutex::new(Arc::new(Memory::new()))));
    let fault = Fault::new(Arc::new(switch.clone()));
    let faults = fault.faults();
    (Client::with_backend(Arc::new(fault)), faults, switch)
}

/// An address at which one store, and then another, is found.
#[derive(Clone, Debug)]
struct Switch(Arc<Mutex<Arc<dyn Backend>>>);

impl Switch {
    fn to(&self, store: Arc<dyn Backend>) {
        *self.0.lock().unwrap() = store;
    }
}

macro_rules! pass_on {
    ($($method:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $method(&self, $($argument: $kind),*) -> BoxFuture<'_, Result<$answer>> {
            let store = Arc::clone(&self.0.lock().unwrap());
            Box::pin(async move { store.$method($($argument),*).await })
        })*
    };
}

impl Backend for Switch {
    pass_on! {
        range(request: Range) -> RangeResult;
        txn(request: Txn) -> TxnResult;
        compact(revision: Revision, physical: bool) -> Header;
        watch(request: WatchRequest) -> Watching;
        grant(id: LeaseId, ttl: Duration) -> Granted;
        revoke(id: LeaseId) -> Header;
        keep_alive() -> Box<dyn BeatStream>;
        lease_status(id: LeaseId, keys: bool) -> LeaseStatus;
        leases() -> Vec<LeaseId>;
        members() -> Vec<Member>;
        status(endpoint: Option<String>) -> Status;
        alarms() -> Vec<Alarm>;
        auth(request: AuthRequest) -> AuthResponse;
    }

    fn endpoints(&self) -> Vec<String> {
        self.0.lock().unwrap().endpoints()
    }
}

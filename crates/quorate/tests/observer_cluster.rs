//! Observers of real clusters whose members die, hang, are restarted, forget their tokens or their data.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use quorate::{
    Client, ConnectOptions, KeyRange, Observed, Observer, Op, Revision, WatchRequest,
    backend::{
        AuthRequest, Backend, Permission, PermissionKind,
        etcd::{Etcd, EtcdOptions, User},
    },
};
use support::{etcd::Cluster, until};
use tokio::time::{Instant, sleep, timeout};

fn client(cluster: &Cluster, user: Option<User>) -> Client {
    let options = EtcdOptions {
        endpoints: cluster.endpoints(),
        attempt_timeout: Duration::from_millis(700),
        user,
        ..Default::default()
    };
    let etcd: Arc<dyn Backend> = Arc::new(Etcd::new(options).unwrap());
    Client::with_backend_and(etcd, ConnectOptions::memory())
}

fn all() -> KeyRange {
    KeyRange::prefix("k/")
}

async fn next(observer: &mut Observer) -> Observed {
    let told = timeout(Duration::from_secs(30), observer.try_next()).await;
    told.expect("nothing is told")
        .unwrap()
        .expect("an observer never just ends")
}

/// The revisions that an observer tells up to `last`.
async fn revisions(observer: &mut Observer, last: Revision) -> Vec<Revision> {
    let mut told = Vec::new();
    while told.last().is_none_or(|told| *told < last) {
        match next(observer).await {
            Observed::Changes(changes) => told.push(changes.revision()),
            Observed::Reset(_) => panic!("no history was lost"),
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_members_hang_die_and_are_restarted() {
    let cluster = Cluster::builder().members(3).fast().start();
    let writer = client(&cluster, None);
    let ours = client(&cluster, None);
    let start = writer.put("k/0", "v").await.unwrap();
    let mut observer = ours.observe(all());
    let Observed::Reset(state) = next(&mut observer).await else {
        panic!("no state")
    };
    assert!(state.revision >= start);
    let observing = tokio::spawn(async move {
        let mut told: Vec<Revision> = Vec::new();
        while let Observed::Changes(changes) = next(&mut observer).await {
            assert!(told.last().is_none_or(|last| *last < changes.revision()));
            told.push(changes.revision());
            if changes.events()[0].key() == "k/end" {
                return told;
            }
        }
        panic!("no history was lost");
    });
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let (busy, written) = (writer.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&written);
    let writing = tokio::spawn(async move {
        let mut n = 0;
        while stopped.try_recv().is_err() {
            n += 1;
            // Some have no answer; whether they were made the store tells in the end.
            if busy
                .put(format!("k/{}", n % 20), n.to_string())
                .await
                .is_ok()
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let writes_go_on = async || {
        let enough = written.load(Ordering::Relaxed) + 20;
        until("writes go on", async || {
            written.load(Ordering::Relaxed) >= enough
        })
        .await;
    };
    for _ in 0..2 {
        writes_go_on().await;
        let leader = cluster.leader().expect("a leader");
        cluster.stop(leader);
        until("another member leads", async || {
            cluster.leader().is_some_and(|present| present != leader)
        })
        .await;
        writes_go_on().await;
        cluster.cont(leader);
        let leader = cluster.leader().expect("a leader");
        cluster.kill(leader);
        until("another member leads", async || cluster.leader().is_some()).await;
        writes_go_on().await;
        for index in 0..3 {
            cluster.restart(index);
            until("the member is back", async || cluster.is_healthy(index)).await;
        }
    }
    stop.send(()).unwrap();
    writing.await.unwrap();
    let last = loop {
        if let Ok(last) = writer.put("k/end", "v").await {
            break last;
        }
    };
    let told = observing.await.unwrap();
    // What the store has kept of it.
    let request = WatchRequest::new(all()).start(state.revision.next());
    let mut kept: Vec<Revision> = Vec::new();
    let mut watch = client(&cluster, None).watch(request);
    while kept.last().is_none_or(|newest| *newest < last) {
        let batch = watch.next().await.unwrap().unwrap();
        kept.extend(batch.events.iter().map(quorate::Event::revision));
    }
    let end = told.len();
    assert_eq!(told, kept[..end]);
    assert!(end > 100, "{end} changes are few");
}

#[tokio::test]
async fn transactions_in_fragments_are_told_whole() {
    let cluster = Cluster::builder().start();
    let client = client(&cluster, None);
    let mut observer = client.observe(all());
    next(&mut observer).await;
    // Fragments hold no more than 1.5 MiB; together with the previous values these need several.
    let large = "x".repeat(300 << 10);
    for _ in 0..3 {
        let keys = (0..4).map(|n| Op::put(format!("k/{n}"), &*large));
        let txn = keys.fold(client.txn(), |txn, op| txn.then(op));
        let done = txn.commit().await.unwrap();
        let mut past = client.observe(all()).from(done.header.revision).prev_kv();
        for observer in [&mut observer, &mut past] {
            let Observed::Changes(changes) = next(observer).await else {
                panic!("no history was lost")
            };
            assert_eq!(changes.revision(), done.header.revision);
            assert_eq!(changes.events().len(), 4);
        }
    }
}

#[tokio::test]
async fn an_observer_outlives_its_token() {
    let cluster = Cluster::builder().flag("--auth-token-ttl=1").start();
    let root = client(&cluster, None);
    let name = |name: &str| name.to_owned();
    let user = |name: &str| User {
        name: name.into(),
        password: "secret".into(),
    };
    for request in [
        AuthRequest::UserAdd {
            name: name("root"),
            password: Some(name("secret")),
        },
        AuthRequest::UserAdd {
            name: name("user"),
            password: Some(name("secret")),
        },
        AuthRequest::RoleAdd { name: name("role") },
        AuthRequest::RoleGrant {
            name: name("role"),
            permission: Permission {
                kind: PermissionKind::ReadWrite,
                keys: all(),
            },
        },
        AuthRequest::UserGrantRole {
            name: name("root"),
            role: name("root"),
        },
        AuthRequest::UserGrantRole {
            name: name("user"),
            role: name("role"),
        },
        AuthRequest::Enable,
    ] {
        root.backend().auth(request).await.unwrap();
    }
    let ours = client(&cluster, Some(user("user")));
    let writer = client(&cluster, Some(user("root")));
    let mut observer = ours.observe(all());
    next(&mut observer).await;
    let mut last = Revision::ZERO;
    for round in 0..3 {
        // etcd drops expired tokens once a second, and asking for one prolongs it.
        sleep(Duration::from_millis(2500)).await;
        let first = writer.put("k/1", "v").await.unwrap();
        last = writer.put("k/1", "w").await.unwrap();
        assert_eq!(revisions(&mut observer, last).await, [first, last]);
        if round == 1 {
            // The stream has to be opened again, with a token that is none any more.
            cluster.restart(0);
            until("the member is back", async || cluster.is_healthy(0)).await;
        }
    }
    // One that begins with an expired token.
    sleep(Duration::from_millis(2500)).await;
    let Observed::Reset(state) = next(&mut ours.observe("k/1")).await else {
        panic!("no state")
    };
    assert_eq!(state.kvs[0].mod_revision, last);
}

#[tokio::test]
async fn a_store_that_lost_its_data_is_told_by_a_reset() {
    let cluster = Cluster::builder().start();
    let client = client(&cluster, None);
    let mut last = Revision::ZERO;
    for n in 0..20 {
        last = client.put(format!("k/{n}"), "old").await.unwrap();
    }
    let mut observers = [client.observe(all()), client.observe("k/1")];
    for observer in &mut observers {
        next(observer).await;
    }
    cluster.wipe(0);
    cluster.restart(0);
    until("the member is back", async || cluster.is_healthy(0)).await;
    let begun = Instant::now();
    let put = loop {
        match client.put("k/1", "new").await {
            Ok(put) => break put,
            // The change of the store is reported once.
            Err(error) => println!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
    };
    assert!(put < last);
    for observer in &mut observers {
        // It may have been read before the put.
        loop {
            match next(observer).await {
                Observed::Reset(state) => {
                    assert!(state.revision < last);
                    if state.kvs.iter().any(|kv| kv.value == "new") {
                        assert_eq!(state.kvs.len(), 1);
                        break;
                    }
                }
                Observed::Changes(changes) => {
                    assert_eq!(changes.revision(), put);
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn every_observer_is_told_of_a_lost_store_that_is_further_than_its_own_keys() {
    let cluster = Cluster::builder().start();
    let ours = client(&cluster, None);
    let writer = client(&cluster, None);
    ours.put("k/1", "old").await.unwrap();
    let mut observers: Vec<_> = (0..4)
        .map(|n| ours.observe(KeyRange::prefix(format!("k/{n}"))))
        .collect();
    for observer in &mut observers {
        next(observer).await;
    }
    for _ in 0..50 {
        ours.put("other", "x").await.unwrap();
    }
    cluster.wipe(0);
    cluster.restart(0);
    until("the member is back", async || cluster.is_healthy(0)).await;
    // The new store is soon further than where the observers stand, though not than their client.
    let mut last = Revision::ZERO;
    while last < Revision(12) {
        if let Ok(put) = writer.put("k/1", "new").await {
            last = put;
        }
    }
    for observer in &mut observers {
        assert!(matches!(next(observer).await, Observed::Reset(_)));
    }
}

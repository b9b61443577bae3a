//! The backend for real clusters does against a real etcd what its contract says.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use quorate::{
    Compare, ErrorKind, Event, Key, KeyRange, LeaseId, Op, OpResult, Put, Range, Revision, Txn,
    WatchBatch, WatchRequest,
    backend::{
        AuthRequest, AuthResponse, Backend, Permission, PermissionKind, WatchStream,
        etcd::{Etcd, EtcdOptions},
    },
};
use support::etcd;

fn connect(endpoint: String) -> Etcd {
    Etcd::new(EtcdOptions {
        endpoints: vec![endpoint],
        ..EtcdOptions::default()
    })
    .unwrap()
}

fn shared() -> Etcd {
    connect(etcd::own())
}

/// A prefix that no other test uses.
fn prefix() -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}/",
        std::process::id(),
        USED.fetch_add(1, Ordering::Relaxed)
    )
}

async fn put(etcd: &Etcd, key: &str, value: &str) -> Revision {
    etcd.txn(Txn::new().then(Op::put(key, value)))
        .await
        .unwrap()
        .header
        .revision
}

/// The next batch that has events.
async fn next(stream: &mut Box<dyn WatchStream>) -> quorate::Result<WatchBatch> {
    let patience = Duration::from_secs(10);
    loop {
        let batch = tokio::time::timeout(patience, stream.next())
            .await
            .expect("an event comes");
        match batch.expect("the stream goes on") {
            Ok(batch) if batch.events.is_empty() => (),
            batch => return batch,
        }
    }
}

#[tokio::test]
async fn a_transaction_answers_each_of_its_operations() {
    let (etcd, prefix) = (shared(), prefix());
    let key = Key::from(format!("{prefix}k"));
    let create = Txn::new()
        .when(Compare::absent(&key))
        .then(Op::put(&key, "1"))
        .then(Op::range(KeyRange::prefix(&prefix)))
        .or_else(Op::delete(&key));
    let done = etcd.txn(create.clone()).await.unwrap();
    assert!(done.succeeded);
    assert_eq!(done.results[0], OpResult::Put { prev: None });
    let OpResult::Range(read) = &done.results[1] else {
        panic!("a read is answered by a read: {done:?}");
    };
    assert_eq!(read.kvs[0].value, "1");
    assert_eq!(read.kvs[0].create_revision, done.header.revision);
    let undone = etcd.txn(create).await.unwrap();
    assert!(!undone.succeeded);
    let [OpResult::Delete { deleted: 1, .. }] = &*undone.results else {
        panic!("the key is deleted: {undone:?}");
    };
    let then = etcd
        .range(Range::new(&key).revision(done.header.revision))
        .await
        .unwrap();
    assert_eq!((then.count, then.kvs[0].version), (1, 1));
    assert_eq!(etcd.range(Range::new(&key)).await.unwrap().count, 0);
}

#[tokio::test]
async fn a_refusal_keeps_etcd_s_text_and_is_definite() {
    let (etcd, prefix) = (shared(), prefix());
    let twice = Txn::new()
        .then(Op::put(&prefix, "1"))
        .then(Op::put(&prefix, "2"));
    let error = etcd.txn(twice).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "etcdserver: duplicate key given in txn request"
    );
    assert!(!error.is_indefinite() && !error.is_retryable());
    let error = etcd.revoke(LeaseId(0x7fff)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let future = Range::new("k").revision(Revision(i64::MAX / 2));
    let error = etcd.range(future).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn many_watches_share_a_stream_and_each_sees_its_own_changes() {
    let (etcd, prefix) = (shared(), prefix());
    let key = |n: usize| format!("{prefix}{n}");
    let mut watches = Vec::new();
    for n in 0..20 {
        watches.push(etcd.watch(WatchRequest::new(key(n))).await.unwrap().stream);
    }
    for n in 0..20 {
        put(&etcd, &key(n), "v").await;
    }
    for (n, stream) in watches.iter_mut().enumerate() {
        let batch = next(stream).await.unwrap();
        assert_eq!(batch.events.len(), 1);
        assert_eq!(*batch.events[0].key(), *key(n));
    }
    // A cancelled watch leaves the others alone.
    watches.truncate(1);
    put(&etcd, &key(0), "again").await;
    assert!(
        matches!(&next(&mut watches[0]).await.unwrap().events[0], Event::Put { kv, .. } if kv.value == "again")
    );
    drop(watches);
    // With the last watch the stream ends; the next watch opens another.
    let mut stream = etcd.watch(WatchRequest::new(key(1))).await.unwrap().stream;
    put(&etcd, &key(1), "again").await;
    next(&mut stream).await.unwrap();
}

#[tokio::test]
async fn a_watch_from_the_past_tells_previous_values_and_heeds_filters() {
    let (etcd, prefix) = (shared(), prefix());
    let key = format!("{prefix}k");
    let first = put(&etcd, &key, "1").await;
    put(&etcd, &key, "2").await;
    etcd.txn(Txn::new().then(Op::delete(&key))).await.unwrap();
    let deletes = WatchRequest::new(&key)
        .start(first)
        .prev_kv()
        .deletes_only();
    let mut stream = etcd.watch(deletes).await.unwrap().stream;
    let batch = next(&mut stream).await.unwrap();
    let [
        Event::Delete {
            prev: Some(prev), ..
        },
    ] = &*batch.events
    else {
        panic!("one deletion with what was deleted: {batch:?}");
    };
    assert_eq!((&prev.value, prev.version), (&"2".into(), 2));
}

#[tokio::test]
async fn a_request_for_progress_is_answered_by_a_batch_without_events() {
    let etcd = shared();
    let mut watch = etcd.watch(WatchRequest::new(prefix())).await.unwrap();
    watch.stream.request_progress();
    let sign = tokio::time::timeout(Duration::from_secs(5), watch.stream.next()).await;
    let sign = sign.unwrap().unwrap().unwrap();
    assert!(sign.events.is_empty());
    assert!(sign.header.revision >= watch.created.revision);
}

#[tokio::test]
async fn large_events_come_in_fragments_and_are_put_together_by_revision() {
    let (etcd, prefix) = (shared(), prefix());
    let large = "x".repeat(400 << 10);
    let first = put(&etcd, &format!("{prefix}0"), &large).await;
    for n in 1..12 {
        // Two large values in one revision, more than one fragment holds in four.
        let both = Txn::new()
            .then(Op::put(format!("{prefix}{n}a"), &*large))
            .then(Op::put(format!("{prefix}{n}b"), &*large));
        etcd.txn(both).await.unwrap();
    }
    let request = WatchRequest::new(KeyRange::prefix(&prefix)).start(first);
    let mut stream = etcd.watch(request).await.unwrap().stream;
    let mut seen: Vec<Revision> = Vec::new();
    while seen.len() < 23 {
        let batch = next(&mut stream).await.unwrap();
        let revisions: Vec<_> = batch.events.iter().map(Event::revision).collect();
        // No revision is spread over two batches.
        assert!(seen.last().is_none_or(|last| *last < revisions[0]));
        seen.extend(revisions);
    }
    assert!(seen.is_sorted());
    assert_eq!(
        seen.iter()
            .filter(|revision| **revision == *seen.last().unwrap())
            .count(),
        2
    );
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_without_holding_up_another() {
    let (etcd, prefix) = (shared(), prefix());
    let request = WatchRequest::new(KeyRange::prefix(&prefix));
    let mut slow = etcd.watch(request.clone()).await.unwrap().stream;
    let mut quick = etcd.watch(request).await.unwrap().stream;
    let value = "x".repeat(256 << 10);
    let mut last = Revision::ZERO;
    for n in 0..60 {
        last = put(&etcd, &format!("{prefix}{n}"), &value).await;
        assert_eq!(next(&mut quick).await.unwrap().events[0].revision(), last);
    }
    let mut newest = Revision::ZERO;
    let error = loop {
        match next(&mut slow).await {
            Ok(batch) => newest = batch.events.last().unwrap().revision(),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error}");
    assert!(slow.next().await.is_none());
    // It can go on where it was cut off.
    let rest = WatchRequest::new(KeyRange::prefix(&prefix)).start(newest.next());
    let mut rest = etcd.watch(rest).await.unwrap().stream;
    while newest < last {
        let batch = next(&mut rest).await.unwrap();
        assert_eq!(batch.events[0].revision(), newest.next());
        newest = batch.events.last().unwrap().revision();
    }
}

#[tokio::test]
async fn a_compacted_start_ends_that_watch_alone_and_progress_still_comes() {
    let cluster = etcd::Cluster::builder().start();
    let etcd = connect(cluster.endpoint(0));
    for n in 0..9 {
        put(&etcd, "k", &n.to_string()).await;
    }
    let now = put(&etcd, "k", "last").await;
    etcd.compact(now, true).await.unwrap();
    let error = etcd
        .range(Range::new("k").revision(Revision(2)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compacted);
    let mut other = etcd.watch(WatchRequest::new("other")).await.unwrap().stream;
    let mut old = etcd
        .watch(WatchRequest::new("k").start(Revision(2)))
        .await
        .unwrap()
        .stream;
    let error = next(&mut old).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compacted);
    assert_eq!(error.oldest_revision(), Some(now));
    assert!(old.next().await.is_none());
    other.request_progress();
    let sign = tokio::time::timeout(Duration::from_secs(5), other.next()).await;
    assert!(
        sign.expect("etcd still answers for progress")
            .unwrap()
            .unwrap()
            .events
            .is_empty()
    );
}

#[tokio::test]
async fn leases_are_granted_kept_alive_listed_and_revoked() {
    let (etcd, prefix) = (shared(), prefix());
    let id = LeaseId(0x1234_5678_9abc);
    let granted = etcd.grant(id, Duration::from_millis(9_001)).await.unwrap();
    assert_eq!((granted.id, granted.ttl), (id, Duration::from_secs(10)));
    assert_eq!(
        etcd.grant(id, granted.ttl).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let key = Key::from(format!("{prefix}k"));
    etcd.txn(Txn::new().then(Put::new(&key, "v").lease(id)))
        .await
        .unwrap();
    let status = etcd.lease_status(id, true).await.unwrap();
    assert_eq!(*status.keys, *std::slice::from_ref(&key));
    assert!(status.remaining.is_some());
    assert!(etcd.leases().await.unwrap().contains(&id));
    let mut beats = etcd.keep_alive().await.unwrap();
    beats.send(id).unwrap();
    beats.send(LeaseId(77)).unwrap();
    let beat = beats.next().await.unwrap().unwrap();
    assert_eq!((beat.lease, beat.ttl), (id, granted.ttl));
    let beat = beats.next().await.unwrap().unwrap();
    assert_eq!((beat.lease, beat.ttl), (LeaseId(77), Duration::ZERO));
    etcd.revoke(id).await.unwrap();
    assert_eq!(etcd.lease_status(id, false).await.unwrap().remaining, None);
    assert_eq!(etcd.range(Range::new(&key)).await.unwrap().count, 0);
}

#[tokio::test]
async fn members_status_and_alarms_are_told() {
    let etcd = shared();
    let members = etcd.members().await.unwrap();
    let [member] = &*members else {
        panic!("one member: {members:?}");
    };
    assert_eq!(member.client_urls, etcd.endpoints());
    let status = etcd.status(None).await.unwrap();
    assert_eq!(
        (status.leader, status.header.member_id),
        (member.id, member.id)
    );
    let endpoint = etcd.endpoints().remove(0);
    assert!(
        etcd.status(Some(endpoint.clone()))
            .await
            .unwrap()
            .version
            .starts_with("3.")
    );
    let unlisted = endpoint.replace("127.0.0.1", "localhost");
    assert_eq!(etcd.status(Some(unlisted)).await.unwrap().leader, member.id);
    assert_eq!(etcd.alarms().await.unwrap(), []);
}

#[tokio::test]
async fn users_and_roles_are_administered() {
    let cluster = etcd::Cluster::builder().start();
    let etcd = connect(cluster.endpoint(0));
    let ask = async |request| etcd.auth(request).await;
    let name = |name: &str| name.to_owned();
    let permission = Permission {
        kind: PermissionKind::ReadWrite,
        keys: KeyRange::prefix("mine/"),
    };
    let grant = AuthRequest::RoleGrant {
        name: name("role"),
        permission: permission.clone(),
    };
    let add = |password: Option<&str>| AuthRequest::UserAdd {
        name: name("user"),
        password: password.map(name),
    };
    for request in [
        AuthRequest::RoleAdd { name: name("role") },
        grant,
        add(Some("secret")),
        AuthRequest::UserGrantRole {
            name: name("user"),
            role: name("role"),
        },
        AuthRequest::UserChangePassword {
            name: name("user"),
            password: name("changed"),
        },
    ] {
        assert_eq!(ask(request).await.unwrap(), AuthResponse::Done);
    }
    assert_eq!(
        ask(add(None)).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let permissions = ask(AuthRequest::RolePermissions { name: name("role") })
        .await
        .unwrap();
    assert_eq!(permissions, AuthResponse::Permissions(vec![permission]));
    let names =
        |names: &[&str]| AuthResponse::Names(names.iter().map(ToString::to_string).collect());
    assert_eq!(ask(AuthRequest::UserList).await.unwrap(), names(&["user"]));
    assert_eq!(ask(AuthRequest::RoleList).await.unwrap(), names(&["role"]));
    assert_eq!(
        ask(AuthRequest::UserRoles { name: name("user") })
            .await
            .unwrap(),
        names(&["role"])
    );
    let revoke = AuthRequest::RoleRevoke {
        name: name("role"),
        keys: KeyRange::prefix("mine/"),
    };
    for request in [
        revoke,
        AuthRequest::UserRevokeRole {
            name: name("user"),
            role: name("role"),
        },
        AuthRequest::RoleDelete { name: name("role") },
        AuthRequest::UserDelete { name: name("user") },
    ] {
        assert_eq!(ask(request).await.unwrap(), AuthResponse::Done);
    }
    let gone = ask(AuthRequest::UserRoles { name: name("user") })
        .await
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    match ask(AuthRequest::Status).await {
        Ok(AuthResponse::Status { enabled, .. }) => assert!(!enabled),
        // etcd 3.4 has no such call.
        outcome => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unsupported),
    }
}

#[tokio::test]
async fn closing_the_backend_ends_its_watches() {
    let etcd = shared();
    let mut stream = etcd
        .watch(WatchRequest::new(prefix()))
        .await
        .unwrap()
        .stream;
    drop(etcd);
    let end = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await
        .unwrap();
    assert_eq!(end.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(Pin::new(&mut stream).next().await.is_none());
}

#[test]
fn a_backend_outlives_the_runtime_that_connected_it() {
    let etcd = shared();
    for _ in 0..2 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(runtime.block_on(etcd.range(Range::new("k"))).is_ok());
    }
    // A connection that is cut short with its runtime is made again on the next.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let interrupted = shared();
    let begun = async {
        tokio::select! {
            biased;
            _ = interrupted.range(Range::new("k")) => panic!("nothing is answered at once"),
            () = std::future::ready(()) => (),
        }
    };
    runtime.block_on(begun);
    drop(runtime);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert!(runtime.block_on(interrupted.range(Range::new("k"))).is_ok());
}

#[tokio::test]
async fn without_a_server_the_error_names_each_endpoint_with_its_reason() {
    let etcd = Etcd::new(EtcdOptions {
        endpoints: vec!["http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()],
        ..EtcdOptions::default()
    })
    .unwrap();
    let begun = Instant::now();
    let error = etcd
        .txn(Txn::new().then(Op::put("k", "v")))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no etcd server answered: http://127.0.0.1:1 (connection refused), \
         http://127.0.0.1:2 (connection refused)"
    );
    assert!(error.is_retryable() && !error.is_indefinite());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[cfg(feature = "raw")]
#[tokio::test]
async fn the_wire_crate_s_clients_are_at_hand() {
    use quorate_wire::v3lockpb::LockRequest;

    let etcd = shared();
    let request = LockRequest {
        name: prefix().into(),
        lease: 0,
    };
    let raw = etcd.raw().await.unwrap();
    let locked = raw.lock().lock(request).await.unwrap().into_inner();
    assert!(!locked.key.is_empty());
}

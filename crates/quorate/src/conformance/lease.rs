//! Leases: what lives by them, their ends, and keepalives.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::{
    Subject,
    subject::{assert_refused, beat, brief, free_lease, soon},
};
use crate::{ErrorKind, LeaseId, Op, Put, Txn, WatchRequest};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

pub async fn a_lease_is_granted_with_the_caller_s_id_and_at_least_its_time(subject: &Subject) {
    let id = free_lease();
    let ttl = Duration::from_millis(59_001);
    let granted = subject.backend().grant(id, ttl).await.unwrap();
    assert_eq!((granted.id, granted.ttl), (id, Duration::from_secs(60)));
    assert!(granted.header.revision.0 >= 1);
    subject.backend().revoke(id).await.unwrap();
}

pub async fn the_shortest_lease_lasts_a_second_or_more(subject: &Subject) {
    let id = free_lease();
    let granted = subject.backend().grant(id, Duration::ZERO).await;
    // etcd refuses none, and raises it.
    assert!(granted.unwrap().ttl >= Duration::from_secs(1));
}

pub async fn without_an_id_the_store_chooses_one(subject: &Subject) {
    let grant = || subject.backend().grant(LeaseId(0), Duration::from_secs(60));
    let (first, second) = (grant().await.unwrap(), grant().await.unwrap());
    assert!(first.id.0 != 0 && second.id.0 != 0 && first.id != second.id);
    for granted in [first, second] {
        subject.backend().revoke(granted.id).await.unwrap();
    }
}

pub async fn an_id_that_is_taken_is_refused(subject: &Subject) {
    let id = subject.lease(60).await;
    let again = subject.backend().grant(id, Duration::from_secs(60)).await;
    assert_refused(
        again,
        ErrorKind::AlreadyExists,
        "etcdserver: lease already exists",
    );
    subject.backend().revoke(id).await.unwrap();
    subject
        .backend()
        .grant(id, Duration::from_secs(60))
        .await
        .unwrap();
    subject.backend().revoke(id).await.unwrap();
}

pub async fn a_time_to_live_beyond_bounds_is_refused(subject: &Subject) {
    let ttl = Duration::from_secs(9_000_000_001);
    let answer = subject.backend().grant(free_lease(), ttl).await;
    let text = "etcdserver: too large lease TTL";
    assert_refused(answer, ErrorKind::InvalidArgument, text);
}

pub async fn a_revoked_lease_takes_its_keys_along_at_one_revision(subject: &Subject) {
    let lease = subject.lease(60).await;
    for name in ["b", "a"] {
        subject.put_with_lease(name, lease).await;
    }
    let last = subject.put("free", "v").await;
    let mut watched = subject
        .watch(WatchRequest::new(subject.all()).start(last.next()))
        .await;
    let header = subject.backend().revoke(lease).await.unwrap();
    assert!(header.revision > last);
    let told = watched.events(2).await;
    assert_eq!(brief(subject, &told), ["-a", "-b"]);
    assert_eq!(told[0].revision(), told[1].revision());
    let found = subject.read(subject.all()).await;
    assert_eq!(subject.names(&found.kvs), ["free"]);
}

pub async fn an_unknown_lease_cannot_be_revoked(subject: &Subject) {
    let answer = subject.backend().revoke(free_lease()).await;
    assert_refused(answer, ErrorKind::NotFound, NOT_FOUND);
    let lease = subject.lease(60).await;
    subject.backend().revoke(lease).await.unwrap();
    let again = subject.backend().revoke(lease).await;
    assert_refused(again, ErrorKind::NotFound, NOT_FOUND);
}

pub async fn a_put_moves_its_key_to_another_lease_or_to_none(subject: &Subject) {
    let (one, other) = (subject.lease(60).await, subject.lease(60).await);
    subject.put_with_lease("moved", one).await;
    subject.put_with_lease("moved", other).await;
    subject.put_with_lease("freed", one).await;
    subject.put("freed", "v").await;
    assert_eq!(subject.get("freed").await.expect("it was put").lease, None);
    subject.backend().revoke(one).await.unwrap();
    let found = subject.read(subject.all()).await;
    assert_eq!(subject.names(&found.kvs), ["freed", "moved"]);
    subject.backend().revoke(other).await.unwrap();
    let found = subject.read(subject.all()).await;
    assert_eq!(subject.names(&found.kvs), ["freed"]);
}

pub async fn a_key_that_was_deleted_and_put_without_its_lease_survives_it(subject: &Subject) {
    let lease = subject.lease(60).await;
    subject.put_with_lease("k", lease).await;
    subject.delete("k").await;
    subject.put("k", "v").await;
    subject.backend().revoke(lease).await.unwrap();
    assert!(subject.get("k").await.is_some());
}

pub async fn a_lease_tells_its_times_and_its_keys_if_asked(subject: &Subject) {
    let lease = subject.lease(60).await;
    for name in ["a", "b"] {
        subject.put_with_lease(name, lease).await;
    }
    let mut status = subject.backend().lease_status(lease, true).await.unwrap();
    status.keys.sort();
    assert_eq!(
        (status.id, status.keys),
        (lease, vec![subject.key("a"), subject.key("b")])
    );
    assert_eq!(status.granted, Duration::from_secs(60));
    let left = status.remaining.expect("it lives");
    assert!(left > Duration::from_secs(30) && left <= status.granted);
    let status = subject.backend().lease_status(lease, false).await.unwrap();
    assert!(status.keys.is_empty() && status.remaining.is_some());
    subject.backend().revoke(lease).await.unwrap();
}

pub async fn an_unknown_lease_has_no_time_left(subject: &Subject) {
    let id = free_lease();
    let status = subject.backend().lease_status(id, true).await.unwrap();
    assert_eq!(
        (status.id, status.remaining, status.granted),
        (id, None, Duration::ZERO)
    );
    assert!(status.keys.is_empty());
}

pub async fn the_leases_that_live_are_listed(subject: &Subject) {
    let (kept, gone) = (subject.lease(60).await, subject.lease(60).await);
    subject.backend().revoke(gone).await.unwrap();
    let leases = subject.backend().leases().await.unwrap();
    assert!(leases.contains(&kept) && !leases.contains(&gone));
    subject.backend().revoke(kept).await.unwrap();
}

pub async fn a_lease_that_nobody_keeps_alive_expires_with_its_keys(subject: &Subject) {
    let lease = subject.lease(1).await;
    let put = subject.put_with_lease("k", lease).await;
    let request = WatchRequest::new(subject.all()).start(put.next()).prev_kv();
    let mut watched = subject.watch(request).await;
    let told = watched.events(1).await;
    assert_eq!(brief(subject, &told), ["-k"]);
    assert_eq!(subject.get("k").await, None);
    let status = subject.backend().lease_status(lease, false).await.unwrap();
    assert_eq!(status.remaining, None);
    let mut beats = subject.backend().keep_alive().await.unwrap();
    assert_eq!(beat(&mut *beats, lease).await.ttl, Duration::ZERO);
}

pub async fn a_beat_counts_the_time_anew(subject: &Subject) {
    let id = free_lease();
    let ttl = subject
        .backend()
        .grant(id, Duration::from_secs(2))
        .await
        .unwrap()
        .ttl;
    let put = subject.put_with_lease("k", id).await;
    let mut beats = subject.backend().keep_alive().await.unwrap();
    let end = tokio::time::Instant::now() + ttl + Duration::from_secs(1);
    while tokio::time::Instant::now() < end {
        let told = beat(&mut *beats, id).await;
        assert_eq!(told.ttl, ttl);
        assert!(told.header.revision >= put);
        tokio::time::sleep(ttl / 4).await;
    }
    assert!(
        subject.get("k").await.is_some(),
        "it lives longer than its first term"
    );
    subject.backend().revoke(id).await.unwrap();
}

pub async fn a_beat_of_an_unknown_lease_is_answered_with_no_time(subject: &Subject) {
    let mut beats = subject.backend().keep_alive().await.unwrap();
    assert_eq!(beat(&mut *beats, free_lease()).await.ttl, Duration::ZERO);
    // The stream goes on.
    let lease = subject.lease(60).await;
    assert_eq!(beat(&mut *beats, lease).await.ttl, Duration::from_secs(60));
    subject.backend().revoke(lease).await.unwrap();
    assert_eq!(beat(&mut *beats, lease).await.ttl, Duration::ZERO);
}

pub async fn one_stream_keeps_several_leases_alive(subject: &Subject) {
    let (short, long) = (subject.lease(30).await, subject.lease(60).await);
    let mut beats = subject.backend().keep_alive().await.unwrap();
    let order = [short, long, long, short];
    for lease in order {
        beats.send(lease).unwrap();
    }
    let mut told = Vec::new();
    for _ in order {
        let answer = soon(beats.next()).await;
        let answer = answer.expect("the stream goes on").unwrap();
        told.push((answer.lease, answer.ttl.as_secs()));
    }
    told.sort_by_key(|&(_, ttl)| ttl);
    assert_eq!(told, [(short, 30), (short, 30), (long, 60), (long, 60)]);
    for lease in [short, long] {
        subject.backend().revoke(lease).await.unwrap();
    }
}

pub async fn one_transaction_attaches_keys_to_several_leases(subject: &Subject) {
    let (one, other) = (subject.lease(60).await, subject.lease(60).await);
    let put = |name: &str, lease| Op::from(Put::new(subject.key(name), "v").lease(lease));
    let txn = Txn::new()
        .then(put("a", one))
        .then(Txn::new().then(put("b", other)));
    subject.txn(txn).await;
    for (lease, name) in [(one, "a"), (other, "b")] {
        let status = subject.backend().lease_status(lease, true).await.unwrap();
        assert_eq!(status.keys, [subject.key(name)]);
        subject.backend().revoke(lease).await.unwrap();
    }
    assert_eq!(subject.read(subject.all()).await.count, 0);
}

//! What the calls of etcd-api mean, under faults.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use quorate::{
    Client, ErrorKind, Key, Op, Put, Revision, Value,
    backend::fault::{CallKind, Calls, Fate, Partition},
    etcd_api::{Changes, delete, get, set},
};
use support::until;

const TTL: Duration = Duration::from_secs(2);

async fn reads(client: &Client, key: &str) -> Option<String> {
    match get(client, key.as_bytes()).await {
        Ok(value) => Some(String::from_utf8(value).unwrap()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

async fn next(changes: &mut Changes) -> (Key, Option<Value>) {
    let change = changes.next().await.unwrap();
    (change.key, change.value)
}

scenarios! {
    alone

    async fn a_key_is_read_before_the_directory_of_its_name(world: World) {
        let client = world.observer();
        for (key, value) in [("d/a", "1"), ("d/b/c", ""), ("d/e", "2"), ("dd", "3"), ("x/", "4"), ("x/y", "5")] {
            client.put(key, value).await.unwrap();
        }
        for (key, value) in [
            ("d", Some("1\n\n2")),
            ("/d/", Some("1\n\n2")),
            ("d/b", Some("")),
            ("d/b/c", Some("")),
            ("d/a/", None),
            ("d//", None),
            // A key that ends with a slash is one all the same.
            ("x/", Some("4")),
            ("x", Some("4\n5")),
            ("/", Some("1\n\n2\n3\n4\n5")),
        ] {
            assert_eq!(reads(&client, key).await.as_deref(), value, "{key}");
        }
        client.put("d", "6").await.unwrap();
        assert_eq!(reads(&client, "//d").await.as_deref(), Some("6"));
        assert_eq!(reads(&client, "d/").await.as_deref(), Some("1\n\n2"));
        for key in [&b""[..], b"/"] {
            let refused = set(&client, key, b"x", None, None).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
            let refused = delete(&client, key).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        }
    }

    async fn what_is_there_all_the_time_is_found(world: World) {
        let ours = world.join();
        let other = world.observer();
        other.put("d/a", "1").await.unwrap();
        let list = ours.faults.hold_next(Calls::of(CallKind::Range).touching("d/"));
        let client = ours.client.clone();
        let read = tokio::spawn(async move { get(&client, b"d").await });
        list.arrived().await;
        // It is a directory before, and a key thereafter.
        let change = other.txn().then(Op::delete("d/a")).then(Op::put("d", "2"));
        change.commit().await.unwrap();
        list.let_through();
        assert_eq!(read.await.unwrap().unwrap(), b"1");
    }

    async fn a_write_without_an_answer_is_not_sent_again(world: World) {
        let ours = world.join();
        let other = world.observer();
        let lose = || {
            ours.faults.reset_counts();
            ours.faults.next(CallKind::Txn, Fate::LoseReply);
        };
        lose();
        let error = set(&ours.client, b"k", b"1", None, None).await.unwrap_err();
        assert!(error.is_indefinite(), "{error}");
        assert_eq!(ours.faults.count(CallKind::Txn), 1);
        assert_eq!(other.get("k").await.unwrap().unwrap().version, 1);
        lose();
        let error = set(&ours.client, b"k", b"2", Some(b"1"), Some(TTL)).await.unwrap_err();
        assert!(error.is_indefinite(), "{error}");
        assert_eq!(ours.faults.count(CallKind::Txn), 1);
        let kv = other.get("k").await.unwrap().unwrap();
        assert_eq!((kv.version, &*kv.value), (2, &b"2"[..]));
        assert!(kv.lease.is_some());
        until("it vanishes", async || other.get("k").await.unwrap().is_none()).await;
        other.put("k", "3").await.unwrap();
        lose();
        let error = delete(&ours.client, b"k").await.unwrap_err();
        assert!(error.is_indefinite(), "{error}");
        assert_eq!(ours.faults.count(CallKind::Txn), 1);
        assert!(other.get("k").await.unwrap().is_none());
    }

    async fn a_write_over_the_key_of_a_session_leaves_the_session_alone(world: World) {
        let owner = world.observer();
        let session = owner.session().await.unwrap();
        owner.put_with(Put::new("k", "theirs").lease(session.lease())).await.unwrap();
        let client = world.observer();
        set(&client, b"k", b"ours", None, Some(TTL)).await.unwrap();
        let status = owner.lease_status(session.lease()).await.unwrap();
        assert!(status.remaining.is_some());
        until("it vanishes", async || owner.get("k").await.unwrap().is_none()).await;
        assert!(!session.is_lost());
    }

    async fn history_that_is_dropped_is_told_to_who_goes_on_by_an_index(world: World) {
        let ours = world.join();
        let other = world.observer();
        for by_index in [true, false] {
            let first = other.put("k", "1").await.unwrap();
            let mut changes = Changes::open(&ours.client, b"k", Some(first)).await.unwrap();
            assert_eq!(next(&mut changes).await, ("k".into(), Some("1".into())));
            ours.faults.partition(Partition::Hang);
            ours.faults.cut_watches();
            other.put("k", "2").await.unwrap();
            other.delete("k").await.unwrap();
            let last = other.put("k/below", "3").await.unwrap();
            other.compact(last, true).await.unwrap();
            ours.faults.heal();
            if by_index {
                assert!(!changes.go_on_at(first));
                assert!(changes.go_on_at(first.next()));
                let error = changes.next().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Compacted, "{error}");
            } else {
                // For ever, with what is there.
                let seen = ("k/below".into(), Some("3".into()));
                assert_eq!(next(&mut changes).await, seen);
            }
        }
    }

    async fn an_index_that_is_yet_to_come_is_waited_for(world: World) {
        let client = world.observer();
        let now = client.put("k", "1").await.unwrap();
        let mut changes = Changes::open(&client, b"k", Some(Revision(now.0 + 2))).await.unwrap();
        for value in ["2", "3"] {
            client.put("k", value).await.unwrap();
        }
        assert_eq!(next(&mut changes).await, ("k".into(), Some("3".into())));
    }
}

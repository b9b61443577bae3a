//! Keys and values: conditional writes, lists at one revision, and what is refused before it is sent.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use quorate::{
    Compare, ErrorKind, KeyRange, Op, Order, Range, Revision, SortBy, Swap, Txn,
    backend::fault::{CallKind, Fate, Partition},
};
use support::until;

scenarios! {
    alone

    async fn a_key_is_created_once(world: World) {
        let client = world.observer();
        let Swap::Done(revision) = client.put_if_absent("k", "one").await.unwrap() else {
            panic!("there was no key");
        };
        let Swap::Refused(Some(there)) = client.put_if_absent("k", "two").await.unwrap() else {
            panic!("there was a key");
        };
        assert_eq!((there.value.to_string().as_str(), there.mod_revision), ("one", revision));
        assert_eq!(there.create_revision, revision);
    }

    async fn a_key_is_written_at_the_revision_that_was_read(world: World) {
        let client = world.observer();
        let absent = client.put_if_revision("k", Revision::ZERO, "one").await.unwrap();
        let Swap::Done(first) = absent else { panic!("{absent:?}") };
        let refused = client.put_if_revision("k", first.previous(), "two").await.unwrap();
        assert!(matches!(refused, Swap::Refused(Some(kv)) if kv.mod_revision == first));
        assert!(client.put_if_revision("k", first, "two").await.unwrap().is_done());
        let gone = client.put_if_revision("none", first, "x").await.unwrap();
        assert_eq!(gone, Swap::Refused(None));
    }

    async fn test_and_set_tells_no_key_from_an_empty_value(world: World) {
        let client = world.observer();
        assert_eq!(client.test_and_set("k", Some(""), "x").await.unwrap(), Swap::Refused(None));
        assert!(client.test_and_set("k", None::<&str>, "").await.unwrap().is_done());
        assert!(!client.test_and_set("k", None::<&str>, "x").await.unwrap().is_done());
        assert!(client.test_and_set("k", Some(""), "x").await.unwrap().is_done());
        let refused = client.test_and_set("k", Some("y"), "z").await.unwrap();
        assert!(matches!(refused, Swap::Refused(Some(kv)) if kv.value == "x"));
        assert!(client.test_and_set("k", Some("x"), "x").await.unwrap().is_done());
    }

    async fn an_update_loses_nothing_under_contention(world: World) {
        let increments = (0..4).map(|_| {
            let client = world.observer();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let more = client.update("count", |kv| {
                        let count = kv.map_or(0, |kv| kv.value.as_str().unwrap().parse().unwrap());
                        Some((count + 1_u32).to_string())
                    });
                    assert!(more.await.unwrap().is_some());
                }
            })
        });
        for increment in join_all(increments).await {
            increment.unwrap();
        }
        let client = world.observer();
        assert_eq!(client.get("count").await.unwrap().unwrap().value, "40");
        let unchanged = client.update("count", |_| None::<&str>).await.unwrap();
        assert_eq!(unchanged, None);
        let kv = client.get("count").await.unwrap().unwrap();
        assert_eq!((kv.value.to_string().as_str(), kv.version), ("40", 40));
    }

    async fn a_write_without_an_answer_is_not_repeated(world: World) {
        let ours = world.join();
        for fate in [Fate::LoseReply, Fate::LoseRequest] {
            ours.faults.next(CallKind::Txn, fate);
            assert!(ours.client.put("k", "v").await.unwrap_err().is_indefinite());
        }
        assert_eq!(ours.faults.count(CallKind::Txn), 2);
        let kv = world.observer().get("k").await.unwrap().unwrap();
        assert_eq!(kv.version, 1);
        ours.faults.partition(Partition::Refuse);
        assert!(!ours.client.put("k", "v").await.unwrap_err().is_indefinite());
    }

    async fn pages_show_one_revision_while_writes_go_on(world: World) {
        let client = world.observer();
        for n in 0..10 {
            client.put(format!("k/{n}"), "old").await.unwrap();
        }
        let pages = client.pages(Range::new(KeyRange::prefix("k/")).limit(3));
        let mut pages = std::pin::pin!(pages);
        let mut seen = Vec::new();
        let mut shown = None;
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            assert_eq!(page.header.revision, *shown.get_or_insert(page.header.revision));
            assert!(page.kvs.len() <= 3);
            seen.extend(page.kvs);
            // Before, behind and within what is yet to be read.
            client.put(format!("k/{}", seen.len()), "new").await.unwrap();
            client.put(format!("k/9{}", seen.len()), "new").await.unwrap();
            client.delete("k/9").await.unwrap();
        }
        let keys: Vec<_> = seen.iter().map(|kv| kv.key.to_string()).collect();
        let expected: Vec<_> = (0..10).map(|n| format!("k/{n}")).collect();
        assert_eq!(keys, expected);
        assert!(seen.iter().all(|kv| kv.value == "old"));
    }

    async fn pages_end_with_an_error_when_their_revision_is_compacted_away(world: World) {
        let client = world.observer();
        for n in 0..4 {
            client.put(format!("k/{n}"), "old").await.unwrap();
        }
        let pages = client.pages(Range::new(KeyRange::prefix("k/")).limit(2));
        let mut pages = std::pin::pin!(pages);
        assert_eq!(pages.next().await.unwrap().unwrap().kvs.len(), 2);
        let present = client.put("k/0", "new").await.unwrap();
        client.compact(present, true).await.unwrap();
        let error = pages.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Compacted);
        assert!(pages.next().await.is_none());
    }

    async fn a_key_with_a_time_to_live_vanishes(world: World) {
        let client = world.observer();
        let lease = client.put_with_ttl("k", "v", Duration::from_secs(1)).await.unwrap().lease();
        assert_eq!(client.get("k").await.unwrap().unwrap().lease, Some(lease));
        until("it is gone", async || client.get("k").await.unwrap().is_none()).await;
    }

    async fn a_key_with_a_time_to_live_leaves_no_lease_when_it_is_refused(world: World) {
        let ours = world.join();
        ours.faults.next(CallKind::Txn, Fate::Refuse(ErrorKind::PermissionDenied));
        let refused = ours.client.put_with_ttl("k", "v", Duration::from_secs(600)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(world.observer().leases().await.unwrap().is_empty());
    }

    async fn what_etcd_would_refuse_is_not_sent(world: World) {
        let ours = world.join();
        let txn = || ours.client.txn();
        let many = |count| (0..count).map(|n| Op::put(format!("k/{n}"), "v"));
        let refused = [
            many(129).fold(txn(), |txn, op| txn.then(op)),
            many(129).fold(txn(), |txn, op| txn.or_else(op)),
            (0..129).fold(txn(), |txn, n| txn.when(Compare::absent(format!("k/{n}")))),
            txn().then(Op::put("k", "v")).then(Op::put("k", "w")),
            txn().or_else(Op::put("k", "v")).or_else(Op::delete(KeyRange::prefix("k"))),
            txn().then(Op::put("k", "v")).then(Txn::new().or_else(Op::put("k", "w"))),
            txn().then(Op::put("", "v")),
            txn().then(Op::range("")),
            txn().when(Compare::present("")),
            txn().then(Range::new("k").revision(Revision(1))),
            txn().then(Txn::new().then(Range::new("k").revision(Revision(1)))),
        ];
        for txn in refused {
            let error = txn.commit().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.is_indefinite());
        }
        assert_eq!(ours.faults.total(), 0);
        // What lies within the bounds is taken.
        let most = many(128).fold(txn(), |txn, op| txn.then(op));
        assert!(most.commit().await.unwrap().succeeded);
        let both = txn().then(Op::put("k", "v")).or_else(Op::put("k", "w"));
        assert!(both.commit().await.unwrap().succeeded);
    }

    async fn pages_with_an_order_are_not_asked_for(world: World) {
        let ours = world.join();
        let range = Range::new(KeyRange::all()).order(SortBy::Value, Order::Ascending);
        let page = ours.client.pages(range).next().await.unwrap();
        assert_eq!(page.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(ours.faults.total(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_deadline_whatever_hangs() {
    let ours = support::world::World::memory().join();
    ours.faults.partition(Partition::Hang);
    let begun = tokio::time::Instant::now();
    let error = ours.client.get("k").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_indefinite()),
        (ErrorKind::Timeout, false)
    );
    let error = ours.client.put("k", "v").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_indefinite()),
        (ErrorKind::Timeout, true)
    );
    assert!(begun.elapsed() < Duration::from_secs(11));
}

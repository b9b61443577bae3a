//! Trackers: complete at once, told of every change, and right again after whatever went wrong.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Change, Client, ConnectOptions, ErrorKind, Instance, Instances, Layout, Op, Service, Tracker,
    backend::fault::{CallKind, Fate, Partition},
};
use support::{machine::Machine, until, world::World};

const NAME: &str = "api";

fn api(client: &Client) -> Service {
    client.service(NAME)
}

/// Writes an instance as another program would.
async fn put(client: &Client, id: &str, address: &str) {
    let value = format!(r#"{{"address":"{address}"}}"#);
    client
        .put(format!("services/{NAME}/{id}"), value)
        .await
        .unwrap();
}

async fn delete(client: &Client, id: &str) {
    client
        .delete(format!("services/{NAME}/{id}"))
        .await
        .unwrap();
}

fn addresses(instances: &Instances) -> BTreeMap<String, String> {
    let each =
        |(id, instance): (&Arc<str>, &Arc<Instance>)| (id.to_string(), instance.address.clone());
    instances.iter().map(each).collect()
}

fn ids(instances: &Instances) -> Vec<String> {
    addresses(instances).into_keys().collect()
}

/// What a reader makes of the changes that it is told.
fn follow(known: &mut BTreeMap<String, String>, change: Change) {
    match change {
        Change::Joined(id, instance) => {
            let before = known.insert(id.to_string(), instance.address.clone());
            assert_eq!(before, None, "{id} joined twice");
        }
        Change::Updated(id, instance) => {
            let before = known.insert(id.to_string(), instance.address.clone());
            assert!(before.is_some(), "{id} changed and was not there");
        }
        Change::Left(id) => assert!(known.remove(&*id).is_some(), "{id} left and was not there"),
    }
}

async fn until_known(tracker: &Tracker, ids: &[&str]) {
    until("the tracker knows them", async || {
        self::ids(&tracker.peek()) == ids
    })
    .await;
}

fn joined(id: &str, address: &str) -> Change {
    Change::Joined(id.into(), Arc::new(Instance::new(address)))
}

/// Changes one instance so many times, each a revision of its own.
async fn change_often(client: &Client, times: u32) {
    let changes = (0..times).map(|n| put(client, "a", if n % 2 == 0 { "h:0" } else { "h:1" }));
    futures_util::stream::iter(changes)
        .buffered(64)
        .collect::<()>()
        .await;
}

/// What a reader knows once it was told all there is to tell.
fn known_to(
    tracker: &mut Tracker,
    known: &mut BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    while let Some(change) = tracker.next().now_or_never() {
        follow(known, change.unwrap());
    }
    known.clone()
}

scenarios! {
    async fn a_tracker_is_complete_when_it_is_there(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        put(&client, "b", "h:2").await;
        client.put("services/api2/c", r#"{"address":"h:3"}"#).await.unwrap();
        let revision = client.put("services/api/deeper/d", "?").await.unwrap();
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let now = tracker.snapshot();
        assert_eq!(ids(&now), ["a", "b"]);
        assert_eq!((now.len(), now.is_empty()), (2, false));
        assert!(now.revision() >= revision);
        assert_eq!(now.get("a").unwrap().address, "h:1");
        assert_eq!(now.get("c"), None);
        assert_eq!(now.malformed().count(), 0);
        assert!(!tracker.is_stale());
        assert!(tracker.next().now_or_never().is_none());
    }

    async fn each_change_is_told_in_order(world: World) {
        let client = world.observer();
        let mut tracker = api(&world.observer()).track().await.unwrap();
        put(&client, "a", "h:1").await;
        assert_eq!(tracker.next().await.unwrap(), joined("a", "h:1"));
        put(&client, "b", "h:2").await;
        assert_eq!(tracker.next().await.unwrap(), joined("b", "h:2"));
        put(&client, "a", "h:3").await;
        let updated = Change::Updated("a".into(), Arc::new(Instance::new("h:3")));
        assert_eq!(tracker.next().await.unwrap(), updated);
        // The same again is no change.
        put(&client, "a", "h:3").await;
        delete(&client, "b").await;
        assert_eq!(tracker.next().await.unwrap(), Change::Left("b".into()));
        assert!(tracker.next().now_or_never().is_none());
    }

    async fn changed_waits_and_returns_what_is_there(world: World) {
        let client = world.observer();
        let mut tracker = api(&world.observer()).track().await.unwrap();
        put(&client, "a", "h:1").await;
        put(&client, "b", "h:2").await;
        let mut now = tracker.changed().await.unwrap();
        while now.len() < 2 {
            now = tracker.changed().await.unwrap();
        }
        // It was a look.
        assert!(tracker.next().now_or_never().is_none());
        assert!(tracker.changed().now_or_never().is_none());
    }

    async fn a_slow_reader_skips_states_and_ends_on_the_last(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        put(&client, "b", "h:2").await;
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let mut known = addresses(&tracker.snapshot());
        for round in 0..20 {
            put(&client, "a", &format!("h:{round}")).await;
            put(&client, &format!("c-{round}"), "h:3").await;
            delete(&client, &format!("c-{round}")).await;
        }
        delete(&client, "b").await;
        put(&client, "d", "h:4").await;
        until_known(&tracker, &["a", "d"]).await;
        let mut told = 0;
        while let Some(change) = tracker.next().now_or_never() {
            follow(&mut known, change.unwrap());
            told += 1;
        }
        assert_eq!(known, addresses(&tracker.peek()));
        assert_eq!((known["a"].as_str(), told), ("h:19", 3));
    }

    async fn who_is_lapped_is_told_the_difference(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        put(&client, "b", "h:2").await;
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let mut known = addresses(&tracker.snapshot());
        // More changes than are remembered.
        for round in 0..100 {
            let mut txn = client.txn();
            for key in 0..100 {
                let value = format!(r#"{{"address":"h:{round}"}}"#);
                txn = txn.then(Op::put(format!("services/api/k-{key}"), value));
            }
            txn.commit().await.unwrap();
        }
        delete(&client, "b").await;
        put(&client, "z", "h:9").await;
        until("the tracker is there", async || tracker.peek().get("z").is_some()).await;
        let mut told = 0;
        while let Some(change) = tracker.next().now_or_never() {
            follow(&mut known, change.unwrap());
            told += 1;
        }
        assert_eq!(known, addresses(&tracker.peek()));
        assert_eq!(told, 102);
    }

    async fn readers_have_positions_of_their_own(world: World) {
        let client = world.observer();
        let ours = world.join();
        let mut a = api(&ours.client).track().await.unwrap();
        let mut b = a.clone();
        put(&client, "x", "h:1").await;
        assert_eq!(a.next().await.unwrap(), joined("x", "h:1"));
        let mut c = a.clone();
        assert!(c.next().now_or_never().is_none());
        assert_eq!(b.next().await.unwrap(), joined("x", "h:1"));
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
    }

    async fn a_snapshot_never_changes(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        put(&client, "b", "h:2").await;
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let before = tracker.snapshot();
        let copy = addresses(&before);
        delete(&client, "a").await;
        put(&client, "b", "h:3").await;
        put(&client, "c", "h:4").await;
        until_known(&tracker, &["b", "c"]).await;
        assert_eq!(addresses(&before), copy);
        assert_ne!(addresses(&tracker.snapshot()), copy);
    }

    async fn what_is_malformed_is_apart_and_the_rest_works(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        client.put("services/api/b", "h:2").await.unwrap();
        client.put(b"services/api/\xff", r#"{"address":"h:3"}"#).await.unwrap();
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let now = tracker.snapshot();
        assert_eq!(ids(&now), ["a"]);
        assert_eq!(now.malformed().count(), 2);
        let (key, why) = now.malformed().next().unwrap();
        assert_eq!((key.as_str(), why.is_empty()), (Some("services/api/b"), false));

        put(&client, "b", "h:2").await;
        assert_eq!(tracker.next().await.unwrap(), joined("b", "h:2"));
        client.put("services/api/a", "[]").await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), Change::Left("a".into()));
        assert_eq!(tracker.peek().malformed().count(), 2);
        delete(&client, "a").await;
        until("it is forgotten", async || tracker.peek().malformed().count() == 1).await;
        put(&client, "c", "h:4").await;
        assert_eq!(tracker.next().await.unwrap(), joined("c", "h:4"));
    }

    async fn a_tracker_that_is_cut_off_keeps_what_it_knows_and_says_that_it_is_stale(world: World) {
        for partition in [Partition::Refuse, Partition::Hang] {
            let client = world.observer();
            put(&client, "a", "h:1").await;
            delete(&client, "b").await;
            let ours = world.join();
            let mut tracker = api(&ours.client).track().await.unwrap();
            let mut known = addresses(&tracker.snapshot());
            ours.faults.partition(partition);
            ours.faults.cut_watches();
            assert!(tracker.stale_changed(false).await.unwrap());
            put(&client, "b", "h:2").await;
            delete(&client, "a").await;
            assert!(tracker.is_stale());
            assert_eq!(ids(&tracker.peek()), ["a"]);
            ours.faults.heal();
            assert!(!tracker.stale_changed(true).await.unwrap());
            until_known(&tracker, &["b"]).await;
            while let Some(change) = tracker.next().now_or_never() {
                follow(&mut known, change.unwrap());
            }
            assert_eq!(known, addresses(&tracker.peek()));
        }
    }

    async fn track_waits_for_a_store_that_cannot_be_reached(world: World) {
        put(&world.observer(), "a", "h:1").await;
        let ours = world.join();
        ours.faults.partition(Partition::Refuse);
        let track = api(&ours.client);
        let mut track = Box::pin(track.track());
        let early = tokio::time::timeout(Duration::from_millis(300), &mut track).await;
        assert!(early.is_err());
        ours.faults.heal();
        let mut tracker = track.await.unwrap();
        assert_eq!(ids(&tracker.snapshot()), ["a"]);
    }

    async fn what_is_refused_for_good_ends_a_tracker(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        let ours = world.join();
        let mut tracker = api(&ours.client).track().await.unwrap();
        ours.faults.next(CallKind::Watch, Fate::Refuse(ErrorKind::PermissionDenied));
        ours.faults.cut_watches();
        let error = tracker.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(tracker.is_stale());
        assert_eq!(tracker.next().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(ids(&tracker.snapshot()), ["a"]);
        ours.faults.next(CallKind::Range, Fate::Refuse(ErrorKind::PermissionDenied));
        let error = api(&ours.client).track().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    async fn names_that_cannot_be_are_refused(world: World) {
        let client = world.observer();
        for name in ["", "a/b"] {
            let error = client.service(name).track().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let error = client.service(name).instances().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    async fn the_last_reader_ends_the_watch(world: World) {
        let ours = world.join();
        let tracker = api(&ours.client).track().await.unwrap();
        let other = tracker.clone();
        let picker = other.picker(quorate::Strategy::Random);
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
        drop((tracker, other));
        tokio::task::yield_now().await;
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
        drop(picker);
        until("the watch is closed", async || {
            ours.faults.open_streams(CallKind::Watch) == 0
        })
        .await;
    }

    async fn a_service_can_be_read_once(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        client.put("services/api/b", "?").await.unwrap();
        client.put("services/db/x", "?").await.unwrap();
        client.put("services/odd", "?").await.unwrap();
        client.put("services/odd/x/y", "?").await.unwrap();
        let now = api(&client).instances().await.unwrap();
        assert_eq!((ids(&now), now.malformed().count()), (vec!["a".to_owned()], 1));
        let services = client.services().await.unwrap();
        let expected = [("api".to_owned(), 2), ("db".to_owned(), 1)];
        assert_eq!(services, BTreeMap::from(expected));
    }

    async fn other_layouts_are_read(world: World) {
        let client = world.observer();
        client.put("grpc/api/h:1", r#"{"Op":0,"Addr":"h:1","Metadata":null}"#).await.unwrap();
        client.put("grpc/api/h:2", r#"{"Op":1,"Addr":"h:2","Metadata":null}"#).await.unwrap();
        let service = client.service("grpc/api").layout(Layout::Grpc);
        let mut tracker = service.track().await.unwrap();
        assert_eq!(ids(&tracker.snapshot()), ["h:1"]);
        assert_eq!(tracker.peek().malformed().count(), 0);
        let metadata = r#"{"Op":0,"Addr":"h:3","Metadata":[1],"Attributes":{"x":1}}"#;
        client.put("grpc/api/h:3", metadata).await.unwrap();
        let Change::Joined(id, instance) = tracker.next().await.unwrap() else { panic!() };
        assert_eq!((&*id, instance.metadata_text()), ("h:3", "[1]"));

        client.put("workers/7", "any text").await.unwrap();
        let raw = client.service("workers").layout(Layout::Raw);
        let expected = ("7".to_owned(), "any text".to_owned());
        assert_eq!(addresses(&raw.instances().await.unwrap()), BTreeMap::from([expected]));
    }

    async fn one_that_missed_thousands_of_changes_reads_how_things_stand(world: World) {
        let client = world.observer();
        for id in ["a", "b", "gone"] {
            put(&client, id, "h:1").await;
        }
        let ours = world.join();
        let mut tracker = api(&ours.client).track().await.unwrap();
        let mut known = addresses(&tracker.snapshot());
        ours.faults.partition(Partition::Refuse);
        until("that is noticed", async || tracker.is_stale()).await;
        change_often(&client, 6000).await;
        delete(&client, "gone").await;
        put(&client, "b", "h:2").await;
        ours.faults.reset_counts();
        ours.faults.heal();
        until("it knows", async || !tracker.is_stale()).await;
        assert_eq!(known_to(&mut tracker, &mut known), addresses(&tracker.peek()));
        assert_eq!(ids(&tracker.peek()), ["a", "b"]);
        assert_eq!(tracker.peek().get("b").unwrap().address, "h:2");
        assert!(ours.faults.count(CallKind::Range) > 0, "it read no state");
        // And it goes on with what changes then.
        put(&client, "b", "h:3").await;
        until("it is told", async || tracker.peek().get("b").unwrap().address == "h:3").await;
        assert_eq!(known_to(&mut tracker, &mut known), addresses(&tracker.peek()));
    }

    async fn a_store_that_is_slow_to_open_watches_does_not_keep_it_from_that(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        let ours = world.join();
        let tracker = api(&ours.client).track().await.unwrap();
        ours.faults.partition(Partition::Refuse);
        until("that is noticed", async || tracker.is_stale()).await;
        change_often(&client, 6000).await;
        put(&client, "a", "h:2").await;
        ours.faults.heal();
        // Longer than a quiet stream is waited for.
        ours.faults.every(CallKind::Watch, Fate::DelayReply(Duration::from_millis(600)));
        until("it knows", async || !tracker.is_stale()).await;
        assert_eq!(tracker.peek().get("a").unwrap().address, "h:2");
    }

    async fn one_that_missed_a_few_changes_is_told_these(world: World) {
        let client = world.observer();
        put(&client, "a", "h:1").await;
        let ours = world.join();
        let tracker = api(&ours.client).track().await.unwrap();
        ours.faults.partition(Partition::Refuse);
        until("that is noticed", async || tracker.is_stale()).await;
        change_often(&client, 500).await;
        put(&client, "b", "h:2").await;
        ours.faults.reset_counts();
        ours.faults.heal();
        until("it knows", async || !tracker.is_stale()).await;
        assert_eq!(ids(&tracker.peek()), ["a", "b"]);
        // A look at a key of no matter tells the revision of the store.
        let reads = ours.faults.count(CallKind::Range);
        assert!(reads <= 1, "all was read again: {reads} reads");
    }

    async fn five_thousand_instances_that_come_and_go_are_known_rightly(world: World) {
        let client = world.observer();
        let key = |id: u32| format!("services/api/{id:05}");
        let value = |n: u32| format!(r#"{{"address":"10.0.0.{}:{n}"}}"#, n % 256);
        for first in (0..5000).step_by(100) {
            let mut txn = client.txn();
            for id in first..first + 100 {
                txn = txn.then(Op::put(key(id), value(id)));
            }
            txn.commit().await.unwrap();
        }
        let ours = world.join();
        let mut tracker = api(&ours.client).track().await.unwrap();
        assert_eq!(tracker.peek().len(), 5000);
        let mut known = addresses(&tracker.snapshot());
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..50 {
            if round % 10 == 5 {
                ours.faults.cut_watches();
            }
            let mut txn = client.txn();
            let mut touched = std::collections::BTreeSet::new();
            for _ in 0..100 {
                let id = random.u32(..6000);
                if touched.insert(id) {
                    txn = txn.then(match random.bool() {
                        true => Op::put(key(id), value(random.u32(..60_000))),
                        false => Op::delete(key(id)),
                    });
                }
            }
            txn.commit().await.unwrap();
            known_to(&mut tracker, &mut known);
        }
        put(&client, "last", "h:1").await;
        until("the last is there", async || tracker.peek().get("last").is_some()).await;
        known_to(&mut tracker, &mut known);
        let truth = addresses(&api(&client).instances().await.unwrap());
        assert_eq!(addresses(&tracker.snapshot()), truth);
        assert_eq!(known, truth);
    }
}

mod compaction {
    use super::*;

    scenarios! { alone
        async fn history_that_was_compacted_away_meanwhile_costs_nothing_but_the_states_between(world: World) {
            let client = world.observer();
            put(&client, "a", "h:1").await;
            put(&client, "b", "h:2").await;
            put(&client, "c", "h:3").await;
            let ours = world.join();
            let mut tracker = api(&ours.client).track().await.unwrap();
            let before = tracker.snapshot();
            ours.faults.partition(Partition::Refuse);
            ours.faults.cut_watches();
            tracker.stale_changed(false).await.unwrap();
            delete(&client, "a").await;
            put(&client, "b", "h:9").await;
            put(&client, "d", "h:4").await;
            let now = client.put("x", "y").await.unwrap();
            client.compact(now, true).await.unwrap();
            ours.faults.heal();
            let told = [
                tracker.next().await.unwrap(),
                tracker.next().await.unwrap(),
                tracker.next().await.unwrap(),
            ];
            let updated = Change::Updated("b".into(), Arc::new(Instance::new("h:9")));
            assert_eq!(told, [Change::Left("a".into()), updated, joined("d", "h:4")]);
            assert!(tracker.next().now_or_never().is_none());
            assert!(!tracker.stale_changed(true).await.unwrap());
            // What did not change is the same as before.
            let now = tracker.peek();
            assert!(Arc::ptr_eq(before.get("c").unwrap(), now.get("c").unwrap()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_is_given_up_leaves_no_task() {
    let world = World::memory();
    let machine = Machine::new(1.0, 7);
    let options = ConnectOptions::memory().runtime(Arc::new(machine.clone()));
    let ours = world.join_with(options);
    let idle = machine.tasks();
    let tracker = api(&ours.client).track().await.unwrap();
    assert!(machine.tasks() > idle);
    drop(tracker);
    until("no task is left", async || machine.tasks() == idle).await;
    // Cancelled while it waits for the store.
    ours.faults.partition(Partition::Hang);
    let service = api(&ours.client);
    let cancelled = tokio::time::timeout(Duration::from_millis(50), service.track());
    assert!(cancelled.await.is_err());
    ours.faults.heal();
    until("no task is left", async || machine.tasks() == idle).await;
}

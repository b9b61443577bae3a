//! Watches: every change once and in order, whatever happens to the connection.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quorate::{
    ErrorKind, Event, KeyRange, Op, Revision, Watch, WatchRequest,
    backend::fault::{CallKind, Fate, Partition},
};
use support::{until, world::World};

/// The revisions of the next `count` events.
async fn revisions(watch: &mut Watch, count: usize) -> Vec<Revision> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = watch
            .next()
            .await
            .expect("a watch never just ends")
            .unwrap();
        assert!(!batch.events.is_empty());
        seen.extend(batch.events.iter().map(Event::revision));
    }
    seen
}

fn all() -> KeyRange {
    KeyRange::prefix("k/")
}

scenarios! {
    alone

    async fn a_watch_goes_on_after_each_cut_without_gap_or_repetition(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let start = writer.put("before", "x").await.unwrap().next();
        let mut watch = ours.client.watch(WatchRequest::new(all()).start(start));
        let mut written = Vec::new();
        let mut seen = Vec::new();
        for round in 0..10 {
            for n in 0..round {
                written.push(writer.put(format!("k/{n}"), "v").await.unwrap());
            }
            // Whatever of it is told by then, the rest comes over another stream.
            let told = tokio::time::timeout(Duration::from_millis(100), watch.next());
            if let Ok(batch) = told.await {
                seen.extend(batch.unwrap().unwrap().events.iter().map(Event::revision));
            }
            ours.faults.cut_watches();
            if round % 3 == 0 {
                ours.faults.next(CallKind::Watch, Fate::LoseReply);
            }
        }
        let missing = written.len() - seen.len();
        seen.extend(revisions(&mut watch, missing).await);
        assert_eq!(seen, written);
        assert!(watch.next().now_or_never().is_none());
    }

    async fn a_watch_from_now_goes_on_from_when_it_was_opened(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let mut watch = ours.client.watch(all());
        let next = tokio::spawn(async move { revisions(&mut watch, 1).await });
        ours.faults.reached(CallKind::Watch, 1).await;
        until("the watch is open", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        // Before anything was told, what is told next is already settled.
        ours.faults.partition(Partition::Refuse);
        let first = writer.put("k/1", "v").await.unwrap();
        writer.put("k/1", "w").await.unwrap();
        ours.faults.heal();
        assert_eq!(next.await.unwrap()[0], first);
    }

    async fn a_watch_opened_while_cut_off_opens_when_it_can(world: World) {
        for partition in [Partition::Refuse, Partition::Hang, Partition::LoseReplies] {
            let ours = world.join();
            let writer = world.observer();
            let start = writer.put("before", "x").await.unwrap().next();
            ours.faults.partition(partition);
            let mut watch = ours.client.watch(WatchRequest::new(all()).start(start));
            let next = tokio::spawn(async move { revisions(&mut watch, 1).await });
            ours.faults.reached(CallKind::Watch, 1).await;
            let written = writer.put("k/1", "v").await.unwrap();
            ours.faults.heal();
            assert_eq!(next.await.unwrap(), [written]);
        }
    }

    async fn a_watch_of_a_revision_to_come_waits_for_it_across_a_cut(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let now = writer.put("before", "x").await.unwrap();
        let start = Revision(now.0 + 3);
        let mut watch = ours.client.watch(WatchRequest::new(all()).start(start));
        for _ in 0..2 {
            let patience = Duration::from_millis(500);
            let told = tokio::time::timeout(patience, watch.next()).await;
            assert!(told.is_err(), "{told:?}");
            assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
            ours.faults.cut_watches();
        }
        for n in 0..3 {
            writer.put(format!("k/{n}"), "v").await.unwrap();
        }
        assert_eq!(revisions(&mut watch, 1).await, [start]);
    }

    async fn a_watch_of_what_is_compacted_away_ends_and_says_so(world: World) {
        let client = world.observer();
        let first = client.put("k/1", "v").await.unwrap();
        let second = client.put("k/1", "w").await.unwrap();
        client.compact(second, true).await.unwrap();
        let mut watch = client.watch(WatchRequest::new(all()).start(first));
        let error = watch.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Compacted);
        assert!(error.oldest_revision().is_none_or(|oldest| oldest == second));
        assert!(watch.next().await.is_none());
    }

    async fn what_is_compacted_away_during_a_cut_is_not_passed_over(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let start = writer.put("before", "x").await.unwrap().next();
        let mut watch = ours.client.watch(WatchRequest::new(all()).start(start));
        let first = writer.put("k/1", "v").await.unwrap();
        assert_eq!(revisions(&mut watch, 1).await, [first]);
        ours.faults.partition(Partition::Refuse);
        writer.put("k/1", "w").await.unwrap();
        let last = writer.put("k/1", "x").await.unwrap();
        writer.compact(last, true).await.unwrap();
        ours.faults.heal();
        let error = watch.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Compacted);
        assert!(watch.next().await.is_none());
    }

    async fn the_changes_of_one_transaction_come_together(world: World) {
        let client = world.observer();
        client.put("k/3", "old").await.unwrap();
        let txn = client
            .txn()
            .then(Op::put("k/1", "v"))
            .then(Op::put("k/2", "v"))
            .then(Op::delete("k/3"));
        let done = txn.commit().await.unwrap();
        let start = done.header.revision;
        let request = WatchRequest::new(all()).start(start).prev_kv();
        let batch = client.watch(request).next().await.unwrap().unwrap();
        let keys: Vec<_> = batch.events.iter().map(|event| event.key().to_string()).collect();
        assert_eq!(keys, ["k/1", "k/2", "k/3"]);
        assert!(batch.events.iter().all(|event| event.revision() == start));
        let Event::Delete { prev: Some(prev), .. } = &batch.events[2] else {
            panic!("no previous value: {:?}", batch.events[2]);
        };
        assert_eq!(prev.value, "old");
    }

    async fn a_filter_leaves_out_what_was_not_asked_for(world: World) {
        let client = world.observer();
        let start = client.put("k/1", "v").await.unwrap();
        client.delete("k/1").await.unwrap();
        client.put("k/2", "v").await.unwrap();
        let request = WatchRequest::new(all()).start(start);
        let mut deletes = client.watch(request.clone().deletes_only());
        let batch = deletes.next().await.unwrap().unwrap();
        assert!(matches!(&batch.events[..], [Event::Delete { key, .. }] if *key == "k/1"));
        assert!(deletes.next().now_or_never().is_none());
        let mut puts = client.watch(request.puts_only());
        let mut keys = Vec::new();
        while keys.len() < 2 {
            let batch = puts.next().await.unwrap().unwrap();
            keys.extend(batch.events.iter().map(|event| event.key().to_string()));
        }
        assert_eq!(keys, ["k/1", "k/2"]);
    }

    async fn a_watch_is_lazy_and_its_drop_closes_it(world: World) {
        let ours = world.join();
        let mut watch = ours.client.watch(all());
        assert_eq!(ours.faults.total(), 0);
        let quiet = tokio::time::timeout(Duration::from_secs(1), watch.next());
        assert!(quiet.await.is_err());
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
        drop(watch);
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 0);
    }

    async fn a_watch_that_is_refused_for_good_ends(world: World) {
        let ours = world.join();
        ours.faults.next(CallKind::Watch, Fate::Refuse(ErrorKind::PermissionDenied));
        let mut watch = ours.client.watch(all());
        let error = watch.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_replaced_and_misses_nothing() {
    let world = World::memory();
    let ours = world.join();
    let writer = world.observer();
    let start = writer.put("before", "x").await.unwrap().next();
    let mut watch = ours.client.watch(WatchRequest::new(all()).start(start));
    let first = writer.put("k/1", "v").await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [first]);
    ours.faults.silence_watches();
    let second = writer.put("k/1", "w").await.unwrap();
    let asleep = tokio::time::Instant::now();
    assert_eq!(revisions(&mut watch, 1).await, [second]);
    assert!(asleep.elapsed() < Duration::from_secs(8));
    assert_eq!(ours.faults.distrusted(), 1);
    // A reader that is slow to poll is no silent stream.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let third = writer.put("k/1", "x").await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [third]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_that_gives_a_sign_of_life_is_kept() {
    let world = World::memory();
    let ours = world.join();
    let mut watch = ours.client.watch(all());
    let quiet = tokio::time::timeout(Duration::from_secs(600), watch.next());
    assert!(quiet.await.is_err());
    assert_eq!(ours.faults.count(CallKind::Watch), 1);
    assert_eq!(ours.faults.distrusted(), 0);
}

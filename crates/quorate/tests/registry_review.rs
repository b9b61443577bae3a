//! Trackers where they are easily wrong: at their start, and at the return of the store.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use quorate::{
    ErrorKind,
    backend::fault::{CallKind, Fate, Partition},
};
use support::until;

scenarios! {
    async fn a_tracker_that_lost_the_store_at_its_start_is_stale(world: World) {
        world.observer().put("services/api/a", r#"{"address":"h:1"}"#).await.unwrap();
        let ours = world.join();
        let unavailable = Fate::Refuse(ErrorKind::Unavailable);
        ours.faults.every(CallKind::Range, unavailable);
        let api = ours.client.service("api");
        let starting = tokio::spawn(async move { api.track().await });
        ours.faults.reached(CallKind::Range, 3).await;
        // Now it can read, and not watch any more.
        ours.faults.heal();
        ours.faults.every(CallKind::Watch, unavailable);
        ours.faults.cut_watches();
        let tracker = starting.await.unwrap().unwrap();
        assert_eq!(tracker.peek().len(), 1);
        until("it is stale", async || tracker.is_stale()).await;
        ours.faults.heal();
        until("it is fresh", async || !tracker.is_stale()).await;
    }

    async fn a_tracker_is_stale_until_it_knows_what_it_missed(world: World) {
        let client = world.observer();
        let ours = world.join();
        let tracker = ours.client.service("api").track().await.unwrap();
        for round in 1..=5 {
            ours.faults.partition(Partition::Refuse);
            tracker.stale_changed(false).await.unwrap();
            for id in 0..50 {
                let key = format!("services/api/{round}-{id}");
                client.put(key, r#"{"address":"h:1"}"#).await.unwrap();
            }
            client.put("other", "").await.unwrap();
            ours.faults.heal();
            tracker.stale_changed(true).await.unwrap();
            assert_eq!(tracker.peek().len(), 50 * round);
        }
        // Without anything missed, too.
        ours.faults.cut_watches();
        client.put("other", "").await.unwrap();
        until("it is fresh", async || !tracker.is_stale()).await;
    }
}

mod compaction {
    use super::*;

    scenarios! {
        alone

        async fn a_tracker_that_lost_history_is_stale_until_it_has_read_all(world: World) {
            let client = world.observer();
            client.put("services/api/a", r#"{"address":"h:1"}"#).await.unwrap();
            let ours = world.join();
            let tracker = ours.client.service("api").track().await.unwrap();
            ours.faults.partition(Partition::Refuse);
            tracker.stale_changed(false).await.unwrap();
            client.put("services/api/b", r#"{"address":"h:1"}"#).await.unwrap();
            let now = client.put("other", "").await.unwrap();
            client.compact(now, true).await.unwrap();
            let read = ours.faults.count(CallKind::Range);
            let held = ours.faults.hold_next(CallKind::Range);
            ours.faults.heal();
            ours.faults.reached(CallKind::Range, read + 1).await;
            assert!(tracker.is_stale());
            held.let_through();
            tracker.stale_changed(true).await.unwrap();
            assert_eq!(tracker.peek().len(), 2);
        }
    }
}

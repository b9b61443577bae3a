//! Trackers where they are easily wrong: at their start, and at the return of the store.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use quorate::{
    ErrorKind,
    backend::fault::{CallKind, Fate},
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
}

//! Ephemeral keys: that they stand while their owner lives, come back, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::FutureExt;
use quorate::{
    Client, ConnectOptions, EphemeralKey, EphemeralState, ErrorKind, Holder, KeyRange, KeyValue,
    Loss, Put,
    backend::fault::{CallKind, Calls, Fate, Partition},
};
use support::{
    until,
    world::{Participant, World},
};
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "workers/7";

/// A participant whose shared session ends soon after it is cut off.
fn join(world: &World) -> Participant {
    world.join_with(ConnectOptions::memory().session_ttl(TTL))
}

async fn value(client: &Client, key: &str) -> Option<String> {
    let there = client.get(key).await.unwrap();
    there.map(|kv| kv.value.to_string())
}

async fn until_value_is(client: &Client, key: &str, expected: Option<&str>) {
    until(&format!("{key} is {expected:?}"), async || {
        value(client, key).await.as_deref() == expected
    })
    .await;
}

async fn until_held(key: &EphemeralKey) {
    until("the key is held", async || key.is_held()).await;
}

async fn until_another_stands(observer: &Client, token: quorate::Revision) -> KeyValue {
    let stands = async || {
        let there = observer.get(KEY).await.unwrap();
        there.filter(|kv| kv.create_revision > token)
    };
    until("another incarnation stands", async || {
        stands().await.is_some()
    })
    .await;
    stands().await.unwrap()
}

scenarios! {
    alone

    async fn a_key_stands_until_it_is_released(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let there = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!(there.value, "idle");
        assert_eq!(there.create_revision, key.token());
        assert_eq!(there.lease, Some(ours.client.session().await.unwrap().lease()));
        assert!(key.is_held() && key.error().is_none());
        assert_eq!(key.state(), EphemeralState::Present { token: key.token() });
        key.set("busy").await.unwrap();
        assert_eq!(value(&observer, KEY).await.as_deref(), Some("busy"));
        let fenced = ours.client.txn().when(key.fence()).commit().await.unwrap();
        assert!(fenced.succeeded);
        let (lost, fence) = (key.lost(), key.fence());
        key.release().await.unwrap();
        assert_eq!(value(&observer, KEY).await, None);
        assert_eq!(lost.await, Loss::Released);
        assert!(!ours.client.txn().when(fence).commit().await.unwrap().succeeded);
    }

    async fn a_key_that_is_dropped_is_deleted(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let key = client.ephemeral(KEY).create("idle").await.unwrap();
        let lost = key.lost();
        drop(key);
        assert_eq!(lost.now_or_never(), Some(Loss::Released));
        until_value_is(&observer, KEY, None).await;
        // And its path is free at once.
        let key = client.ephemeral(KEY).create("first").await.unwrap();
        let token = key.token();
        drop(key);
        let again = client.ephemeral(KEY).create("second").await.unwrap();
        assert!(again.token() > token);
        assert_eq!(value(&observer, KEY).await.as_deref(), Some("second"));
    }

    async fn a_key_that_exists_is_not_overwritten(world: World) {
        let client = world.observer();
        client.put(KEY, "theirs").await.unwrap();
        let error = client.ephemeral(KEY).create("ours").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(value(&client, KEY).await.as_deref(), Some("theirs"));
        client.delete(KEY).await.unwrap();
        let _key = client.ephemeral(KEY).create("ours").await.unwrap();
    }

    async fn a_key_is_taken_over_by_deleting_it_first(world: World) {
        let theirs = world.observer();
        let key = theirs.ephemeral(KEY).create("theirs").await.unwrap();
        let fence = key.fence();
        let client = world.observer();
        let ours = client.ephemeral(KEY).take_over().create("ours").await.unwrap();
        assert!(ours.token() > key.token());
        assert!(!client.txn().when(fence).commit().await.unwrap().succeeded);
        assert_eq!(key.lost().await, Loss::Conflict);
        assert_eq!(key.release().await.unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(value(&client, KEY).await.as_deref(), Some("ours"));
        assert!(ours.is_held());
    }

    async fn a_path_has_one_owner_in_a_client(world: World) {
        let client = world.observer();
        let first = client.ephemeral("prod/a").create("first").await.unwrap();
        let inside = client.namespace("prod");
        for second in [inside.ephemeral("a"), inside.ephemeral("a").ttl(TTL)] {
            let error = second.create("second").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        assert!(first.is_held());
        let token = first.token();
        let second = inside.ephemeral("a").take_over().create("second").await.unwrap();
        assert!(second.token() > token);
        assert_eq!(first.lost().await, Loss::Conflict);
        assert_eq!(inside.get("a").await.unwrap().unwrap().value, "second");
        drop(first);
        second.set("third").await.unwrap();
        assert_eq!(client.get("prod/a").await.unwrap().unwrap().value, "third");
    }

    async fn a_temporary_key_tells_who_made_it(world: World) {
        let ours = world.join_with(ConnectOptions::memory().holder("indexer"));
        let key = ours.client.temp_key("apps/indexer").await.unwrap();
        let there = ours.client.get("apps/indexer").await.unwrap().unwrap();
        assert_eq!(Holder::from_value(&there.value).unwrap().holder, "indexer");
        key.release().await.unwrap();
    }

    async fn a_key_with_a_session_of_its_own_lives_by_that(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let key = client.ephemeral(KEY).ttl(TTL).create("idle").await.unwrap();
        let there = observer.get(KEY).await.unwrap().unwrap();
        assert_ne!(there.lease, Some(client.session().await.unwrap().lease()));
        client.close().await.unwrap();
        key.set("busy").await.unwrap();
        assert!(key.is_held());
        key.release().await.unwrap();
        assert_eq!(value(&observer, KEY).await, None);
        until("its lease is revoked", async || {
            !observer.leases().await.unwrap().contains(&there.lease.unwrap())
        })
        .await;
    }

    async fn a_key_that_is_deleted_by_hand_comes_back(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let mut key = client.ephemeral(KEY).create("idle").await.unwrap();
        key.set("busy").await.unwrap();
        let token = key.token();
        observer.delete(KEY).await.unwrap();
        let deleted = Instant::now();
        let there = until_another_stands(&observer, token).await;
        assert!(deleted.elapsed() < SECOND, "{:?}", deleted.elapsed());
        assert_eq!(there.value, "busy");
        let present = EphemeralState::Present { token: there.create_revision };
        while key.changed().await != present {}
        assert!(key.is_held() && key.lost().now_or_never().is_none());
        assert_eq!(key.token(), there.create_revision);
        key.release().await.unwrap();
        assert_eq!(value(&observer, KEY).await, None);
    }

    async fn a_key_whose_lease_is_revoked_by_hand_comes_back(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let key = client.ephemeral(KEY).create("idle").await.unwrap();
        let session = client.session().await.unwrap();
        let token = key.token();
        observer.revoke_lease(session.lease()).await.unwrap();
        let revoked = Instant::now();
        let there = until_another_stands(&observer, token).await;
        assert!(revoked.elapsed() < SECOND, "{:?}", revoked.elapsed());
        assert_ne!(there.lease, Some(session.lease()));
        until_held(&key).await;
        assert!(key.token() > token);
    }
}

//! Ephemeral keys: that they stand while their owner lives, come back, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::FutureExt;
use quorate::{
    Client, ConnectOptions, EphemeralKey, EphemeralState, ErrorKind, Holder, KeyRange, KeyValue,
    Loss,
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

    async fn who_follows_a_key_apart_from_its_owner_sees_it_come_back_and_end(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let first = key.token();
        let mut states = key.states();
        observer.delete(KEY).await.unwrap();
        loop {
            match states.changed().await {
                EphemeralState::Present { token } if token > first => break,
                state => assert!(!matches!(state, EphemeralState::Lost(_))),
            }
        }
        drop(key); // they do not keep it
        assert_eq!(states.changed().await, EphemeralState::Lost(Loss::Released));
        assert_eq!(states.current(), EphemeralState::Lost(Loss::Released));
        until_value_is(&observer, KEY, None).await;
    }

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

    async fn keys_that_ask_for_the_same_time_share_a_session(world: World) {
        let client = world.join().client;
        let create = async |name: &str, ttl| client.ephemeral(name).ttl(ttl).create("x").await;
        let a = create("a", TTL).await.unwrap();
        let b = create("b", TTL).await.unwrap();
        let c = create("c", TTL * 2).await.unwrap();
        let lease = async |name: &str| client.get(name).await.unwrap().unwrap().lease;
        assert_eq!(lease("a").await, lease("b").await);
        assert_ne!(lease("a").await, lease("c").await);
        a.release().await.unwrap();
        assert!(b.is_held() && c.is_held());
        assert!(client.get("b").await.unwrap().is_some());
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

    async fn a_key_comes_back_after_a_partition_longer_than_its_session(world: World) {
        let observer = world.observer();
        let ours = join(&world);
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let (token, lost) = (key.token(), key.lost());
        ours.faults.partition(Partition::Hang);
        until("it is seen to be lost", async || key.state() == EphemeralState::Recreating).await;
        assert!(!key.is_held() && key.token() == token);
        let setting = key.set("busy");
        until_value_is(&observer, KEY, None).await;
        assert!(setting.now_or_never().is_none());
        ours.faults.heal();
        let there = until_another_stands(&observer, token).await;
        until_held(&key).await;
        assert_eq!(key.token(), there.create_revision);
        assert!(lost.now_or_never().is_none());
        until_value_is(&observer, KEY, Some("busy")).await;
    }

    async fn a_key_that_outlived_its_session_goes_on_under_the_next(world: World) {
        let observer = world.observer();
        let ours = join(&world);
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let token = key.token();
        let first = observer.get(KEY).await.unwrap().unwrap().lease;
        // The server hears every beat, and not that the session is over here.
        ours.faults.every(CallKind::Revoke, Fate::Refuse(ErrorKind::Unavailable));
        ours.faults.drop_beats(u32::MAX);
        let lost = ours.client.session().await.unwrap().lost();
        lost.await;
        assert!(!key.is_held());
        assert!(value(&observer, KEY).await.is_some());
        until("it is under another lease", async || {
            observer.get(KEY).await.unwrap().unwrap().lease != first
        })
        .await;
        ours.faults.heal();
        until_held(&key).await;
        assert_eq!(key.token(), token);
        let there = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!(there.create_revision, token);
        assert_ne!(there.lease, first);
        assert_eq!(there.value, "idle");
        key.release().await.unwrap();
        assert_eq!(value(&observer, KEY).await, None);
    }

    async fn a_path_that_another_took_meanwhile_is_left_to_it(world: World) {
        let observer = world.observer();
        let ours = join(&world);
        let key = ours.client.ephemeral(KEY).create("ours").await.unwrap();
        let other = ours.client.ephemeral("workers/8").create("ours").await.unwrap();
        let lost = key.lost();
        ours.faults.partition(Partition::Hang);
        until_value_is(&observer, KEY, None).await;
        let theirs = observer.ephemeral(KEY).create("theirs").await.unwrap();
        ours.faults.heal();
        assert_eq!(lost.await, Loss::Conflict);
        assert_eq!(key.state(), EphemeralState::Lost(Loss::Conflict));
        assert_eq!(key.set("ours").await.unwrap_err().loss(), Some(Loss::Conflict));
        assert_eq!(key.release().await.unwrap_err().loss(), Some(Loss::Conflict));
        until_held(&other).await;
        other.release().await.unwrap();
        assert!(theirs.is_held());
        let there = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!(there.create_revision, theirs.token());
        assert_eq!(there.version, 1);
        // The path may be opened again, once it is free.
        theirs.release().await.unwrap();
        assert!(ours.client.ephemeral(KEY).create("ours").await.unwrap().is_held());
    }

    async fn a_key_that_is_overwritten_by_hand_is_left_to_the_hand(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let key = client.ephemeral(KEY).create("ours").await.unwrap();
        let released = client.ephemeral("workers/8").create("ours").await.unwrap();
        until_value_is(&observer, KEY, Some("ours")).await;
        observer.put("workers/8", "theirs").await.unwrap();
        observer.put(KEY, "theirs").await.unwrap();
        // Whether or not it has been heard of yet.
        let _ = released.release().await;
        assert_eq!(key.lost().await, Loss::Conflict);
        drop(key);
        client.ephemeral("workers/9").create("").await.unwrap().release().await.unwrap();
        for path in [KEY, "workers/8"] {
            let there = observer.get(path).await.unwrap().unwrap();
            assert_eq!((there.value.as_str(), there.lease), (Some("theirs"), None));
        }
    }

    async fn no_write_is_done_twice_whose_answer_was_lost(world: World) {
        let observer = world.observer();
        for fate in [Fate::LoseReply, Fate::LoseRequest] {
            let ours = world.join();
            let lose = || ours.faults.next(Calls::of(CallKind::Txn).touching(KEY), fate);
            ours.client.session().await.unwrap();
            lose();
            let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
            let there = observer.get(KEY).await.unwrap().unwrap();
            assert_eq!((there.version, there.create_revision), (1, key.token()));
            lose();
            key.set("busy").await.unwrap();
            let there = observer.get(KEY).await.unwrap().unwrap();
            assert_eq!((there.version, there.value.as_str()), (2, Some("busy")));
            lose();
            key.release().await.unwrap();
            assert_eq!(value(&observer, KEY).await, None);
        }
    }

    async fn a_creation_that_is_cancelled_leaves_nothing(world: World) {
        let observer = world.observer();
        let ours = join(&world);
        ours.client.session().await.unwrap();
        for fate in [None, Some(Fate::LoseReply), Some(Fate::HangReply), Some(Fate::DelayReply(SECOND))] {
            if let Some(fate) = fate {
                ours.faults.next(Calls::of(CallKind::Txn).touching(KEY), fate);
            }
            let client = ours.client.clone();
            let before = ours.faults.count(CallKind::Txn);
            let creation = tokio::spawn(async move { client.ephemeral(KEY).create("idle").await });
            ours.faults.reached(CallKind::Txn, before + 1).await;
            if fate == Some(Fate::HangReply) {
                // What is healed before it hangs would hang on.
                until_value_is(&observer, KEY, Some("idle")).await;
            }
            creation.abort();
            if let Ok(key) = creation.await {
                drop(key);
            }
            ours.faults.heal();
            until_value_is(&observer, KEY, None).await;
            ours.client.ephemeral(KEY).create("next").await.unwrap().release().await.unwrap();
        }
    }

    async fn a_creation_that_arrives_after_it_was_given_up_is_undone(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        let held = ours.faults.hold_next(Calls::of(CallKind::Txn).touching(KEY));
        let error = ours.client.ephemeral(KEY).create("late").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let before = observer.put("clock", "").await.unwrap();
        until("it was looked for", async || {
            let counted = ours.faults.count(CallKind::Txn);
            counted >= 2
        })
        .await;
        held.let_through();
        held.applied().await;
        let deletion = observer.watch(quorate::WatchRequest::new(KEY).start(before.next()).deletes_only());
        let deleted = futures_util::StreamExt::into_future(deletion).await.0.unwrap().unwrap();
        assert_eq!(deleted.events.len(), 1);
        assert_eq!(value(&observer, KEY).await, None);
        let key = ours.client.ephemeral(KEY).create("next").await.unwrap();
        assert_eq!(value(&observer, KEY).await.as_deref(), Some("next"));
        key.release().await.unwrap();
    }

    async fn an_earlier_write_that_arrives_late_undoes_no_newer_one(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let held = ours.faults.hold_next(Calls::of(CallKind::Txn).touching(KEY));
        let error = key.set("early").await.unwrap_err();
        assert!(error.is_indefinite() && error.is_retryable(), "{error}");
        key.set("late").await.unwrap();
        let written = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!(written.value, "late");
        held.let_through();
        held.applied().await;
        assert_eq!(observer.get(KEY).await.unwrap().unwrap(), written);
    }

    async fn a_value_that_was_not_confirmed_in_time_is_written_all_the_same(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        ours.faults.every(CallKind::Txn, Fate::Refuse(ErrorKind::Unavailable));
        let error = key.set("busy").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_indefinite() && key.error().is_some());
        ours.faults.heal();
        until_value_is(&observer, KEY, Some("busy")).await;
        until("the error is past", async || key.error().is_none()).await;
    }

    async fn a_lease_that_goes_again_and_again_is_no_reason_to_give_up(world: World) {
        let ours = world.join();
        // The store knows no lease that a key is put under.
        let puts = Calls::of(CallKind::Txn).touching(KEY);
        ours.faults.every(puts, Fate::Refuse(ErrorKind::NotFound));
        let error = ours.client.ephemeral(KEY).create("idle").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable());
    }

    async fn a_client_that_is_gone_leaves_neither_key_nor_lease(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let keys = ["a/1", "a/2", "b"].map(|key| client.ephemeral(key).create("idle"));
        let keys = futures_util::future::try_join_all(keys).await.unwrap();
        drop(client);
        // The keys keep it.
        assert!(keys[0].is_held());
        keys[0].set("busy").await.unwrap();
        drop(keys);
        until("nothing is left", async || {
            observer.leases().await.unwrap().is_empty()
                && observer.count(KeyRange::all()).await.unwrap() == 0
        })
        .await;
    }

    async fn a_client_or_session_that_is_closed_ends_its_keys_for_good(world: World) {
        let observer = world.observer();
        let client = world.observer();
        for by_session in [true, false] {
            let key = client.ephemeral(KEY).create("idle").await.unwrap();
            if by_session {
                client.session().await.unwrap().close().await.unwrap();
            } else {
                client.close().await.unwrap();
            }
            assert_eq!(key.state(), EphemeralState::Lost(Loss::Closed));
            assert_eq!(key.lost().await, Loss::Closed);
            assert_eq!(key.set("busy").await.unwrap_err().loss(), Some(Loss::Closed));
            assert_eq!(value(&observer, KEY).await, None);
        }
        let again = client.ephemeral(KEY).create("idle").await.unwrap();
        assert!(again.is_held());
    }

    async fn a_key_does_not_come_back_to_a_client_that_was_closed_in_a_gap(world: World) {
        let observer = world.observer();
        let ours = join(&world);
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        ours.faults.partition(Partition::Refuse);
        until("it is seen to be lost", async || key.state() == EphemeralState::Recreating).await;
        let _ = ours.client.close().await;
        assert_eq!(key.lost().await, Loss::Closed);
        ours.faults.heal();
        until("nothing is left", async || {
            observer.leases().await.unwrap().is_empty() && value(&observer, KEY).await.is_none()
        })
        .await;
        let key = ours.client.ephemeral(KEY).create("next").await.unwrap();
        assert!(key.is_held());
    }

    async fn a_key_that_may_not_be_written_keeps_no_other_waiting(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let bad = Calls::of(CallKind::Txn).touching("bad");
        ours.faults.every(bad, Fate::Refuse(ErrorKind::PermissionDenied));
        let names = (0..20).map(|n| if n == 7 { "a/bad".to_owned() } else { format!("a/{n}") });
        let creations = names.map(|name| ours.client.ephemeral(name).create("idle"));
        let created = futures_util::future::join_all(creations).await;
        for (n, key) in created.iter().enumerate() {
            match key {
                Ok(key) => assert!(n != 7 && key.is_held()),
                Err(error) => {
                    assert_eq!((n, error.kind()), (7, ErrorKind::PermissionDenied));
                    assert!(!error.is_indefinite());
                }
            }
        }
        assert_eq!(observer.count(KeyRange::prefix("a/")).await.unwrap(), 19);
    }

    async fn keys_that_others_have_keep_no_other_waiting(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        for theirs in [3, 11] {
            observer.put(format!("a/{theirs}"), "theirs").await.unwrap();
        }
        let before = ours.faults.count(CallKind::Txn);
        let creations = (0..20).map(|n| ours.client.ephemeral(format!("a/{n}")).create("ours"));
        let created = futures_util::future::join_all(creations).await;
        for (n, key) in created.iter().enumerate() {
            let is_theirs = [3, 11].contains(&n);
            match key {
                Ok(key) => assert!(!is_theirs && key.is_held(), "{n}"),
                Err(error) => assert!(is_theirs && error.kind() == ErrorKind::AlreadyExists),
            }
            let expected = if is_theirs { "theirs" } else { "ours" };
            assert_eq!(value(&observer, &format!("a/{n}")).await.as_deref(), Some(expected));
        }
        // All or none, then each for itself.
        assert_eq!(ours.faults.count(CallKind::Txn) - before, 2);
        drop(created);
        until("theirs are left", async || observer.count(KeyRange::all()).await.unwrap() == 2).await;
    }

    async fn keys_that_were_refused_together_are_not_made_under_a_session_that_is_over(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        observer.put("a/1", "theirs").await.unwrap();
        let held = ours.faults.hold_next(Calls::of(CallKind::Txn).touching("a/"));
        let creations = ["a/0", "a/1"].map(|name| ours.client.ephemeral(name).create("ours"));
        let created = futures_util::future::join_all(creations);
        let closed = async {
            held.arrived().await;
            let before = ours.faults.count(CallKind::Txn);
            let mut closing = Box::pin(session.close());
            assert!(futures_util::poll!(&mut closing).is_pending());
            held.let_through();
            closing.await.unwrap();
            before
        };
        let (created, before) = futures_util::future::join(created, closed).await;
        for key in created {
            assert!(key.is_err());
        }
        // Whatever is sent for the next one is sent after all that was for those.
        let next = ours.client.ephemeral("b").create("ours").await.unwrap();
        assert_eq!(ours.faults.count(CallKind::Txn) - before, 1);
        assert!(next.is_held());
        assert_eq!(observer.count(KeyRange::prefix("a/")).await.unwrap(), 1);
    }

    async fn a_value_that_is_refused_leaves_the_one_before(world: World) {
        let observer = world.observer();
        let client = world.observer();
        let large = vec![b'x'; 2 << 20];
        let error = client.ephemeral(KEY).create(large.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let key = client.ephemeral(KEY).create("idle").await.unwrap();
        let error = key.set(large).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(key.is_held());
        key.set("busy").await.unwrap();
        assert_eq!(value(&observer, KEY).await.as_deref(), Some("busy"));
        // Values that fit alone, but not together.
        let large = vec![b'x'; 600 * 1024];
        let names = ["a", "b", "c", "d"];
        let creations = names.map(|name| client.ephemeral(name).create(large.clone()));
        let keys = futures_util::future::try_join_all(creations).await.unwrap();
        drop((keys, key));
        until("all are gone", async || observer.count(KeyRange::all()).await.unwrap() == 0).await;
    }

    async fn thousands_of_keys_share_transactions_and_a_watch(world: World) {
        const KEYS: usize = 5_000;
        let observer = world.observer();
        let ours = world.join();
        let names = (0..KEYS).map(|n| format!("many/{n}"));
        let creations = names.map(|name| ours.client.ephemeral(name).create("idle"));
        let keys = futures_util::future::try_join_all(creations).await.unwrap();
        let count = ours.faults.count(CallKind::Txn);
        assert!(count <= 60, "{count} transactions");
        assert_eq!(observer.count(KeyRange::prefix("many/")).await.unwrap(), KEYS as u64);
        until("they are watched", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        ours.client.close().await.unwrap();
        assert_eq!(observer.count(KeyRange::prefix("many/")).await.unwrap(), 0);
        for key in keys {
            assert_eq!(key.lost().await, Loss::Closed);
        }
        until("nothing is watched", async || ours.faults.open_streams(CallKind::Watch) == 0).await;
    }

    async fn a_thousand_keys_come_back_in_a_few_transactions(world: World) {
        const KEYS: usize = 1_000;
        let observer = world.observer();
        let ours = world.join();
        let names = (0..KEYS).map(|n| format!("many/{n}"));
        let creations = names.map(|name| ours.client.ephemeral(name).create("idle"));
        let keys = futures_util::future::try_join_all(creations).await.unwrap();
        until("they are watched", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        ours.faults.reset_counts();
        let lease = ours.client.session().await.unwrap().lease();
        observer.revoke_lease(lease).await.unwrap();
        for key in &keys {
            until("it is back", async || key.is_held()).await;
        }
        until("all are back", async || {
            observer.count(KeyRange::prefix("many/")).await.unwrap() == KEYS as u64
        })
        .await;
        let count = ours.faults.count(CallKind::Txn);
        assert!(count <= 25, "{count} transactions");
    }

    async fn few_keys_of_a_directory_are_watched_one_by_one(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let create = async |name: String| ours.client.ephemeral(name).create("idle").await.unwrap();
        let mut keys = Vec::new();
        for n in 0..8 {
            keys.push(create(format!("few/{n}")).await);
        }
        until("each is watched", async || ours.faults.open_streams(CallKind::Watch) == 8).await;
        for n in 8..40 {
            keys.push(create(format!("few/{n}")).await);
        }
        until("the directory is watched", async || ours.faults.open_streams(CallKind::Watch) == 9).await;
        for n in [0, 8, 39] {
            let token = keys[n].token();
            observer.delete(keys[n].key()).await.unwrap();
            until("it is back", async || keys[n].is_held() && keys[n].token() > token).await;
        }
        keys.truncate(1);
        until("one is left", async || observer.count(KeyRange::all()).await.unwrap() == 1).await;
        let token = keys[0].token();
        observer.delete(keys[0].key()).await.unwrap();
        until("it is back", async || keys[0].is_held() && keys[0].token() > token).await;
    }

    async fn keys_of_a_directory_that_may_not_be_watched_are_watched_one_by_one(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let calls = Calls::of(CallKind::Watch).touching("many/");
        let keys = (0..12).map(|n| ours.client.ephemeral(format!("many/{n}")).create("idle"));
        ours.faults.next(calls, Fate::Refuse(ErrorKind::PermissionDenied));
        let keys = futures_util::future::try_join_all(keys).await.unwrap();
        until("each is watched", async || ours.faults.open_streams(CallKind::Watch) == 12).await;
        let token = keys[11].token();
        observer.delete(keys[11].key()).await.unwrap();
        until("it is back", async || keys[11].is_held() && keys[11].token() > token).await;
    }

    async fn a_deletion_that_is_told_before_the_answer_to_a_write_counts(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        until("it is watched", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        let token = key.token();
        ours.faults.next(Calls::of(CallKind::Txn).touching(KEY), Fate::DelayReply(SECOND));
        let delete = async {
            until_value_is(&observer, KEY, Some("busy")).await;
            observer.delete(KEY).await.unwrap();
        };
        let (set, ()) = tokio::join!(key.set("busy"), delete);
        set.unwrap();
        assert_eq!(until_another_stands(&observer, token).await.value, "busy");
    }

    async fn a_deletion_that_was_compacted_away_is_found_out(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        until("it is watched", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        let token = key.token();
        ours.faults.every(CallKind::Watch, Fate::Refuse(ErrorKind::Unavailable));
        ours.faults.cut_watches();
        observer.delete(KEY).await.unwrap();
        let revision = observer.put("clock", "").await.unwrap();
        observer.compact(revision, false).await.unwrap();
        ours.faults.heal();
        until_another_stands(&observer, token).await;
        until("it is known", async || key.is_held() && key.token() > token).await;
        // And it is watched again.
        let token = key.token();
        observer.delete(KEY).await.unwrap();
        until_another_stands(&observer, token).await;
    }

    async fn a_key_with_a_time_to_live_is_refreshed_until_it_is_gone(world: World) {
        let client = world.observer();
        let key = client.put_with_ttl(KEY, "a", TTL).await.unwrap();
        assert_eq!(key.refresh().await.unwrap(), TTL);
        key.set("b").await.unwrap();
        let there = client.get(KEY).await.unwrap().unwrap();
        assert_eq!((there.value.as_str(), there.lease), (Some("b"), Some(key.lease())));
        until_value_is(&client, KEY, None).await;
        for refused in [key.refresh().await.map(drop), key.set("c").await.map(drop)] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        }
        key.delete().await.unwrap();
        let key = client.put_with_ttl(KEY, "a", TTL * 100).await.unwrap();
        key.delete().await.unwrap();
        assert_eq!(value(&client, KEY).await, None);
        assert!(client.leases().await.unwrap().is_empty());
    }
}

#[test]
fn a_key_can_be_dropped_where_there_is_no_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let key = runtime.block_on(async {
        let client = Client::connect("mem:").await.unwrap();
        client.ephemeral(KEY).create("idle").await.unwrap()
    });
    drop(key);
    let key = runtime.block_on(async {
        let client = Client::connect("mem:").await.unwrap();
        client.ephemeral(KEY).create("idle").await.unwrap()
    });
    drop(runtime);
    assert_eq!(key.state(), EphemeralState::Lost(Loss::Closed));
    drop(key);
}

#[tokio::test]
async fn a_key_outlives_a_restart_of_its_server_and_is_watched_after_it() {
    let cluster = support::etcd::Cluster::builder().start();
    let client = Client::connect(cluster.endpoint(0)).await.unwrap();
    let key = client.ephemeral(KEY).create("idle").await.unwrap();
    cluster.kill(0);
    let setting = async { key.set("busy").await };
    let restarting = async { cluster.restart(0) };
    // Whether or not it was confirmed in time.
    let _ = tokio::join!(setting, restarting);
    until("it has its value", async || {
        let there = client.get(KEY).await.ok().flatten();
        key.is_held() && there.is_some_and(|kv| kv.value == "busy")
    })
    .await;
    let token = key.token();
    until("it is deleted", async || client.delete(KEY).await.is_ok()).await;
    until_another_stands(&client, token).await;
    until_held(&key).await;
    key.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_many_keys_the_directory_is_watched_once_the_first_stand() {
    let world = World::memory();
    let (ours, observer) = (world.join(), world.observer());
    let creations = (0..20).map(|n| ours.client.ephemeral(format!("many/{n}")).create("idle"));
    let keys = futures_util::future::try_join_all(creations).await.unwrap();
    let begun = Instant::now();
    until("it is watched", async || {
        ours.faults.open_streams(CallKind::Watch) == 1
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_millis(50),
        "{:?}",
        begun.elapsed()
    );
    for key in [&keys[0], &keys[19]] {
        let token = key.token();
        observer.delete(key.key()).await.unwrap();
        until("it is back", async || key.is_held() && key.token() > token).await;
    }
}

/// The session goes with the last key, while the next is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_follows_the_last_one_of_its_time_at_once() {
    let client = Client::connect("mem:").await.unwrap();
    let owners = (0..4).map(|owner| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0..2000 {
                let name = format!("{owner}-{round}");
                let key = client.ephemeral(name).ttl(TTL).create("x").await.unwrap();
                assert!(key.is_held());
                match round % 2 {
                    0 => key.release().await.unwrap(),
                    _ => drop(key),
                }
            }
        })
    });
    for owner in futures_util::future::join_all(owners).await {
        owner.unwrap();
    }
}

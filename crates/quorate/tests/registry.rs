//! Registrations: there while their process lives, back by themselves, and told to those who track.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use quorate::{
    Change, Client, ConnectOptions, EphemeralState, ErrorKind, Instance, Layout, Loss, Service,
    backend::fault::Partition,
};
use support::until;
use tokio::time::{Instant, timeout};

const TTL: Duration = Duration::from_secs(3);
const KEY: &str = "services/api/a";

fn options() -> ConnectOptions {
    ConnectOptions::memory().session_ttl(TTL)
}

fn api(client: &Client) -> Service {
    client.service("api")
}

fn here() -> Instance {
    Instance::new("10.0.0.7:8080").meta("zone", "b").weight(2)
}

fn joined(instance: Instance) -> Change {
    Change::Joined("a".into(), Arc::new(instance))
}

fn updated(instance: Instance) -> Change {
    Change::Updated("a".into(), Arc::new(instance))
}

scenarios! {
    async fn an_instance_is_there_until_it_is_released(world: World) {
        let client = world.observer();
        let mut tracker = api(&client).track().await.unwrap();
        let registration = api(&world.observer()).register("a", here()).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        assert!(registration.is_held());
        assert_eq!((registration.id(), registration.key().as_str()), ("a", Some(KEY)));
        assert_eq!(registration.instance(), &here());
        let kv = client.get(KEY).await.unwrap().unwrap();
        assert_eq!(registration.token(), kv.create_revision);
        let text = kv.value.as_str().unwrap();
        let expected = r#"{"address":"10.0.0.7:8080","draining":false,"metadata":{"zone":"b"},"weight":2}"#;
        assert_eq!(text, expected);
        let fenced = client.txn().when(registration.fence()).commit();
        assert!(fenced.await.unwrap().succeeded);
        let lost = registration.lost();
        registration.release().await.unwrap();
        assert_eq!(lost.await, Loss::Released);
        assert_eq!(client.get(KEY).await.unwrap(), None);
        assert_eq!(tracker.next().await.unwrap(), Change::Left("a".into()));
    }

    async fn a_registration_that_is_dropped_is_gone(world: World) {
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let registration = api(&world.observer()).register("a", here()).await.unwrap();
        // What comes and goes between two looks is never told.
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        drop(registration);
        assert_eq!(tracker.next().await.unwrap(), Change::Left("a".into()));
    }

    async fn what_is_set_and_drained_is_told(world: World) {
        let mut tracker = api(&world.observer()).track().await.unwrap();
        let mut registration = api(&world.observer()).register("a", here()).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        registration.drain().await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), updated(here().draining(true)));
        registration.undrain().await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), updated(here()));
        registration.set(here().weight(5)).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), updated(here().weight(5)));
        assert_eq!(registration.instance(), &here().weight(5));
        let error = registration.set(Instance::new("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(registration.instance(), &here().weight(5));
    }

    async fn an_id_that_is_taken_is_refused_or_taken_over(world: World) {
        let first = api(&world.observer()).register("a", here()).await.unwrap();
        let ours = world.observer();
        let error = api(&ours).register("a", here()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let lost = first.lost();
        let second = api(&ours).take_over().register("a", here().weight(7)).await.unwrap();
        assert_eq!(lost.await, Loss::Conflict);
        assert!(second.token() > first.token());
        assert!(second.is_held() && !first.is_held());
        assert_eq!(first.release().await.unwrap_err().kind(), ErrorKind::Lost);
        let now = api(&ours).instances().await.unwrap();
        assert_eq!(**now.get("a").unwrap(), here().weight(7));
    }

    async fn a_registration_that_somebody_deletes_is_back_within_a_second(world: World) {
        let client = world.observer();
        let mut tracker = api(&client).track().await.unwrap();
        let mut registration = api(&world.observer()).register("a", here()).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        let first = registration.token();
        for _ in 0..3 {
            let deleted = Instant::now();
            assert_eq!(client.delete(KEY).await.unwrap(), 1);
            until("it is back", async || client.get(KEY).await.unwrap().is_some()).await;
            assert!(deleted.elapsed() < Duration::from_secs(1));
        }
        until("it is held", async || registration.is_held() && registration.token() > first).await;
        until("it is seen", async || tracker.peek().get("a").is_some()).await;
        assert_eq!(tracker.peek().len(), 1);
        // It left and joined, as often as this reader saw it.
        let mut there = true;
        while let Some(change) = tracker.next().now_or_never() {
            match change.unwrap() {
                Change::Joined(..) if !there => there = true,
                Change::Left(_) if there => there = false,
                change => panic!("{change:?} while it was there: {there}"),
            }
        }
        assert!(there);
        registration.drain().await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), updated(here().draining(true)));
    }

    async fn a_registration_whose_lease_is_revoked_is_back_within_a_second(world: World) {
        let client = world.observer();
        let ours = world.join_with(options());
        let registration = api(&ours.client).register("a", here()).await.unwrap();
        let lease = client.get(KEY).await.unwrap().unwrap().lease.unwrap();
        let lost = registration.lost();
        let revoked = Instant::now();
        client.revoke_lease(lease).await.unwrap();
        until("it is back", async || {
            let there = client.get(KEY).await.unwrap();
            there.is_some_and(|kv| kv.lease != Some(lease))
        })
        .await;
        assert!(revoked.elapsed() < Duration::from_secs(1));
        assert_eq!(lost.now_or_never(), None);
    }

    async fn a_registration_that_is_cut_off_vanishes_and_comes_back(world: World) {
        let client = world.observer();
        let mut tracker = api(&client).track().await.unwrap();
        let ours = world.join_with(options());
        let mut registration = api(&ours.client).register("a", here()).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        ours.faults.partition(Partition::Hang);
        let cut = Instant::now();
        assert_eq!(registration.changed().await, EphemeralState::Recreating);
        assert!(!registration.is_held());
        assert_eq!(tracker.next().await.unwrap(), Change::Left("a".into()));
        assert!(cut.elapsed() < TTL + Duration::from_secs(2));
        ours.faults.heal();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        while !matches!(registration.changed().await, EphemeralState::Present { .. }) {}
    }

    async fn an_instance_with_a_time_to_live_of_its_own_vanishes_with_it(world: World) {
        let client = world.observer();
        let mut tracker = api(&client).track().await.unwrap();
        let ours = world.join();
        let registration = api(&ours.client).ttl(TTL).register("a", here()).await.unwrap();
        assert_eq!(tracker.next().await.unwrap(), joined(here()));
        ours.faults.partition(Partition::Refuse);
        let left = timeout(TTL + Duration::from_secs(2), tracker.next()).await;
        assert_eq!(left.unwrap().unwrap(), Change::Left("a".into()));
        drop(registration);
    }

    async fn a_registration_that_is_cancelled_leaves_nothing(world: World) {
        let client = world.observer();
        let ours = world.join_with(options());
        let service = api(&ours.client);
        ours.client.session().await.unwrap();
        let held = ours.faults.hold_next(quorate::backend::fault::CallKind::Txn);
        let mut register = Box::pin(service.register("a", here()));
        let early = timeout(Duration::from_millis(200), &mut register).await;
        assert!(early.is_err());
        drop(register);
        drop(held);
        until("nothing is left", async || client.get(KEY).await.unwrap().is_none()).await;
        service.register("a", here()).await.unwrap().release().await.unwrap();
    }

    async fn other_layouts_are_written(world: World) {
        let client = world.observer();
        let grpc = client.service("grpc/api").layout(Layout::Grpc);
        let mut registration = grpc.register("h:1", Instance::new("h:1")).await.unwrap();
        let value = async || client.get("grpc/api/h:1").await.unwrap().unwrap().value;
        assert_eq!(value().await, r#"{"Addr":"h:1","Metadata":null,"Op":0}"#);
        registration.drain().await.unwrap();
        let now = grpc.instances().await.unwrap();
        assert_eq!(**now.get("h:1").unwrap(), Instance::new("h:1").draining(true));

        let raw = client.service("workers").root("x").layout(Layout::Raw);
        let mut registration = raw.register("7", Instance::new("any text")).await.unwrap();
        assert_eq!(client.get("x/workers/7").await.unwrap().unwrap().value, "any text");
        let error = registration.drain().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = raw.register("8", here()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    async fn ids_and_names_that_cannot_be_are_refused(world: World) {
        let client = world.observer();
        for id in ["", "a/b"] {
            let error = api(&client).register(id, here()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let error = client.service(id).register("a", here()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let error = api(&client).register("a", Instance::new("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    async fn one_process_registers_several_services(world: World) {
        let ours = world.join();
        let mut registrations = Vec::new();
        for service in ["api", "admin", "metrics"] {
            let service = ours.client.service(service);
            registrations.push(service.register("a", here()).await.unwrap());
            registrations.push(service.register("b", here()).await.unwrap());
        }
        let services = world.observer().services().await.unwrap();
        assert_eq!(services.into_values().collect::<Vec<_>>(), [2, 2, 2]);
        ours.client.close().await.unwrap();
        let observer = world.observer();
        until("all are gone", async || observer.services().await.unwrap().is_empty()).await;
        assert_eq!(registrations[0].state(), EphemeralState::Lost(Loss::Closed));
    }
}

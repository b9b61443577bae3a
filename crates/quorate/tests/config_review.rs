//! Shared configuration where it is easily wrong: at its start, at the return of the store, and in what
//! is written.
#![cfg(feature = "config")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use quorate::{
    ConfigWatch, ConnectOptions, ErrorKind, Update, WhenDown,
    backend::fault::{CallKind, Fate, Partition},
};
use serde::{Deserialize, Serialize};
use support::until;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Limits {
    rps: u32,
}

scenarios! {
    async fn a_cached_value_is_stale_until_another_took_its_place(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(ConnectOptions::memory().timeout(Duration::from_millis(700)));
        let watch: Arc<OnceLock<ConfigWatch<Limits>>> = Arc::default();
        let seen: Arc<Mutex<Vec<(u32, bool)>>> = Arc::default();
        let (there, told) = (Arc::clone(&watch), Arc::clone(&seen));
        let config = ours.client.config::<Limits>("l").validate(move |limits| {
            if let (2, Some(watch)) = (limits.rps, there.get()) {
                told.lock().unwrap().push((watch.current().rps, watch.is_stale()));
            }
            Ok::<_, String>(())
        });
        let config = config.cache(&path, WhenDown::UseCache);
        config.set(&Limits { rps: 1 }).await.unwrap();
        drop(config.watch().await.unwrap());
        ours.faults.partition(Partition::Refuse);
        world.observer().put("l", r#"{"rps": 2}"#).await.unwrap();
        let started = config.watch().await.unwrap();
        let watch = watch.get_or_init(|| started);
        assert!(watch.is_stale());
        ours.faults.heal();
        until("it is fresh", async || !watch.is_stale()).await;
        assert_eq!(watch.current().rps, 2);
        assert_eq!(*seen.lock().unwrap(), [(1, true)]);
    }

    async fn a_watch_that_lost_the_store_at_its_start_is_stale(world: World) {
        let ours = world.join();
        let config = ours.client.config::<Limits>("l").when_down(WhenDown::Wait);
        config.set(&Limits { rps: 1 }).await.unwrap();
        let unavailable = Fate::Refuse(ErrorKind::Unavailable);
        ours.faults.every(CallKind::Range, unavailable);
        let starting = tokio::spawn(async move { config.watch().await });
        ours.faults.reached(CallKind::Range, 3).await;
        // Now it can read, and not watch any more.
        ours.faults.heal();
        ours.faults.every(CallKind::Watch, unavailable);
        ours.faults.cut_watches();
        let watch = starting.await.unwrap().unwrap();
        until("it is stale", async || watch.is_stale()).await;
        ours.faults.heal();
        until("it is fresh", async || !watch.is_stale()).await;
    }

    async fn what_cannot_be_read_back_is_not_written(world: World) {
        #[derive(Clone, Debug, Deserialize, Serialize)]
        struct Share {
            ratio: f64,
        }
        let client = world.join().client;
        let config = client.config::<Share>("s.json");
        let error = config.set(&Share { ratio: f64::NAN }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("cannot be read back"), "{error}");
        assert!(client.get("s.json").await.unwrap().is_none());
        let written = config.set(&Share { ratio: 0.5 }).await.unwrap();
        let error = config.update(|share| share.ratio /= 0.0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let there = client.get("s.json").await.unwrap().unwrap();
        assert_eq!(there.mod_revision, written);
        // YAML has a word for it.
        client.config::<Share>("s.yaml").set(&Share { ratio: f64::NAN }).await.unwrap();
    }

    async fn a_validator_that_panics_refuses_what_is_to_be_written(world: World) {
        let config = world.join().client.config::<Limits>("l").validate(|limits| {
            assert_ne!(limits.rps, 13, "an unlucky number");
            Ok::<_, String>(())
        });
        let error = config.set(&Limits { rps: 13 }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        config.set(&Limits { rps: 12 }).await.unwrap();
        let error = config.update(|limits| limits.rps += 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(config.get().await.unwrap().rps, 12);
    }

    async fn a_key_that_is_made_anew_with_the_same_value_is_told(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l");
        config.set(&Limits { rps: 1 }).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        for _ in 0..3 {
            client.delete("l").await.unwrap();
            assert!(matches!(watch.next().await.unwrap(), Update::Rejected(_)));
            let written = config.set(&Limits { rps: 1 }).await.unwrap();
            assert!(matches!(watch.next().await.unwrap(), Update::Changed(_)));
            assert_eq!((watch.revision(), watch.rejected()), (written, None));
        }
    }

    async fn all_keys_of_a_store_can_be_followed_as_one_configuration(world: World) {
        let client = world.join().client;
        let config = client.config_prefix::<Limits>("");
        client.put("rps", "1").await.unwrap();
        let mut watch = config.watch().await.unwrap();
        assert_eq!(watch.current().rps, 1);
        client.put("rps", "2").await.unwrap();
        let Update::Changed(now) = watch.next().await.unwrap() else { panic!("refused") };
        assert_eq!(now.rps, 2);
    }

    async fn a_configuration_is_stale_until_it_knows_what_it_missed(world: World) {
        let writer = world.observer();
        writer.put("l", r#"{"rps": 0}"#).await.unwrap();
        let ours = world.join();
        let watch = ours.client.config::<Limits>("l").watch().await.unwrap();
        for rps in 1..=5 {
            ours.faults.partition(Partition::Refuse);
            until("it is stale", async || watch.is_stale()).await;
            writer.put("l", format!(r#"{{"rps": {rps}}}"#)).await.unwrap();
            writer.put("other", "").await.unwrap();
            ours.faults.heal();
            until("it is fresh", async || !watch.is_stale()).await;
            assert_eq!(watch.current().rps, rps);
        }
    }

    async fn a_cache_that_is_no_file_holds_up_no_start(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let ours = world.join_with(ConnectOptions::memory().timeout(Duration::from_millis(700)));
        ours.faults.partition(Partition::Refuse);
        for path in [pipe.as_path(), directory.path(), "/dev/zero".as_ref()] {
            let config = ours.client.config::<Limits>("l").cache(path, WhenDown::UseCache);
            let error = config.watch().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains("it is no file"), "{error}");
        }
    }
}

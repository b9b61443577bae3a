//! Shared configuration: new values without a restart, and never a bad one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use quorate::{
    Client, Config, ConfigWatch, ConnectOptions, ErrorKind, Event, Format, Op, Rejected, Rejection,
    Revision, Update, WhenDown,
    backend::fault::{CallKind, Fate, Partition},
};
use serde::{Deserialize, Serialize};
use support::{etcd::Cluster, until, world::World};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Limits {
    rps: u32,
}

fn limits(rps: u32) -> Limits {
    Limits { rps }
}

fn positive(limits: &Limits) -> Result<(), &'static str> {
    match limits.rps {
        0 => Err("rps must not be 0"),
        _ => Ok(()),
    }
}

/// Options with which nothing takes long to fail.
fn impatient() -> ConnectOptions {
    ConnectOptions::memory().timeout(Duration::from_millis(700))
}

async fn changed<T: std::fmt::Debug>(watch: &mut ConfigWatch<T>) -> Arc<T> {
    match watch.next().await.unwrap() {
        Update::Changed(value) => value,
        update => panic!("not a change: {update:?}"),
    }
}

async fn rejected<T: std::fmt::Debug>(watch: &mut ConfigWatch<T>) -> Arc<Rejected> {
    match watch.next().await.unwrap() {
        Update::Rejected(rejected) => rejected,
        update => panic!("not a rejection: {update:?}"),
    }
}

async fn until_current(watch: &ConfigWatch<Limits>, rps: u32) {
    until("the value is taken over", async || {
        watch.current().rps == rps
    })
    .await;
}

fn kind<T>(result: quorate::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it should fail"),
        Err(error) => error.kind(),
    }
}

/// Lets a watch of `config` fill its cache, and ends it.
async fn fill_cache(config: &Config<Limits>, value: &Limits) -> Revision {
    let revision = config.set(value).await.unwrap();
    assert_eq!(*config.watch().await.unwrap().current(), *value);
    revision
}

scenarios! {
    async fn a_document_of_each_format_is_taken_over(world: World) {
        let client = world.join().client;
        for (key, first, second) in [
            ("cfg/a.json", r#"{"rps": 1}"#, r#"{"rps": 2}"#),
            ("cfg/b", r#"{"rps": 1}"#, r#"{"rps": 2}"#),
            ("cfg/c.toml", "rps = 1", "rps = 2 # twice"),
            ("cfg/d.yaml", "rps: 1", "# twice\nrps: 2\n"),
            ("cfg/e.yml", "rps: 1", "{rps: 2}"),
        ] {
            let written = client.put(key, first).await.unwrap();
            let config = client.config::<Limits>(key);
            let mut watch = config.watch().await.unwrap();
            assert_eq!((*watch.current()).clone(), limits(1), "{key}");
            assert_eq!(watch.revision(), written);
            assert!(!watch.is_stale());
            let written = client.put(key, second).await.unwrap();
            assert_eq!(*changed(&mut watch).await, limits(2), "{key}");
            assert_eq!((watch.current().rps, watch.revision()), (2, written));
            assert_eq!(config.get().await.unwrap(), limits(2));

            // What is written keeps the format.
            config.set(&limits(3)).await.unwrap();
            assert_eq!(changed(&mut watch).await.rps, 3, "{key}");
            config.update(|limits| limits.rps += 1).await.unwrap();
            assert_eq!(changed(&mut watch).await.rps, 4, "{key}");
            let document = client.get(key).await.unwrap().unwrap().value;
            Format::of(key).check(&document).unwrap();
            assert!(document.as_str().unwrap().contains("rps"));
        }
        let motto = client.config::<String>("cfg/motto.json").format(Format::Text);
        motto.set(&"10\n".into()).await.unwrap();
        assert_eq!(client.get("cfg/motto.json").await.unwrap().unwrap().value, "10\n");
        assert_eq!(motto.get().await.unwrap(), "10\n");
    }

    async fn a_bad_document_never_replaces_a_good_one(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("cfg/l.toml").validate(positive);
        let mut good = config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        let cases: [(&[u8], &str); 5] = [
            (b"rps = = 2", "at line 1"),
            (b"a = 1\nrps = 'many'", "expected u32"),
            (b"", "missing field `rps`"),
            (b"rps = 0", "rps must not be 0"),
            (b"rps = \xff", "UTF-8"),
        ];
        for (n, (document, reason)) in (2..).zip(cases) {
            let bad = client.put("cfg/l.toml", document).await.unwrap();
            let told = rejected(&mut watch).await;
            assert_eq!((&told.key, told.revision), (&"cfg/l.toml".into(), bad));
            assert!(told.reason.to_string().contains(reason), "{told}");
            let invalid = matches!(told.reason, Rejection::Invalid(_));
            assert_eq!(invalid, document == b"rps = 0");
            assert_eq!(watch.rejected().unwrap(), told);
            assert_eq!((watch.current().rps, watch.revision()), (n - 1, good));
            let error = config.get().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains(reason) && error.to_string().contains("cfg/l.toml"));
            assert_eq!(kind(config.watch().await), ErrorKind::InvalidData);

            good = config.set(&limits(n)).await.unwrap();
            assert_eq!(changed(&mut watch).await.rps, n);
            assert_eq!((watch.revision(), watch.rejected()), (good, None));
        }
    }

    async fn a_validator_that_panics_refuses_and_the_watch_goes_on(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l").validate(|limits| {
            assert_ne!(limits.rps, 13, "an unlucky number");
            positive(limits)
        });
        config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        client.put("l", r#"{"rps": 13}"#).await.unwrap();
        assert!(rejected(&mut watch).await.to_string().contains("panicked"));
        client.put("l", r#"{"rps": 14}"#).await.unwrap();
        assert_eq!(changed(&mut watch).await.rps, 14);
    }

    async fn a_deleted_key_leaves_the_last_good_value_and_is_told(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l");
        assert_eq!(kind(config.get().await), ErrorKind::NotFound);
        assert_eq!(kind(config.watch().await), ErrorKind::NotFound);
        assert_eq!(kind(config.update(|_| ()).await), ErrorKind::NotFound);

        config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        client.delete("l").await.unwrap();
        let told = rejected(&mut watch).await;
        assert_eq!(told.reason, Rejection::Deleted);
        assert!(told.revision > watch.revision());
        assert_eq!(watch.current().rps, 1);
        config.set(&limits(1)).await.unwrap();
        assert_eq!(changed(&mut watch).await.rps, 1);
        assert_eq!(watch.rejected(), None);
    }

    async fn a_default_stands_in_for_a_key_that_is_not_there(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l").default_value(limits(7));
        assert_eq!(config.get().await.unwrap().rps, 7);
        let mut watch = config.watch().await.unwrap();
        assert_eq!((watch.current().rps, watch.revision()), (7, Revision::ZERO));
        client.put("l", "nonsense").await.unwrap();
        assert!(matches!(rejected(&mut watch).await.reason, Rejection::Undecodable(_)));
        client.delete("l").await.unwrap();
        until("nothing is wrong again", async || watch.rejected().is_none()).await;
        config.update(|limits| limits.rps += 1).await.unwrap();
        assert_eq!(changed(&mut watch).await.rps, 8);
        // What was seen once stays; a start would find the default.
        client.delete("l").await.unwrap();
        assert_eq!(rejected(&mut watch).await.reason, Rejection::Deleted);
        assert_eq!((watch.current().rps, config.get().await.unwrap().rps), (8, 7));
    }

    async fn a_slow_reader_ends_on_the_latest_state(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l").validate(positive);
        config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        for rps in [2, 0, 3, 4] {
            client.put("l", format!(r#"{{"rps": {rps}}}"#)).await.unwrap();
        }
        until_current(&watch, 4).await;
        assert_eq!(changed(&mut watch).await.rps, 4);
        assert!(watch.next().now_or_never().is_none());

        client.put("l", r#"{"rps": 5}"#).await.unwrap();
        client.put("l", r#"{"rps": 0}"#).await.unwrap();
        until("the last is refused", async || watch.rejected().is_some()).await;
        if watch.current().rps == 5 {
            assert_eq!(changed(&mut watch).await.rps, 5);
        }
        rejected(&mut watch).await;
        assert!(watch.next().now_or_never().is_none());
    }

    async fn fields_are_read_by_key_and_never_half_of_a_transaction(world: World) {
        #[derive(Debug, Deserialize)]
        struct Api {
            from: u32,
            to: To,
            name: String,
        }
        #[derive(Debug, Deserialize)]
        struct To {
            port: u32,
        }
        let ours = world.join();
        let client = ours.client.clone();
        let write = |n: u32| {
            let client = world.observer();
            async move {
                let from = Op::put("cfg/api/from", n.to_string());
                let to = Op::put("cfg/api/to/port", n.to_string());
                client.txn().then(from).then(to).commit().await.unwrap();
            }
        };
        client.put("cfg/api/name", "10").await.unwrap();
        client.put("cfg/apiary", "no field").await.unwrap();
        write(0).await;
        let all = client.config_prefix::<serde_json::Value>("").get().await.unwrap();
        assert_eq!(all["cfg"]["apiary"], "no field");
        let config = client.config_prefix::<Api>("cfg/api").validate(|api: &Api| {
            if api.from == api.to.port { Ok(()) } else { Err("half of a transaction") }
        });
        let mut watch = config.watch().await.unwrap();
        assert_eq!((watch.current().from, watch.current().name.as_str()), (0, "10"));
        let writer = async {
            for n in 1..=100 {
                write(n).await;
                if n % 20 == 0 {
                    ours.faults.cut_watches();
                }
            }
        };
        let reader = async {
            loop {
                let now = changed(&mut watch).await;
                assert_eq!(now.from, now.to.port);
                let read = config.get().await.unwrap();
                assert_eq!(read.from, read.to.port);
                if now.from == 100 {
                    break;
                }
            }
        };
        futures_util::join!(writer, reader);
    }

    async fn a_field_that_is_a_value_and_has_fields_is_refused(world: World) {
        let client = world.join().client;
        let config = client.config_prefix::<serde_json::Value>("cfg/");
        assert_eq!(kind(config.watch().await), ErrorKind::NotFound);
        client.put("cfg/a", "1").await.unwrap();
        let mut watch = config.watch().await.unwrap();
        let bad = client.put("cfg/a/b", "2").await.unwrap();
        let told = rejected(&mut watch).await;
        assert_eq!((&told.key, told.revision), (&"cfg/a/b".into(), bad));
        assert!(told.to_string().contains("a is a value, and a/b lies below it"), "{told}");
        client.delete("cfg/a").await.unwrap();
        assert_eq!(*changed(&mut watch).await, serde_json::json!({"a": {"b": 2}}));
        let gone = client.delete_with(quorate::Delete::new("cfg/a/b")).await.unwrap().revision;
        let told = rejected(&mut watch).await;
        assert_eq!((told.revision, &told.reason), (gone, &Rejection::Deleted));
    }

    async fn no_increment_is_lost_among_many_writers(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l.yaml");
        config.set(&limits(0)).await.unwrap();
        let writers = (0..8).map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    config.update(|limits| limits.rps += 1).await.unwrap();
                }
            })
        });
        join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
        assert_eq!(config.get().await.unwrap().rps, 80);
    }

    async fn nothing_is_written_that_the_own_validator_refuses(world: World) {
        let client = world.join().client;
        let config = client.config::<Limits>("l.toml").validate(positive);
        assert_eq!(kind(config.set(&limits(0)).await), ErrorKind::InvalidArgument);
        assert!(client.get("l.toml").await.unwrap().is_none());
        let document = "rps = 1 # as agreed";
        let written = client.put("l.toml", document).await.unwrap();
        let refused = config.update(|limits| limits.rps = 0).await;
        assert_eq!(kind(refused), ErrorKind::InvalidArgument);
        // What is not changed stays as somebody wrote it.
        assert_eq!(config.update(|limits| limits.rps = 1).await.unwrap(), written);
        assert_eq!(client.get("l.toml").await.unwrap().unwrap().value, document);
        client.put("l.toml", "rps = ?").await.unwrap();
        assert_eq!(kind(config.update(|_| ()).await), ErrorKind::InvalidData);
    }

    async fn a_start_without_the_store_takes_the_cache_and_catches_up(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.cache");
        for partition in [Partition::Refuse, Partition::Hang] {
            let ours = world.join_with(impatient());
            let config = ours.client.config::<Limits>("l").cache(&path, WhenDown::UseCache);
            let cached = fill_cache(&config, &limits(1)).await;

            ours.faults.partition(partition);
            let mut watch = config.watch().await.unwrap();
            assert!(watch.is_stale());
            assert_eq!((watch.current().rps, watch.revision()), (1, cached));
            assert!(watch.next().now_or_never().is_none());
            let written = world.observer().put("l", r#"{"rps": 2}"#).await.unwrap();
            assert_eq!(watch.current().rps, 1);

            ours.faults.heal();
            assert_eq!(changed(&mut watch).await.rps, 2);
            assert_eq!(watch.revision(), written);
            until("it is fresh", async || !watch.is_stale()).await;
            until("the cache is written", async || {
                fs::read_to_string(&path).unwrap().contains(&format!("\"revision\": {written}"))
            })
            .await;
        }
    }

    async fn a_cache_that_is_up_to_date_is_no_change_once_the_store_is_there(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(impatient());
        let config = ours.client.config::<Limits>("l").cache(&path, WhenDown::UseCache);
        fill_cache(&config, &limits(1)).await;
        ours.faults.partition(Partition::Refuse);
        let mut watch = config.watch().await.unwrap();
        ours.faults.heal();
        until("it is fresh", async || !watch.is_stale()).await;
        assert!(watch.next().now_or_never().is_none());
        ours.faults.partition(Partition::Refuse);
        until("it is stale", async || watch.is_stale()).await;
        ours.faults.heal();
        until("it is fresh again", async || !watch.is_stale()).await;
    }

    async fn a_start_without_the_store_fails_or_waits_as_was_said(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(impatient());
        let config = ours.client.config::<Limits>("l");
        fill_cache(&config.clone().cache(&path, WhenDown::Fail), &limits(1)).await;
        let missing = directory.path().join("missing");
        for partition in [Partition::Refuse, Partition::Hang] {
            ours.faults.partition(partition);
            for config in [
                config.clone(),
                config.clone().cache(&path, WhenDown::Fail),
                config.clone().cache(&missing, WhenDown::UseCache),
            ] {
                let error = config.watch().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.is_retryable() && error.to_string().contains("config l"), "{error}");
            }
            let waiting = config.clone().when_down(WhenDown::Wait);
            let waiting = tokio::spawn(async move { waiting.watch().await });
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(!waiting.is_finished());
            ours.faults.heal();
            assert_eq!(waiting.await.unwrap().unwrap().current().rps, 1);
        }
        let error = config.clone().when_down(WhenDown::UseCache).watch().await;
        assert_eq!(kind(error), ErrorKind::InvalidArgument);
    }

    async fn a_cache_that_cannot_be_trusted_is_refused(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(impatient());
        let config = |key: &str| ours.client.config::<Limits>(key).cache(&path, WhenDown::UseCache);
        fill_cache(&config("l"), &limits(17)).await;
        let good = fs::read_to_string(&path).unwrap();
        ours.faults.partition(Partition::Refuse);
        let refused = async |config: Config<Limits>, why: &str| {
            let error = config.watch().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            let (told, path) = (error.to_string(), path.display().to_string());
            assert!(told.contains(why) && told.contains(&path), "{told}");
        };
        refused(config("other"), "is of key l in namespace").await;
        refused(config("l").validate(|_: &Limits| Err("never")), "never").await;
        let elsewhere = ours.client.namespace("prod").config::<Limits>("l");
        refused(elsewhere.cache(&path, WhenDown::UseCache), "namespace \"prod/\"").await;
        let as_prefix = ours.client.config_prefix::<Limits>("l").cache(&path, WhenDown::UseCache);
        assert_eq!(kind(as_prefix.watch().await), ErrorKind::InvalidData);

        for damaged in [
            good.replace("17", "18"),
            good[..good.len() / 2].to_owned(),
            String::new(),
            "[".repeat(10_000),
            "{}".to_owned(),
        ] {
            fs::write(&path, damaged).unwrap();
            refused(config("l"), "is damaged").await;
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        refused(config("l"), "cannot be read").await;
        fs::write(&path, good).unwrap();
        assert_eq!(config("l").watch().await.unwrap().current().rps, 17);
    }

    async fn a_cache_holds_all_fields_of_a_prefix(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(impatient());
        let config = ours.client.config_prefix::<serde_json::Value>("cfg/");
        let config = config.cache(&path, WhenDown::UseCache);
        ours.client.put("cfg/a/b", "1").await.unwrap();
        ours.client.put("cfg/c", "text").await.unwrap();
        let value = (*config.watch().await.unwrap().current()).clone();
        assert_eq!(value, serde_json::json!({"a": {"b": 1}, "c": "text"}));
        ours.faults.partition(Partition::Refuse);
        assert_eq!(*config.watch().await.unwrap().current(), value);
    }

    async fn a_cache_is_for_its_owner_and_one_that_cannot_be_written_is_done_without(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let client = world.join().client;
        let config = client.config::<Limits>("l");
        let path = directory.path().join("cache");
        fs::write(&path, "what was there").unwrap();
        fill_cache(&config.clone().cache(&path, WhenDown::UseCache), &limits(1)).await;
        assert_eq!(names(directory.path()), ["cache"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for nowhere in [directory.path().join("missing/cache"), directory.path().to_owned()] {
            let config = config.clone().cache(nowhere, WhenDown::UseCache);
            let mut watch = config.watch().await.unwrap();
            config.update(|limits| limits.rps += 1).await.unwrap();
            changed(&mut watch).await;
        }
        assert_eq!(names(directory.path()), ["cache"]);
    }

    async fn a_start_with_a_bad_document_takes_the_cache(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let client = world.join().client;
        let config = client.config::<Limits>("l");
        let config = config.default_value(limits(9)).cache(&path, WhenDown::UseCache);
        let good = fill_cache(&config, &limits(1)).await;
        let bad = client.put("l", "nonsense").await.unwrap();
        let mut watch = config.watch().await.unwrap();
        assert_eq!((watch.current().rps, watch.revision()), (1, good));
        assert!(!watch.is_stale());
        assert_eq!(rejected(&mut watch).await.revision, bad);
        config.set(&limits(2)).await.unwrap();
        assert_eq!(changed(&mut watch).await.rps, 2);
    }

    async fn a_document_that_is_refused_does_not_get_into_the_cache(world: World) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let ours = world.join_with(impatient());
        let config = ours.client.config::<Limits>("l").cache(&path, WhenDown::UseCache);
        let good = config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        let kept = fs::read(&path).unwrap();
        ours.client.put("l", "nonsense").await.unwrap();
        rejected(&mut watch).await;
        // It is judged after all that was done about the one before.
        ours.client.put("l", "worse").await.unwrap();
        rejected(&mut watch).await;
        assert_eq!(fs::read(&path).unwrap(), kept);
        drop(watch);
        ours.faults.partition(Partition::Refuse);
        let watch = config.watch().await.unwrap();
        assert_eq!((watch.current().rps, watch.revision()), (1, good));
    }

    async fn a_watch_follows_through_cuts_and_partitions(world: World) {
        let ours = world.join();
        let writer = world.observer();
        writer.put("l", r#"{"rps": 0}"#).await.unwrap();
        let watch = ours.client.config::<Limits>("l").watch().await.unwrap();
        for rps in 1..=12 {
            match rps % 3 {
                0 => ours.faults.cut_watches(),
                1 => ours.faults.partition(Partition::Refuse),
                _ => ours.faults.next(CallKind::Watch, Fate::LoseReply),
            }
            writer.put("l", format!(r#"{{"rps": {rps}}}"#)).await.unwrap();
            ours.faults.heal();
            until_current(&watch, rps).await;
        }
        until("it is fresh", async || !watch.is_stale()).await;
    }

    async fn what_the_store_refuses_for_good_ends_a_watch_and_leaves_its_value(world: World) {
        let ours = world.join();
        let config = ours.client.config::<Limits>("l").when_down(WhenDown::Wait);
        config.set(&limits(1)).await.unwrap();
        let mut watch = config.watch().await.unwrap();
        let denied = Fate::Refuse(ErrorKind::PermissionDenied);
        ours.faults.every(CallKind::Watch, denied);
        ours.faults.cut_watches();
        for _ in 0..2 {
            assert_eq!(kind(watch.next().await), ErrorKind::PermissionDenied);
        }
        assert_eq!((watch.current().rps, watch.is_stale()), (1, true));
        assert_eq!(kind(config.watch().await), ErrorKind::PermissionDenied);
    }

    async fn a_dropped_watch_leaves_nothing_running(world: World) {
        let ours = world.join();
        let config = ours.client.config::<Limits>("l");
        config.set(&limits(1)).await.unwrap();
        let watches = [config.watch().await.unwrap(), config.watch().await.unwrap()];
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
        drop(watches);
        until("the stream is closed", async || ours.faults.open_streams(CallKind::Watch) == 0).await;

        // One that was given up at its start leaves nothing either.
        ours.faults.partition(Partition::Hang);
        let waiting = config.when_down(WhenDown::Wait);
        let given_up = tokio::time::timeout(Duration::from_millis(100), waiting.watch()).await;
        assert!(given_up.is_err());
        ours.faults.heal();
        until("no stream is open", async || ours.faults.open_streams(CallKind::Watch) == 0).await;
    }

    async fn a_value_of_the_past_is_written_again_unless_somebody_was_faster(world: World) {
        let ours = world.join();
        let client = &ours.client;
        let before = client.put("other", "").await.unwrap();
        let good = client.put("l", "10").await.unwrap();
        let bad = client.put("l", "oops").await.unwrap();
        client.config_rollback("l", good).await.unwrap();
        let kv = client.get("l").await.unwrap().unwrap();
        assert_eq!((kv.value.as_str(), kv.version), (Some("10"), 3));
        client.delete("l").await.unwrap();
        client.config_rollback("l", bad).await.unwrap();
        assert_eq!(client.get("l").await.unwrap().unwrap().value, "oops");
        assert_eq!(kind(client.config_rollback("l", before).await), ErrorKind::NotFound);
        for never in [Revision::ZERO, Revision(-3), Revision(i64::MAX)] {
            assert_eq!(kind(client.config_rollback("l", never).await), ErrorKind::InvalidArgument);
        }

        let sent = ours.faults.count(CallKind::Txn);
        let held = ours.faults.hold_next(CallKind::Txn);
        let rollback = tokio::spawn({
            let client = client.clone();
            async move { client.config_rollback("l", good).await }
        });
        ours.faults.reached(CallKind::Txn, sent + 1).await;
        world.observer().put("l", "mine").await.unwrap();
        held.let_through();
        assert_eq!(kind(rollback.await.unwrap()), ErrorKind::Conflict);
        assert_eq!(client.get("l").await.unwrap().unwrap().value, "mine");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Tests that compact.
mod alone {
    use super::*;

    /// What a history holds, as text.
    async fn told(client: &Client, key: &str) -> (Vec<(i64, Option<String>)>, Option<i64>) {
        let history = client.config_history(key).await.unwrap();
        let versions = history.versions.iter().map(|event| {
            let value = match event {
                Event::Put { kv, .. } => Some(kv.value.to_string()),
                Event::Delete { .. } => None,
            };
            (event.revision().0, value)
        });
        (versions.collect(), history.compacted.map(|oldest| oldest.0))
    }

    scenarios! {
        alone

        async fn a_compaction_behind_a_partition_is_no_gap(world: World) {
            let ours = world.join();
            let writer = world.observer();
            writer.put("l", r#"{"rps": 1}"#).await.unwrap();
            let config = ours.client.config::<Limits>("l");
            let mut watch = config.watch().await.unwrap();
            for rps in [2, 3] {
                ours.faults.partition(Partition::Refuse);
                until("it is stale", async || watch.is_stale()).await;
                let written = writer.put("l", format!(r#"{{"rps": {rps}}}"#)).await.unwrap();
                let later = writer.put("other", "").await.unwrap();
                writer.compact(later, false).await.unwrap();
                ours.faults.heal();
                assert_eq!(changed(&mut watch).await.rps, rps);
                assert_eq!(watch.revision(), written);
            }
            ours.faults.partition(Partition::Refuse);
            until("it is stale", async || watch.is_stale()).await;
            writer.delete("l").await.unwrap();
            let later = writer.put("other", "").await.unwrap();
            writer.compact(later, false).await.unwrap();
            ours.faults.heal();
            assert_eq!(rejected(&mut watch).await.reason, Rejection::Deleted);
            assert_eq!(watch.current().rps, 3);
            // What does not touch the key is no change, even if the state is read anew.
            ours.faults.partition(Partition::Refuse);
            until("it is stale", async || watch.is_stale()).await;
            let later = writer.put("other", "").await.unwrap();
            writer.compact(later, false).await.unwrap();
            ours.faults.heal();
            until("it is fresh", async || !watch.is_stale()).await;
            config.set(&limits(4)).await.unwrap();
            assert_eq!(changed(&mut watch).await.rps, 4);
        }

        async fn a_history_shows_every_version_that_is_kept(world: World) {
            let ours = world.join();
            let client = &ours.client;
            assert_eq!(told(client, "k").await, (vec![], None));
            let mut expected = Vec::new();
            for n in 0..3 {
                for value in ["a", "b"] {
                    let value = format!("{value}{n}");
                    let written = client.put("k", value.clone()).await.unwrap();
                    client.put("k-not", "x").await.unwrap();
                    expected.insert(0, (written.0, Some(value)));
                }
                assert_eq!(told(client, "k").await, (expected.clone(), None));
                let gone = client.delete_with(quorate::Delete::new("k")).await.unwrap();
                expected.insert(0, (gone.revision.0, None));
                // Of a key that is not there now, too.
                assert_eq!(told(client, "k").await, (expected.clone(), None));
            }
            // Compacted at the first version of the second life: that stands, what is before is gone.
            let second = Revision(expected[5].0);
            client.compact(second, false).await.unwrap();
            expected.truncate(6);
            assert_eq!(told(client, "k").await, (expected.clone(), Some(second.0)));
            // Compacted between: the version that stood then is there, with its own revision.
            client.compact(second.next(), false).await.unwrap();
            assert_eq!(told(client, "k").await, (expected.clone(), Some(second.next().0)));
            ours.faults.next(CallKind::Watch, Fate::LoseReply);
            assert_eq!(told(client, "k").await.0, expected);
            // Of what was never there, after a compaction.
            assert_eq!(told(client, "never").await, (vec![], Some(second.next().0)));

            ours.faults.partition(Partition::Refuse);
            assert!(client.config_history("k").await.unwrap_err().is_retryable());
        }

        async fn a_long_history_is_told_to_its_end(world: World) {
            let client = world.join().client;
            let mut ops: i64 = 0;
            while ops < 2500 {
                let puts = (0..50).map(|n| {
                    let client = client.clone();
                    async move { client.put("k", format!("{n}")).await.unwrap() }
                });
                ops += join_all(puts).await.len() as i64;
            }
            client.delete("k").await.unwrap();
            let history = client.config_history("k").await.unwrap();
            assert_eq!(history.versions.len(), 2501);
            let ordered = history.versions.is_sorted_by(|a, b| a.revision() > b.revision());
            assert!(ordered && matches!(history.versions[0], Event::Delete { .. }));
        }

        async fn a_version_that_is_compacted_away_is_not_rolled_back_to(world: World) {
            let client = world.join().client;
            let first = client.put("k", "1").await.unwrap();
            let second = client.put("k", "2").await.unwrap();
            let later = client.put("other", "").await.unwrap();
            client.put("k", "3").await.unwrap();
            client.compact(later, false).await.unwrap();
            let error = client.config_rollback("k", first).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Compacted);
            assert!(error.to_string().contains("the value of k at revision"), "{error}");
            // This one stood when it was compacted, so it is still known.
            client.config_rollback("k", second).await.unwrap();
            assert_eq!(client.get("k").await.unwrap().unwrap().value, "2");
        }
    }
}

#[tokio::test]
async fn a_program_starts_while_every_server_is_down_and_catches_up() {
    let servers = Cluster::builder().start();
    let options = ConnectOptions::parse(&servers.endpoint(0)).unwrap();
    let options = options.timeout(Duration::from_millis(700));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    let config = async || {
        let client = Client::connect(options.clone()).await.unwrap();
        client
            .config::<Limits>("l")
            .cache(&path, WhenDown::UseCache)
    };
    fill_cache(&config().await, &limits(1)).await;
    servers.kill(0);

    let config = config().await;
    let mut watch = config.watch().await.unwrap();
    assert_eq!((watch.current().rps, watch.is_stale()), (1, true));
    servers.restart(0);
    until("it is fresh", async || !watch.is_stale()).await;
    config.set(&limits(2)).await.unwrap();
    assert_eq!(changed(&mut watch).await.rps, 2);
}

/// On virtual time only, since these tell how long something takes.
mod debounce {
    use super::*;

    const QUIET: Duration = Duration::from_secs(1);

    async fn watched(world: &World) -> (Client, ConfigWatch<Limits>) {
        let client = world.join().client;
        let config = client.config::<Limits>("l").debounce(QUIET);
        config.set(&limits(0)).await.unwrap();
        let watch = config.watch().await.unwrap();
        (client, watch)
    }

    async fn put(client: &Client, rps: u32) {
        client
            .put("l", format!(r#"{{"rps": {rps}}}"#))
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_change_after_it_is_over() {
        let (client, mut watch) = watched(&World::memory()).await;
        for rps in 1..=8 {
            tokio::time::sleep(QUIET / 2).await;
            put(&client, rps).await;
            assert_eq!(watch.current().rps, 0);
        }
        let last = tokio::time::Instant::now();
        assert_eq!(changed(&mut watch).await.rps, 8);
        let waited = last.elapsed();
        assert!(waited >= QUIET && waited < QUIET * 11 / 10, "{waited:?}");
        assert!(watch.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_becomes_quiet_is_taken_over_all_the_same() {
        let (client, mut watch) = watched(&World::memory()).await;
        let writer = tokio::spawn(async move {
            for rps in 1.. {
                put(&client, rps).await;
                tokio::time::sleep(QUIET / 10).await;
            }
        });
        let begin = tokio::time::Instant::now();
        for n in 1..=3 {
            changed(&mut watch).await;
            let waited = begin.elapsed();
            assert!(
                waited > QUIET * 5 * n - QUIET && waited < QUIET * 53 * n / 10,
                "{waited:?}"
            );
        }
        writer.abort();
    }
}

//! Watches tell of the past and of what happens.

use crate::support::etcdctl::{Running, Told, same};

/// Changes of every kind, which a watch may be late for.
const CHANGES: &[&str] = &[
    "put a/1 one",
    "put a/2 two",
    "put b bee",
    "put a/1 uno",
    "del a/2",
    "txn <<< \nput a/3 three\ndel a/1\n\n\n",
    "put a/2 two",
    "del --prefix a/",
    "put a/1 end",
];

/// What tells of the last of them.
const END: &[&str] = &["end", "ZW5k", r"\x65\x6e\x64"];

/// Watches of the past.
const PAST: &[&str] = &[
    "watch --rev=2 --prefix a/",
    "watch --rev=2 --prefix a/ --prev-kv",
    "watch --rev=5 a/1",
    "watch --rev=5 a/1 --prev-kv",
    "watch --rev=2 a/1 a/3",
    "watch --rev=2 --prefix ''",
    "watch --rev=2 --prefix a/ -w json",
    "watch --rev=2 --prefix a/ --prev-kv -w json",
    "watch --rev=2 --prefix a/ --hex",
    "watch --rev=4 a/1 -w fields",
    "watch --rev=2 a/1 -- echo changed",
];

async fn all(mut running: Running) -> String {
    let told = running.until(END).await;
    running.kill().await;
    told
}

#[tokio::test]
async fn the_past_is_told() {
    let told = same(async |_, etcdctl| {
        for change in CHANGES {
            assert_eq!(etcdctl.told(change).await.code, Some(0));
        }
        let mut told = Vec::new();
        for line in PAST {
            told.push((*line, all(etcdctl.start(line)).await));
        }
        told
    })
    .await;
    assert_eq!(told.len(), PAST.len());
}

#[tokio::test]
async fn the_present_is_told() {
    same(async |_, etcdctl| {
        // So that it is known when they listen, all of them begin with the past.
        let mut told = vec![etcdctl.told("put a/0 zero").await.stdout];
        let mut watches = Vec::new();
        for line in [
            "watch --rev=2 --prefix a/",
            "watch --rev=2 --prefix a/ --prev-kv",
            "watch --rev=2 --from-key ''",
        ] {
            let mut watch = etcdctl.start(line);
            told.push(watch.lines(3).await);
            watches.push(watch);
        }
        for change in CHANGES {
            assert_eq!(etcdctl.told(change).await.code, Some(0));
        }
        for watch in watches {
            told.push(all(watch).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn watches_are_told_of_compactions() {
    same(async |_, etcdctl| {
        let mut told: Vec<Told> = Vec::new();
        for change in CHANGES {
            told.push(etcdctl.told(change).await);
        }
        for line in [
            "compaction 6",
            "watch --rev=2 a/1",
            "watch --rev=5 --prefix ''",
            "watch --rev=5 --prefix '' -w json",
            "get --rev=2 a/1",
            "get --rev=5 a/1",
            "get --rev=6 a/1",
            "compaction 6",
            "compaction 3",
            "compaction 100",
            "compaction --physical 8",
            "compaction 9 -w json",
            "compaction",
            "compaction nonsense",
        ] {
            told.push(etcdctl.told(line).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn watches_are_typed_in() {
    same(async |_, etcdctl| {
        for change in CHANGES {
            etcdctl.told(change).await;
        }
        let mut told = Vec::new();
        let mut watch = etcdctl.start("watch -i");
        watch.type_in("watch --rev=4 b").await;
        told.push(watch.lines(3).await);
        watch.type_in("watch --rev=5 --prefix a/ --prev-kv").await;
        told.push(watch.lines(5).await);
        watch.type_in("watch --rev=2 a/2 -- echo seen").await;
        told.push(watch.lines(4).await);
        watch.type_in("progress").await;
        watch.type_in("watch nonsense --fly").await;
        let (rest, errors, code) = watch.end().await;
        // What was under way at its end may be told or not.
        told.push(format!("{errors} {code:?} {}", rest.is_empty()));
        told
    })
    .await;
}

#[tokio::test]
async fn progress_is_told_on_demand() {
    same(async |_, etcdctl| {
        for change in CHANGES {
            etcdctl.told(change).await;
        }
        let mut watch = etcdctl.start("watch -i");
        watch.type_in("watch --rev=4 b").await;
        let mut told = vec![watch.lines(3).await];
        watch.type_in("progress").await;
        told.push(watch.lines(1).await);
        watch.kill().await;
        told
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_watch_ends() {
    same(async |_, etcdctl| {
        etcdctl.told("put k v").await;
        let mut watch = etcdctl.start("watch --rev=2 k");
        let mut told = vec![watch.lines(3).await];
        watch.interrupt();
        told.push(format!("{:?}", watch.end().await));
        told
    })
    .await;
}

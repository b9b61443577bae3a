//! Observers: the state, then every change once and in order, whatever happens.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, ConnectOptions, Delete, ErrorKind, Event, Key, KeyRange, Observed, Observer, Op,
    Revision, Value,
    backend::fault::{CallKind, Fate, Partition},
};
use support::{until, world::World};
use tokio::time::timeout;

fn all() -> KeyRange {
    KeyRange::prefix("k/")
}

/// What an observer told, put together; it checks that nothing comes twice or out of order.
#[derive(Debug, Default)]
struct Copy {
    keys: BTreeMap<Key, Value>,
    revision: Revision,
    changes: Vec<Revision>,
    resets: usize,
}

impl Copy {
    fn take(&mut self, observed: Observed) {
        match observed {
            Observed::Reset(all) => {
                self.resets += 1;
                self.revision = all.revision;
                let pairs = all.kvs.into_iter().map(|kv| (kv.key, kv.value));
                self.keys = pairs.collect();
            }
            Observed::Changes(changes) => {
                assert!(
                    changes.revision() > self.revision,
                    "{changes:?} after {}",
                    self.revision
                );
                self.revision = changes.revision();
                self.changes.push(self.revision);
                for event in &changes {
                    assert_eq!(event.revision(), self.revision);
                    match event {
                        Event::Put { kv, .. } => self.keys.insert(kv.key.clone(), kv.value.clone()),
                        Event::Delete { key, .. } => self.keys.remove(key),
                    };
                }
            }
        }
    }

    /// Takes what is told until `done`.
    async fn follow(&mut self, observer: &mut Observer, done: impl Fn(&Self) -> bool) {
        let told = timeout(Duration::from_secs(60), async {
            while !done(self) {
                self.take(next(observer).await);
            }
        });
        assert!(told.await.is_ok(), "waited in vain: {self:?}");
    }

    /// Takes what is told until it is up to `revision`.
    async fn follow_to(&mut self, observer: &mut Observer, revision: Revision) {
        self.follow(observer, |copy| copy.revision >= revision)
            .await;
    }
}

async fn next(observer: &mut Observer) -> Observed {
    observer
        .next()
        .await
        .expect("an observer never just ends")
        .unwrap()
}

/// Deletes a key, and tells at which revision.
async fn delete(client: &Client, key: &str) -> Revision {
    client.delete_with(Delete::new(key)).await.unwrap().revision
}

/// The keys as they are.
async fn present(client: &Client) -> BTreeMap<Key, Value> {
    let kvs = client.list("k/").await.unwrap();
    kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

scenarios! {
    async fn an_observer_tells_the_state_then_every_change(world: World) {
        let client = world.observer();
        client.put("k/1", "a").await.unwrap();
        client.put("other", "x").await.unwrap();
        let mut observer = client.observe(all());
        let mut copy = Copy::default();
        copy.take(next(&mut observer).await);
        assert_eq!((copy.resets, copy.keys.len()), (1, 1));
        assert!(observer.next().now_or_never().is_none());
        let put = client.put("k/2", "b").await.unwrap();
        client.put("other", "y").await.unwrap();
        let deleted = delete(&client, "k/1").await;
        copy.follow_to(&mut observer, deleted).await;
        assert_eq!(copy.changes, [put, deleted]);
        assert_eq!(copy.keys, present(&client).await);
    }

    async fn the_changes_of_one_transaction_are_told_together(world: World) {
        let client = world.observer();
        client.put("k/3", "old").await.unwrap();
        let mut observer = client.observe(all()).from_now().prev_kv();
        observer.opened().await.unwrap();
        let txn = client.txn().then(Op::put("k/1", "v")).then(Op::put("k/2", "v")).then(Op::delete("k/3"));
        txn.commit().await.unwrap();
        let Observed::Changes(changes) = next(&mut observer).await else { panic!("a reset") };
        let keys: Vec<_> = changes.events().iter().map(|event| event.key().to_string()).collect();
        assert_eq!(keys, ["k/1", "k/2", "k/3"]);
        let Event::Delete { prev: Some(prev), .. } = &changes.events()[2] else {
            panic!("no previous value: {changes:?}");
        };
        assert_eq!(prev.value, "old");
    }

    async fn an_observer_of_one_key_sees_no_other(world: World) {
        let client = world.observer();
        let mut observer = client.observe("k/1");
        let Observed::Reset(state) = next(&mut observer).await else { panic!("no state") };
        assert_eq!(state.kvs, []);
        client.put("k/10", "v").await.unwrap();
        let put = client.put("k/1", "v").await.unwrap();
        let Observed::Changes(changes) = next(&mut observer).await else { panic!("a reset") };
        assert_eq!(changes.revision(), put);
    }

    async fn an_observer_from_a_revision_tells_that_one_too(world: World) {
        let client = world.observer();
        client.put("k/1", "a").await.unwrap();
        let first = client.put("k/1", "b").await.unwrap();
        let second = client.put("k/2", "c").await.unwrap();
        let mut observer = client.observe(all()).from(first);
        let mut copy = Copy::default();
        copy.follow_to(&mut observer, second).await;
        let third = client.put("k/3", "d").await.unwrap();
        copy.follow_to(&mut observer, third).await;
        assert_eq!((copy.resets, copy.changes), (0, vec![first, second, third]));
    }

    async fn an_observer_from_a_revision_to_come_waits_for_it(world: World) {
        let client = world.observer();
        let now = client.put("k/1", "a").await.unwrap();
        let mut observer = client.observe(all()).from(Revision(now.0 + 3));
        observer.opened().await.unwrap();
        let mut last = now;
        while last.0 < now.0 + 4 {
            last = client.put("k/1", "b").await.unwrap();
        }
        let mut copy = Copy::default();
        copy.follow_to(&mut observer, last).await;
        assert!(copy.changes[0].0 >= now.0 + 3 && copy.changes.len() <= 2);
    }

    async fn an_observer_from_now_tells_nothing_older(world: World) {
        let ours = world.join();
        let writer = world.observer();
        // Another observer of the same keys that has not been told the latest yet.
        let mut other = ours.client.observe(all());
        next(&mut other).await;
        ours.faults.delay_events(Duration::from_secs(1));
        writer.put("k/1", "a").await.unwrap();
        let mut observer = ours.client.observe(all()).from_now();
        observer.opened().await.unwrap();
        let put = writer.put("k/1", "b").await.unwrap();
        let Observed::Changes(changes) = next(&mut observer).await else { panic!("a reset") };
        assert_eq!(changes.revision(), put);
    }

    async fn an_observer_filters(world: World) {
        let client = world.observer();
        let start = client.put("k/1", "a").await.unwrap();
        let deleted = delete(&client, "k/1").await;
        let put = client.put("k/2", "a").await.unwrap();
        let mut copy = Copy::default();
        copy.follow_to(&mut client.observe(all()).from(start).puts_only(), put).await;
        assert_eq!(copy.changes, [start, put]);
        let mut copy = Copy::default();
        let mut deletions = client.observe(all()).from(start).deletes_only();
        copy.follow_to(&mut deletions, deleted).await;
        assert_eq!(copy.changes, [deleted]);
        assert!(deletions.next().now_or_never().is_none());
    }

    async fn an_observer_until_deleted_ends_after_the_deletion(world: World) {
        let client = world.observer();
        for puts_only in [false, true] {
            let mut observer = client.observe("k/1").until_deleted();
            if puts_only {
                observer = observer.puts_only();
            }
            // It waits for a key that is not there yet.
            let Observed::Reset(_) = next(&mut observer).await else { panic!("no state") };
            client.put("k/1", "a").await.unwrap();
            let deleted = delete(&client, "k/1").await;
            client.put("k/1", "b").await.unwrap();
            let mut told = Vec::new();
            while let Some(observed) = observer.next().await {
                match observed.unwrap() {
                    Observed::Changes(changes) => told.push(changes.revision()),
                    Observed::Reset(_) => panic!("a reset"),
                }
            }
            assert_eq!(told.contains(&deleted), !puts_only);
            assert_eq!(told.len(), if puts_only { 1 } else { 2 });
            client.delete("k/1").await.unwrap();
        }
        let mut range = client.observe(all()).until_deleted();
        assert_eq!(range.next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(range.next().await.is_none());
    }

    async fn one_change_can_be_waited_for(world: World) {
        let client = world.observer();
        client.put("k/1", "a").await.unwrap();
        let waiter = tokio::spawn(client.observe("k/1").next_change());
        // Whenever the waiter begins, there is a change to come.
        let changed = timeout(Duration::from_secs(30), async {
            let mut waiter = waiter;
            loop {
                client.put("k/1", "b").await.unwrap();
                if let Ok(changed) = timeout(Duration::from_millis(20), &mut waiter).await {
                    break changed.unwrap().unwrap();
                }
            }
        });
        let Observed::Changes(changes) = changed.await.unwrap() else { panic!("a reset") };
        assert!(matches!(&changes.events()[0], Event::Put { kv, .. } if kv.value == "b"));
    }

    async fn a_condition_can_be_waited_for(world: World) {
        let client = world.observer();
        let waiting = client.observe(all()).wait_for(|keys| keys.len() == 2 && !keys.contains_key(&"k/1".into()));
        let waiter = tokio::spawn(waiting);
        for n in 1..=3 {
            client.put(format!("k/{n}"), "v").await.unwrap();
        }
        client.delete("k/1").await.unwrap();
        let keys = waiter.await.unwrap().unwrap();
        assert_eq!(keys.keys().map(Key::to_string).collect::<Vec<_>>(), ["k/2", "k/3"]);
        let half = client.observe(all()).puts_only().wait_for(|_| true).await;
        assert_eq!(half.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    async fn what_can_never_be_told_is_refused(world: World) {
        let client = world.observer();
        for observer in [
            client.observe(""),
            client.observe(KeyRange::between("b", "a")),
            client.observe("k").from(Revision::ZERO),
        ] {
            let mut observer = observer;
            let error = observer.opened().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(observer.next().await.unwrap().is_err());
            assert!(observer.next().await.is_none());
        }
    }

    async fn what_the_store_refuses_for_good_is_the_last_item(world: World) {
        let ours = world.join();
        for kind in [CallKind::Watch, CallKind::Range] {
            ours.faults.next(kind, Fate::Refuse(ErrorKind::PermissionDenied));
            let mut observer = ours.client.observe(all());
            let error = observer.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(observer.next().await.is_none());
        }
    }

    async fn identical_observers_share_one_watch(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let mut observers: Vec<_> = (0..50).map(|_| ours.client.observe(all())).collect();
        assert_eq!(ours.faults.total(), 0, "observers are lazy");
        for observer in &mut observers {
            next(observer).await;
        }
        // A clone of the client and the same namespace twice are the same.
        let clone = ours.client.clone();
        let mut more = [clone.observe(all()), ours.client.namespace("n").observe("x"), clone.namespace("n").observe("x")];
        for observer in &mut more {
            next(observer).await;
        }
        assert_eq!(ours.faults.count(CallKind::Watch), 2);
        let put = writer.put("k/1", "v").await.unwrap();
        for observer in observers.iter_mut().chain(&mut more[..1]) {
            let Observed::Changes(changes) = next(observer).await else { panic!("a reset") };
            assert_eq!(changes.revision(), put);
        }
        drop((observers, more));
        until("the watches are closed", async || ours.faults.open_streams(CallKind::Watch) == 0).await;
    }

    async fn a_slow_observer_catches_up_and_holds_up_nobody(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let mut quick = ours.client.observe(all());
        let mut slow = ours.client.observe(all());
        let (mut told_quick, mut told_slow) = (Copy::default(), Copy::default());
        told_quick.take(next(&mut quick).await);
        told_slow.take(next(&mut slow).await);
        // Far more than is kept for those who are slow.
        let value = "x".repeat(256 << 10);
        let mut written = Vec::new();
        for n in 0..40 {
            written.push(writer.put(format!("k/{n}"), &*value).await.unwrap());
            told_quick.follow_to(&mut quick, written[n]).await;
        }
        assert_eq!(told_quick.changes, written);
        assert_eq!(ours.faults.open_streams(CallKind::Watch), 1);
        told_slow.follow_to(&mut slow, written[39]).await;
        assert_eq!(told_slow.changes, written);
        assert_eq!(ours.faults.count(CallKind::Watch), 2, "the slow one read for itself");
        // It is one of the others again.
        let last = writer.put("k/1", "v").await.unwrap();
        told_slow.follow_to(&mut slow, last).await;
        until("its own watch is closed", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
        let last = writer.put("k/1", "w").await.unwrap();
        told_slow.follow_to(&mut slow, last).await;
        assert_eq!((told_slow.resets, told_slow.changes.len()), (1, 42));
    }

    async fn random_cuts_lose_and_repeat_nothing(world: World) {
        let seed = fastrand::u64(..);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let ours = world.join();
        let writer = world.observer();
        let mut observers: Vec<_> = (0..3).map(|_| (ours.client.observe(all()), Copy::default())).collect();
        for (observer, copy) in &mut observers {
            copy.take(next(observer).await);
        }
        let mut written = Vec::new();
        while written.len() < 10_000 {
            // Several writes at once, as many clients make them.
            let writes = (0..random.usize(1..200)).map(|_| {
                let key = format!("k/{}", random.u32(..50));
                let delete = random.u32(..4) == 0;
                let writer = writer.clone();
                async move {
                    match delete {
                        true => {
                            let done = writer.delete_with(Delete::new(key)).await.unwrap();
                            (done.deleted > 0).then_some(done.revision)
                        }
                        false => Some(writer.put(key, "v").await.unwrap()),
                    }
                }
            });
            let done = futures_util::future::join_all(writes.collect::<Vec<_>>()).await;
            let mut revisions: Vec<_> = done.into_iter().flatten().collect();
            revisions.sort();
            written.extend(revisions);
            match random.u32(..6) {
                0 => ours.faults.cut_watches(),
                1 => ours.faults.next(CallKind::Watch, Fate::LoseReply),
                2 => {
                    ours.faults.cut_watches();
                    ours.faults.next(CallKind::Watch, Fate::LoseReply);
                }
                _ => {}
            }
            let (observer, copy) = &mut observers[random.usize(..3)];
            let upto = written[random.usize(..written.len())];
            copy.follow_to(observer, upto).await;
        }
        for (observer, copy) in &mut observers {
            copy.follow_to(observer, *written.last().unwrap()).await;
            assert_eq!(copy.resets, 1);
            assert!(copy.changes == written, "not every change was told once");
            assert_eq!(copy.keys, present(&writer).await);
        }
    }

    async fn a_partition_loses_nothing(world: World) {
        for partition in [Partition::Refuse, Partition::Hang, Partition::LoseReplies] {
            let ours = world.join();
            let writer = world.observer();
            let mut observer = ours.client.observe(all());
            let mut copy = Copy::default();
            copy.take(next(&mut observer).await);
            ours.faults.partition(partition);
            let first = writer.put("k/1", "v").await.unwrap();
            let second = writer.put("k/1", "w").await.unwrap();
            assert!(timeout(Duration::from_millis(300), observer.next()).await.is_err());
            ours.faults.heal();
            copy.follow_to(&mut observer, second).await;
            assert_eq!((copy.resets, copy.changes), (1, vec![first, second]));
        }
    }

    async fn an_observer_that_begins_while_cut_off_begins_when_it_can(world: World) {
        for partition in [Partition::Refuse, Partition::Hang, Partition::LoseReplies] {
            let ours = world.join();
            let writer = world.observer();
            let put = writer.put("k/1", "v").await.unwrap();
            ours.faults.partition(partition);
            let mut observer = ours.client.observe(all());
            assert!(timeout(Duration::from_millis(300), observer.next()).await.is_err());
            ours.faults.heal();
            let Observed::Reset(state) = next(&mut observer).await else { panic!("no state") };
            assert_eq!(state.kvs[0].mod_revision, put);
        }
    }

    async fn a_poll_given_up_loses_nothing(world: World) {
        let ours = world.join();
        let writer = world.observer();
        let mut observer = ours.client.observe(all());
        let mut copy = Copy::default();
        let mut written = Vec::new();
        for n in 0..200 {
            written.push(writer.put("k/1", "v").await.unwrap());
            match n % 3 {
                // An answer that comes between two polls.
                0 => if let Some(observed) = observer.next().now_or_never() { copy.take(observed.unwrap().unwrap()) },
                1 => if let Ok(observed) = timeout(Duration::from_micros(300), observer.next()).await { copy.take(observed.unwrap().unwrap()) },
                _ => observer.opened().await.unwrap(),
            }
        }
        copy.follow_to(&mut observer, written[199]).await;
        let told = copy.changes.len();
        assert_eq!(copy.changes, written[200 - told..]);
        assert_eq!(copy.resets, 1);
    }
}

mod alone {
    use super::*;

    scenarios! {
        alone

        async fn what_is_compacted_away_during_a_cut_becomes_one_reset(world: World) {
            let ours = world.join();
            let writer = world.observer();
            let mut observer = ours.client.observe(all());
            let mut copy = Copy::default();
            writer.put("k/1", "v").await.unwrap();
            writer.put("k/2", "v").await.unwrap();
            copy.take(next(&mut observer).await);
            ours.faults.partition(Partition::Refuse);
            writer.delete("k/1").await.unwrap();
            writer.put("k/3", "v").await.unwrap();
            let last = writer.put("k/3", "w").await.unwrap();
            writer.compact(last, true).await.unwrap();
            ours.faults.heal();
            copy.follow(&mut observer, |copy| copy.resets == 2).await;
            assert_eq!(copy.keys, present(&writer).await);
            assert_eq!(copy.changes, []);
            let put = writer.put("k/4", "v").await.unwrap();
            copy.follow_to(&mut observer, put).await;
            assert_eq!((copy.resets, &*copy.changes), (2, &[put][..]));
            assert_eq!(copy.keys, present(&writer).await);
        }

        async fn a_start_that_is_compacted_away_becomes_a_reset(world: World) {
            let client = world.observer();
            let first = client.put("k/1", "v").await.unwrap();
            let last = client.put("k/1", "w").await.unwrap();
            client.compact(last, true).await.unwrap();
            let mut observer = client.observe(all()).from(first);
            let Observed::Reset(state) = next(&mut observer).await else { panic!("no reset") };
            assert_eq!(state.kvs[0].value, "w");
            let put = client.put("k/1", "x").await.unwrap();
            let Observed::Changes(changes) = next(&mut observer).await else { panic!("a reset") };
            assert_eq!(changes.revision(), put);
        }

        async fn an_observer_from_the_oldest_tells_all_that_is_kept(world: World) {
            let client = world.observer();
            let mut written = Vec::new();
            for n in 0..6 {
                written.push(client.put("k/1", n.to_string()).await.unwrap());
            }
            let mut copy = Copy::default();
            copy.follow_to(&mut client.observe(all()).from_oldest(), written[5]).await;
            assert_eq!(copy.changes, written);
            client.compact(written[2], true).await.unwrap();
            let mut copy = Copy::default();
            copy.follow_to(&mut client.observe(all()).from_oldest(), written[5]).await;
            // The revision of the compaction itself is kept.
            assert_eq!((copy.resets, &*copy.changes), (0, &written[2..]));
        }

        async fn a_slow_observer_whose_changes_are_compacted_away_starts_over(world: World) {
            let ours = world.join();
            let writer = world.observer();
            let mut quick = ours.client.observe(all());
            let mut slow = ours.client.observe(all());
            let (mut told_quick, mut told_slow) = (Copy::default(), Copy::default());
            told_quick.take(next(&mut quick).await);
            told_slow.take(next(&mut slow).await);
            let value = "x".repeat(256 << 10);
            let mut last = Revision::ZERO;
            for n in 0..30 {
                last = writer.put(format!("k/{}", n % 3), &*value).await.unwrap();
                told_quick.follow_to(&mut quick, last).await;
            }
            writer.compact(last, true).await.unwrap();
            told_slow.follow_to(&mut slow, last).await;
            assert_eq!(told_slow.resets, 2);
            assert_eq!(told_slow.keys, present(&writer).await);
            assert_eq!(told_quick.resets, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_replaced_for_all_who_share_it() {
    let world = World::memory();
    let ours = world.join();
    let writer = world.observer();
    let mut observers = [ours.client.observe(all()), ours.client.observe(all())];
    for observer in &mut observers {
        next(observer).await;
    }
    ours.faults.silence_watches();
    let put = writer.put("k/1", "v").await.unwrap();
    let asleep = tokio::time::Instant::now();
    for observer in &mut observers {
        let Observed::Changes(changes) = next(observer).await else {
            panic!("a reset")
        };
        assert_eq!(changes.revision(), put);
    }
    assert!(asleep.elapsed() < Duration::from_secs(8));
    assert_eq!(ours.faults.distrusted(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_keeps_what_it_does_not_read_within_bounds() {
    let world = World::memory();
    let ours = world.join_with(ConnectOptions::memory());
    let writer = world.observer();
    let mut slow = ours.client.observe(all());
    next(&mut slow).await;
    let value = "x".repeat(1 << 20);
    let weigh = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    // The store keeps its history: compaction leaves it the last value alone.
    let before = weigh();
    for _ in 0..300 {
        let last = writer.put("k/1", &*value).await.unwrap();
        writer.compact(last, true).await.unwrap();
        tokio::task::yield_now().await;
    }
    let grown = weigh().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB", grown >> 20);
    let Observed::Reset(state) = next(&mut slow).await else {
        panic!("the changes cannot be there any more")
    };
    assert_eq!(state.kvs.len(), 1);
}

//! Random schedules for observers: whatever can happen to them, and what must be true all the same.
//!
//! The faults of each schedule are made of one seed, which is printed: `SEED=17 cargo test --test
//! observer_schedules` runs that one alone, `SEEDS=10000` as many from zero. Who of several that wait for
//! the same thing wakes first is tokio's choice, so a seed may have to be run more than once.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, ConnectOptions, Delete, Event, Key, KeyRange, KeyValue, Observed, Observer, Op,
    Revision,
    backend::{
        Backend, Memory,
        fault::{CallKind, Fate, Fault, Faults, Partition},
    },
};
use support::{machine::Machine, number, until};
use tokio::time::{sleep, timeout};

const CLIENTS: usize = 2;
const OBSERVERS: usize = 8;
const STEPS: usize = 150;

/// All that ever was in the store, as its answers to the writes tell.
struct Model {
    writer: Client,
    /// What each revision changed, in the order in which it is told.
    history: BTreeMap<Revision, Vec<Change>>,
    compacted: Revision,
    now: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: Key,
    /// None if it was deleted.
    kv: Option<KeyValue>,
}

impl Model {
    fn present(&self, keys: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let mut present = BTreeMap::new();
        for change in self.history.range(..=at).flat_map(|(_, changes)| changes) {
            if keys.contains(&change.key) {
                match &change.kv {
                    Some(kv) => present.insert(change.key.clone(), kv.clone()),
                    None => present.remove(&change.key),
                };
            }
        }
        present.into_values().collect()
    }

    fn get(&self, key: &Key, at: Revision) -> Option<KeyValue> {
        self.present(&KeyRange::key(key.clone()), at).pop()
    }

    /// Writes something: a put, a deletion of a range, or both and more in a transaction.
    async fn write(&mut self, random: &mut Rng) {
        let key = |random: &mut Rng| Key::from(format!("k/{}", random.u8(..5)));
        // Large values push one another out of what is kept for those who are slow.
        let size = if random.u8(..6) == 0 { 300 << 10 } else { 1 };
        let value = String::from(random.lowercase()).repeat(size);
        let (mut puts, mut gone) = (Vec::new(), None);
        let mut txn = self.writer.txn();
        match random.u8(..6) {
            0 => gone = Some(KeyRange::key(key(random))),
            1 => gone = Some(KeyRange::prefix("k/")),
            2 => {
                puts = vec![Key::from("k/0"), Key::from("k/7"), Key::from("k/3")];
                gone = Some(KeyRange::between("k/1", "k/3"));
            }
            _ => puts.push(key(random)),
        }
        if let Some(gone) = &gone {
            txn = txn.then(Op::Delete(Delete::new(gone.clone())));
        }
        for key in &puts {
            txn = txn.then(Op::put(key.clone(), value.clone()));
        }
        let revision = txn.commit().await.unwrap().header.revision;
        let before = std::mem::replace(&mut self.now, revision);
        if revision == before {
            return;
        }
        assert_eq!(revision, before.next());
        let mut changes = Vec::new();
        if let Some(gone) = gone {
            let gone = self.present(&gone, before);
            changes.extend(gone.into_iter().map(|kv| Change {
                key: kv.key,
                kv: None,
            }));
        }
        for key in puts {
            let old = self.get(&key, before);
            let kv = KeyValue {
                create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                mod_revision: revision,
                version: old.map_or(1, |old| old.version + 1),
                key: key.clone(),
                value: value.clone().into(),
                lease: None,
            };
            changes.push(Change { key, kv: Some(kv) });
        }
        self.history.insert(revision, changes);
    }

    async fn compact(&mut self, random: &mut Rng) {
        let at = Revision(random.i64(self.now.0 - 5..=self.now.0));
        if at > self.compacted {
            self.writer.compact(at, false).await.unwrap();
            self.compacted = at;
        }
    }
}

/// An observer, and what it may tell next.
struct Subject {
    observer: Observer,
    keys: KeyRange,
    puts: bool,
    deletions: bool,
    prev: bool,
    expects: Expects,
}

#[derive(Clone, Copy, Debug)]
enum Expects {
    /// The state of a moment not before this.
    State(Revision),
    /// Every change after this revision.
    After(Revision),
    /// Every change after some revision that is not before the first, and not after the second, which
    /// is known once it was opened.
    AfterNow(Revision, Option<Revision>),
    /// Every change from some revision on that was compacted at the second at the latest.
    Oldest(Option<Revision>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    changes: u64,
    resets: u64,
    later_resets: u64,
    dropped: u64,
    opened: u64,
}

impl Subject {
    fn new(client: &Client, model: &Model, random: &mut Rng) -> Self {
        let keys = match random.u8(..4) {
            0 => KeyRange::key("k/3"),
            1 => KeyRange::between("k/1", "k/4"),
            _ => KeyRange::prefix("k/"),
        };
        let (mut puts, mut deletions, prev) = (true, true, random.u8(..4) == 0);
        let mut observer = client.observe(keys.clone());
        let expects = match random.u8(..6) {
            0 => {
                let from = Revision(random.i64(model.compacted.0.max(3) - 2..=model.now.0 + 4));
                observer = observer.from(from);
                Expects::After(from.previous())
            }
            1 => {
                observer = observer.from_now();
                Expects::AfterNow(model.now, None)
            }
            2 => {
                observer = observer.from_oldest();
                Expects::Oldest(None)
            }
            _ => Expects::State(model.now),
        };
        match random.u8(..8) {
            0 => {
                observer = observer.puts_only();
                deletions = false;
            }
            1 => {
                observer = observer.deletes_only();
                puts = false;
            }
            _ => {}
        }
        if prev {
            observer = observer.prev_kv();
        }
        Self {
            observer,
            keys,
            puts,
            deletions,
            prev,
            expects,
        }
    }

    /// The changes of a revision that it is to tell.
    fn sees<'a>(&self, changes: &'a [Change]) -> Vec<&'a Change> {
        let kind = |change: &Change| match change.kv {
            Some(_) => self.puts,
            None => self.deletions,
        };
        let seen = changes
            .iter()
            .filter(|change| self.keys.contains(&change.key) && kind(change));
        seen.collect()
    }

    /// The first revision after `after` that has something to tell.
    fn next_after(&self, model: &Model, after: Revision) -> Option<Revision> {
        let later = model.history.range(after.next()..);
        let mut seen = later.filter(|(_, changes)| !self.sees(changes).is_empty());
        seen.next().map(|(revision, _)| *revision)
    }

    /// The last revision up to `until` that had something to tell.
    fn last_until(&self, model: &Model, until: Revision) -> Revision {
        let before = model.history.range(..=until);
        let mut seen = before.filter(|(_, changes)| !self.sees(changes).is_empty());
        seen.next_back()
            .map_or(Revision::ZERO, |(revision, _)| *revision)
    }

    /// Everything that must be true of what is told.
    fn told(&mut self, observed: Observed, model: &Model, counts: &mut Counts) {
        match observed {
            Observed::Reset(all) => {
                assert_eq!(all.kvs, model.present(&self.keys, all.revision));
                counts.resets += 1;
                match self.expects {
                    Expects::State(since) => assert!(all.revision >= since),
                    Expects::After(told) | Expects::AfterNow(told, _) => {
                        assert!(
                            all.revision >= told.min(model.now),
                            "{} after {told}",
                            all.revision
                        );
                        // A watch goes on after the last change that it told, if it told any.
                        let watched = self.last_until(model, told);
                        assert!(
                            watched.next() < model.compacted,
                            "nothing was lost: {:?} {:?}, {watched}, now {}, compacted {}, reset {}",
                            self.expects,
                            self.keys,
                            model.now,
                            model.compacted,
                            all.revision
                        );
                        counts.later_resets += 1;
                    }
                    Expects::Oldest(_) => counts.later_resets += 1,
                }
                self.expects = Expects::After(all.revision);
            }
            Observed::Changes(changes) => {
                let revision = changes.revision();
                match self.expects {
                    Expects::State(_) => panic!("changes before the state"),
                    Expects::After(told) => {
                        assert_eq!(Some(revision), self.next_after(model, told), "after {told}");
                    }
                    Expects::AfterNow(early, late) => {
                        assert!(revision > early);
                        let latest = late.and_then(|late| self.next_after(model, late));
                        assert!(latest.is_none_or(|latest| revision <= latest));
                    }
                    Expects::Oldest(late) => {
                        // Not later than the oldest that is kept now.
                        let oldest = late.unwrap_or(model.compacted).previous();
                        let latest = self.next_after(model, oldest).unwrap_or(revision);
                        assert!(revision <= latest, "{revision} is not the oldest: {latest}");
                    }
                }
                let expected = self.sees(&model.history[&revision]);
                let told: Vec<_> = changes.into_iter().map(Change::of).collect();
                assert_eq!(told.iter().collect::<Vec<_>>(), expected, "at {revision}");
                self.check_prevs(&changes, model);
                counts.changes += 1;
                self.expects = Expects::After(revision);
            }
        }
    }

    fn check_prevs(&self, changes: &quorate::Changes, model: &Model) {
        let before = changes.revision().previous();
        for event in changes {
            let (Event::Put { prev, .. } | Event::Delete { prev, .. }) = event;
            match prev {
                Some(prev) => {
                    assert!(self.prev);
                    assert_eq!(Some(prev), model.get(event.key(), before).as_ref());
                }
                // What was there before may be compacted away.
                None if self.prev && before >= model.compacted => {
                    assert_eq!(None, model.get(event.key(), before));
                }
                None => {}
            }
        }
    }

    /// Polls it, gives up at some time, and checks what it tells.
    async fn poll(&mut self, random: &mut Rng, model: &Model, counts: &mut Counts) {
        let patience = Duration::from_millis(random.u64(..400));
        for _ in 0..random.u8(..6) {
            let told = match random.u8(..4) {
                0 => self.observer.next().now_or_never(),
                1 => {
                    if let Ok(opened) = timeout(patience, self.observer.opened()).await {
                        opened.unwrap();
                        counts.opened += 1;
                        self.opened(model);
                    }
                    continue;
                }
                _ => timeout(patience, self.observer.next()).await.ok(),
            };
            if let Some(told) = told {
                let told = told.expect("an observer never just ends").unwrap();
                self.told(told, model, counts);
            }
        }
    }

    fn opened(&mut self, model: &Model) {
        match &mut self.expects {
            Expects::AfterNow(_, late @ None) => *late = Some(model.now),
            Expects::Oldest(late @ None) => *late = Some(model.now.next()),
            _ => {}
        }
    }

    /// Whether nothing is left to be told.
    fn is_up_to_date(&self, model: &Model) -> bool {
        let told = match self.expects {
            Expects::After(told) | Expects::AfterNow(_, Some(told)) => told,
            Expects::Oldest(Some(_)) => model.compacted.previous(),
            Expects::State(_) | Expects::AfterNow(_, None) | Expects::Oldest(None) => return false,
        };
        self.next_after(model, told).is_none()
    }

    /// Tells the rest.
    async fn finish(&mut self, model: &Model, counts: &mut Counts) {
        let opened = timeout(Duration::from_secs(30), self.observer.opened()).await;
        opened.expect("it is never open").unwrap();
        self.opened(model);
        while !self.is_up_to_date(model) {
            let told = timeout(Duration::from_secs(30), self.observer.next()).await;
            let told = told.unwrap_or_else(|_| panic!("nothing is told: {:?}", self.expects));
            self.told(told.unwrap().unwrap(), model, counts);
        }
    }
}

impl Change {
    fn of(event: &Event) -> Self {
        let kv = match event {
            Event::Put { kv, .. } => Some(kv.clone()),
            Event::Delete { .. } => None,
        };
        let key = event.key().clone();
        Self { key, kv }
    }
}

struct Member {
    client: Client,
    faults: Faults,
    machine: Machine,
}

impl Member {
    fn new(store: &Arc<dyn Backend>, random: &mut Rng) -> Self {
        let machine = Machine::new(1.0, random.u64(..));
        let fault = Fault::new(Arc::clone(store));
        let faults = fault.faults();
        let options = ConnectOptions::memory()
            .runtime(Arc::new(machine.clone()))
            .timeout(Duration::from_secs(1));
        Self {
            client: Client::with_backend_and(Arc::new(fault), options),
            faults,
            machine,
        }
    }

    fn disturb(&self, random: &mut Rng) {
        let call = if random.bool() {
            CallKind::Range
        } else {
            CallKind::Watch
        };
        let delay = Duration::from_millis(random.u64(..1500));
        let faults = &self.faults;
        match random.u8(..24) {
            0 => faults.partition(Partition::Hang),
            1 => faults.partition(Partition::LoseReplies),
            2 => faults.partition(Partition::Refuse),
            3..6 => faults.cut_watches(),
            6 => faults.silence_watches(),
            7 => faults.delay_events(delay / 4),
            8 | 9 => faults.next(call, Fate::DelayReply(delay)),
            10 => faults.next(call, Fate::DelayRequest(delay)),
            11 => faults.next(call, Fate::Double),
            12 => faults.next(call, Fate::LoseReply),
            13 => faults.next(call, Fate::LoseRequest),
            14 => faults.next(call, Fate::HangReply),
            15 => self.machine.stop(),
            16..19 => self.machine.go_on(),
            _ => faults.heal(),
        }
    }
}

async fn storm(seed: u64) -> Counts {
    let mut random = Rng::with_seed(seed);
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let writer = Client::with_backend(Arc::clone(&store));
    let mut model = Model {
        now: writer.range("k").await.unwrap().header.revision,
        writer,
        history: BTreeMap::new(),
        compacted: Revision::ZERO,
    };
    let members = [(); CLIENTS].map(|()| Member::new(&store, &mut random));
    let mut counts = Counts::default();
    let mut subjects: Vec<_> = (0..OBSERVERS)
        .map(|n| Subject::new(&members[n % CLIENTS].client, &model, &mut random))
        .collect();
    for _ in 0..STEPS {
        let chosen = random.usize(..OBSERVERS);
        let member = &members[chosen % CLIENTS];
        match random.u8(..20) {
            0..8 => model.write(&mut random).await,
            8 => {
                for _ in 0..random.u8(..30) {
                    model.write(&mut random).await;
                }
            }
            9 => model.compact(&mut random).await,
            10 | 11 => member.disturb(&mut random),
            12 if random.bool() => {
                subjects[chosen] = Subject::new(&member.client, &model, &mut random);
                counts.dropped += 1;
            }
            13 => sleep(Duration::from_millis(random.u64(..3000))).await,
            _ => {
                subjects[chosen]
                    .poll(&mut random, &model, &mut counts)
                    .await
            }
        }
    }
    for member in &members {
        member.machine.go_on();
        member.faults.heal();
    }
    for subject in &mut subjects {
        subject.finish(&model, &mut counts).await;
    }
    // What comes now is told by all.
    for _ in 0..6 {
        model.write(&mut random).await;
    }
    for subject in &mut subjects {
        subject.finish(&model, &mut counts).await;
    }
    drop(subjects);
    until("nothing is left behind", async || {
        members.iter().all(|member| {
            member.machine.tasks() == 0 && member.faults.open_streams(CallKind::Watch) == 0
        })
    })
    .await;
    counts
}

fn run(seed: u64) -> Counts {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let storm = timeout(Duration::from_secs(36_000), storm(seed));
        storm.await.expect("it hangs")
    })
}

#[test]
fn no_schedule_loses_or_repeats_a_change() {
    if let Some(seed) = number("SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(120);
    let mut sum = Counts::default();
    for seed in 0..seeds {
        let counts = run(seed);
        sum.changes += counts.changes;
        sum.resets += counts.resets;
        sum.later_resets += counts.later_resets;
        sum.dropped += counts.dropped;
        sum.opened += counts.opened;
    }
    println!("{sum:?}");
    // A storm in which nothing happened would have proved nothing.
    let Counts {
        changes,
        resets,
        later_resets,
        dropped,
        opened,
    } = sum;
    for count in [changes, resets, later_resets, dropped, opened] {
        assert!(count >= seeds / 2, "{sum:?}");
    }
}

//! Random schedules for ephemeral keys: whatever happens to their owner's connection, and whatever
//! others do to their paths, in the end the store is as the owners want it, and nobody else's key was
//! touched.
//!
//! The faults of each schedule are made of one seed, which is printed: `SEED=17 cargo test --test
//! ephemeral_schedules` runs that one alone, `SEEDS=1000` as many from zero.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, ConnectOptions, EphemeralKey, EphemeralState, Event, KeyRange, Loss, Revision, Watch,
    WatchRequest,
    backend::{
        Memory,
        fault::{CallKind, Fate, Fault, Faults, Partition},
    },
};
use support::{each_seed, until};
use tokio::time::sleep;

/// Enough for a watch of the directory, and for one key without a directory.
const PATHS: usize = 10;
const STEPS: usize = 150;
const TTL: Duration = Duration::from_secs(2);
const THEIRS: &str = "theirs";

struct Schedule {
    random: fastrand::Rng,
    ours: Client,
    faults: Faults,
    others: Client,
    slots: Vec<Slot>,
    /// The revisions of what others wrote and deleted.
    by_hand: BTreeSet<Revision>,
    next_value: u64,
}

#[derive(Default)]
struct Slot {
    path: String,
    key: Option<Arc<EphemeralKey>>,
    /// The value that was set last.
    wanted: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let store = Arc::new(Memory::new());
        let others = Client::with_backend(Arc::clone(&store) as _);
        let fault = Fault::new(store);
        let faults = fault.faults();
        let options = ConnectOptions::memory().session_ttl(TTL);
        let path = |n| {
            if n == 0 {
                "single".to_owned()
            } else {
                format!("all/{n}")
            }
        };
        let slot = |n| Slot {
            path: path(n),
            ..Slot::default()
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            ours: Client::with_backend_and(Arc::new(fault), options),
            faults,
            others,
            slots: (0..PATHS).map(slot).collect(),
            by_hand: BTreeSet::new(),
            next_value: 0,
        }
    }

    async fn step(&mut self) {
        let n = self.random.usize(..PATHS);
        match self.random.u32(..100) {
            0..25 => self.set(n),
            25..40 => self.create(n).await,
            40..46 => self.leave(n).await,
            46..56 => self.interfere(n).await,
            56..59 => self.revoke().await,
            59..75 => {
                let fate = self.fate();
                self.faults.next(CallKind::Txn, fate);
            }
            75..78 => self.faults.cut_watches(),
            78..80 => self.faults.silence_watches(),
            80..84 => {
                let kinds = [Partition::Hang, Partition::LoseReplies, Partition::Refuse];
                self.faults.partition(kinds[self.random.usize(..3)]);
            }
            84..92 => self.faults.heal(),
            _ => {}
        }
        let pause = if self.random.bool() { 20 } else { 700 };
        sleep(Duration::from_millis(self.random.u64(..pause))).await;
    }

    fn fate(&mut self) -> Fate {
        let delay = Duration::from_millis(self.random.u64(..8_000));
        match self.random.u32(..6) {
            0 => Fate::DelayReply(delay),
            1 => Fate::DelayRequest(delay),
            2 => Fate::Double,
            3 => Fate::HangReply,
            4 => Fate::LoseReply,
            _ => Fate::LoseRequest,
        }
    }

    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// Sets a value, without waiting for what becomes of that.
    fn set(&mut self, n: usize) {
        let value = self.value();
        let slot = &mut self.slots[n];
        if let Some(key) = &slot.key
            && !matches!(key.state(), EphemeralState::Lost(_))
        {
            // The wish counts from the first poll on.
            let key = Arc::clone(key);
            let mut setting = Box::pin(async move { key.set(value.to_string()).await });
            slot.wanted = value;
            if (&mut setting).now_or_never().is_none() {
                tokio::spawn(setting);
            }
        }
    }

    async fn create(&mut self, n: usize) {
        let value = self.value();
        let patience = Duration::from_millis(self.random.u64(..6_000));
        let slot = &mut self.slots[n];
        let lost = slot
            .key
            .as_ref()
            .is_none_or(|key| matches!(key.state(), EphemeralState::Lost(_)));
        if lost {
            slot.key = None;
            let creation = self
                .ours
                .ephemeral(slot.path.as_str())
                .create(value.to_string());
            if let Ok(Ok(key)) = tokio::time::timeout(patience, creation).await {
                slot.key = Some(Arc::new(key));
                slot.wanted = value;
            }
        }
    }

    async fn leave(&mut self, n: usize) {
        let released = self.random.bool();
        if let Some(key) = self.slots[n].key.take()
            && let Ok(key) = Arc::try_unwrap(key)
            && released
        {
            // Whether it is confirmed in time is not the point here.
            let _ = key.release().await;
        }
    }

    /// Somebody deletes the key, overwrites it, or takes the path while it is free.
    async fn interfere(&mut self, n: usize) {
        let path = self.slots[n].path.as_str();
        let txn = self.others.txn();
        let txn = match self.random.u32(..4) {
            0 => txn.then(quorate::Op::put(path, THEIRS)),
            1 => txn
                .when(quorate::Compare::absent(path))
                .then(quorate::Op::put(path, THEIRS)),
            _ => txn.then(quorate::Op::delete(path)),
        };
        let answer = txn.commit().await.unwrap();
        self.by_hand.insert(answer.header.revision);
    }

    async fn revoke(&mut self) {
        let leases = self.others.leases().await.unwrap();
        if !leases.is_empty() {
            let lease = leases[self.random.usize(..leases.len())];
            let _ = self.others.revoke_lease(lease).await;
        }
    }

    /// Whether the store is as the owners want it.
    async fn is_settled(&self) -> bool {
        let there: BTreeMap<_, _> = self
            .others
            .list("")
            .await
            .unwrap()
            .into_iter()
            .filter(|kv| kv.value != THEIRS)
            .map(|kv| {
                (
                    kv.key.to_string(),
                    (kv.value.to_string(), kv.create_revision),
                )
            })
            .collect();
        let wanted: BTreeMap<_, _> = self
            .slots
            .iter()
            .filter_map(|slot| Some((slot, slot.key.as_ref()?)))
            .filter(|(_, key)| key.lost().now_or_never() != Some(Loss::Conflict))
            .map(|(slot, key)| (slot.path.clone(), (slot.wanted.to_string(), key.token())))
            .collect();
        let held = self.slots.iter().filter_map(|slot| slot.key.as_ref());
        let held = held.filter(|key| key.is_held()).count();
        there == wanted && held == wanted.len()
    }

    /// Goes through all that happened.
    async fn check(&self, mut changes: Watch) {
        let end = self.others.put("end", "").await.unwrap();
        let mut last: BTreeMap<_, (Revision, Option<u64>)> = BTreeMap::new();
        loop {
            let batch = changes.next().await.unwrap().unwrap();
            for event in batch.events {
                let (path, at) = (event.key().clone(), event.revision());
                let before = last.get(&path).copied();
                let by_hand = self.by_hand.contains(&at);
                if matches!(before, Some((_, None))) {
                    assert!(by_hand, "somebody else's {path} was touched at {at}");
                }
                match event {
                    Event::Delete { .. } => drop(last.remove(&path)),
                    Event::Put { kv, .. } => {
                        let value: Option<u64> = kv.value.as_str().unwrap().parse().ok();
                        if let Some((created, Some(older))) = before
                            && let Some(value) = value
                            && created == kv.create_revision
                        {
                            assert!(value >= older, "{value} undid {older} of {path} at {at}");
                        }
                        last.insert(path, (kv.create_revision, value));
                    }
                }
                if at == end {
                    return;
                }
            }
        }
    }
}

async fn run(seed: u64) {
    let mut schedule = Schedule::new(seed);
    let changes = schedule
        .others
        .watch(WatchRequest::new(KeyRange::all()).start(Revision(1)));
    for _ in 0..STEPS {
        schedule.step().await;
    }
    schedule.faults.heal();
    // What was delayed arrives yet.
    sleep(Duration::from_secs(10)).await;
    until("the store is as the owners want it", async || {
        schedule.is_settled().await
    })
    .await;
    schedule.slots.iter_mut().for_each(|slot| slot.key = None);
    until("nothing of ours is left", async || {
        schedule.is_settled().await
    })
    .await;
    schedule.check(changes).await;
    schedule.ours.close().await.unwrap();
    until("no lease is left", async || {
        schedule.others.leases().await.unwrap().is_empty()
    })
    .await;
}

#[test]
fn in_the_end_the_store_is_as_the_owners_want_it() {
    each_seed(60, run);
}

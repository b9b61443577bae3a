//! Random schedules for the owners of ephemeral keys in different processes, which want the same
//! paths: each on a machine of its own, whose clock is fast or slow and which stops for a while, over a
//! connection of its own. Nobody overwrites the other's key, no two believe to own a path unless it was
//! taken over, and in the end each path has one owner at most, whose key stands.
//!
//! `SEED` and `SEEDS` as for `ephemeral_schedules`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, ConnectOptions, EphemeralKey, EphemeralState, Event, KeyRange, Loss, Revision, Watch,
    WatchRequest,
    backend::{
        Memory,
        fault::{CallKind, Fate, Fault, Faults, Partition},
    },
};
use support::{each_seed, machine::Machine, until};
use tokio::time::{sleep, timeout};

const PATHS: usize = 3;
const OWNERS: usize = 3;
const STEPS: usize = 150;
const TTL: Duration = Duration::from_secs(2);

struct Owner {
    client: Client,
    faults: Faults,
    machine: Machine,
    is_stopped: bool,
    /// The key of each path, and the value that was set last.
    keys: Vec<Option<(Arc<EphemeralKey>, String)>>,
}

struct Schedule {
    random: fastrand::Rng,
    owners: Vec<Owner>,
    observer: Client,
    /// Whether keys are taken over, and deleted by hand: then the former owner's belief ends only when
    /// it sees that.
    is_rough: bool,
    next_value: u64,
}

fn path(n: usize) -> String {
    format!("all/{n}")
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Arc::new(Memory::new());
        let observer = Client::with_backend(Arc::clone(&store) as _);
        let owners = (0..OWNERS).map(|_| {
            let fault = Fault::new(Arc::clone(&store) as _);
            let faults = fault.faults();
            let machine = Machine::new(0.97 + 0.06 * random.f64(), random.u64(..));
            let options = ConnectOptions::memory()
                .session_ttl(TTL)
                .runtime(Arc::new(machine.clone()));
            Owner {
                client: Client::with_backend_and(Arc::new(fault), options),
                faults,
                machine,
                is_stopped: false,
                keys: vec![None; PATHS],
            }
        });
        Self {
            owners: owners.collect(),
            observer,
            is_rough: seed.is_multiple_of(2),
            next_value: 0,
            random,
        }
    }

    async fn step(&mut self) {
        let (who, n) = (self.random.usize(..OWNERS), self.random.usize(..PATHS));
        let choice = self.random.u32(..100);
        let owner = &mut self.owners[who];
        match choice {
            0..20 if !owner.is_stopped => self.set(who, n),
            20..50 if !owner.is_stopped => self.create(who, n).await,
            50..56 if !owner.is_stopped => owner.keys[n] = None,
            56..59 if self.is_rough => drop(self.observer.delete(path(n)).await.unwrap()),
            59..72 => {
                let fate = self.fate();
                let kinds = [
                    CallKind::Txn,
                    CallKind::Txn,
                    CallKind::Grant,
                    CallKind::Revoke,
                ];
                let kind = kinds[self.random.usize(..kinds.len())];
                self.owners[who].faults.next(kind, fate);
            }
            72..75 => owner.faults.cut_watches(),
            75..77 => owner
                .faults
                .delay_events(Duration::from_millis(self.random.u64(..2_000))),
            77..79 => owner.faults.drop_beats(self.random.u32(..6)),
            79..83 => {
                let kinds = [Partition::Hang, Partition::LoseReplies, Partition::Refuse];
                owner.faults.partition(kinds[self.random.usize(..3)]);
            }
            83..90 => owner.faults.heal(),
            90..94 => {
                owner.machine.stop();
                owner.is_stopped = true;
            }
            94.. => owner.go_on(),
            _ => {}
        }
        let most = if self.random.bool() { 20 } else { 700 };
        let mut pause = self.random.u64(..most);
        while pause > 0 {
            let part = pause.min(40);
            sleep(Duration::from_millis(part)).await;
            pause -= part;
            self.check_beliefs();
        }
    }

    fn check_beliefs(&self) {
        for n in (0..PATHS).filter(|_| !self.is_rough) {
            let keys = self
                .owners
                .iter()
                .filter_map(|owner| owner.keys[n].as_ref());
            let believers = keys.filter(|(key, _)| key.is_held()).count();
            assert!(believers <= 1, "{believers} believe to own {}", path(n));
        }
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

    fn value(&mut self, who: usize) -> String {
        self.next_value += 1;
        format!("{who}:{}", self.next_value)
    }

    fn set(&mut self, who: usize, n: usize) {
        // Also one that it had.
        let value = if self.random.bool() {
            format!("{who}:0")
        } else {
            self.value(who)
        };
        let owner = &mut self.owners[who];
        if let Some((key, wanted)) = &mut owner.keys[n]
            && !matches!(key.state(), EphemeralState::Lost(_))
        {
            let (key, given) = (Arc::clone(key), value.clone());
            let setting = async move { key.set(given).await };
            let mut setting = owner.machine.run(setting);
            // The wish counts from the first poll on.
            *wanted = value;
            if (&mut setting).now_or_never().is_none() {
                tokio::spawn(setting);
            }
        }
    }

    async fn create(&mut self, who: usize, n: usize) {
        let value = self.value(who);
        let takes_over = self.is_rough && self.random.bool();
        let patience = Duration::from_millis(self.random.u64(..6_000));
        let owner = &mut self.owners[who];
        let is_open = |key: &EphemeralKey| !matches!(key.state(), EphemeralState::Lost(_));
        if owner.keys[n].as_ref().is_some_and(|(key, _)| is_open(key)) {
            return;
        }
        owner.keys[n] = None;
        let mut ephemeral = owner.client.ephemeral(path(n));
        if takes_over {
            ephemeral = ephemeral.take_over();
        }
        let creation = owner.machine.run(ephemeral.create(value.clone()));
        if let Ok(Ok(key)) = timeout(patience, creation).await {
            owner.keys[n] = Some((Arc::new(key), value));
        }
    }

    /// Whether each path has one owner at most, and its key stands as that wants it.
    async fn is_settled(&self) -> bool {
        let mut settled = true;
        for n in 0..PATHS {
            let there = self.observer.get(path(n)).await.unwrap();
            let keys = self
                .owners
                .iter()
                .filter_map(|owner| owner.keys[n].as_ref());
            let (lost, open): (Vec<_>, Vec<_>) =
                keys.partition(|(key, _)| matches!(key.state(), EphemeralState::Lost(_)));
            for (key, _) in lost {
                assert_eq!(key.lost().now_or_never(), Some(Loss::Conflict));
            }
            settled &= match (&*open, there) {
                ([], there) => there.is_none(),
                ([(key, wanted)], Some(kv)) => {
                    key.is_held()
                        && kv.create_revision == key.token()
                        && kv.value == wanted.as_str()
                        && key.error().is_none()
                }
                _ => false,
            };
        }
        settled
    }

    /// Goes through all that happened.
    async fn check(&self, mut changes: Watch) {
        let end = self.observer.put("end", "").await.unwrap();
        let mut last: BTreeMap<_, (Revision, String)> = BTreeMap::new();
        loop {
            for event in changes.next().await.unwrap().unwrap().events {
                let at = event.revision();
                if at == end {
                    return;
                }
                let path = event.key().clone();
                let Event::Put { kv, .. } = event else {
                    last.remove(&path);
                    continue;
                };
                let owner = kv.value.as_str().unwrap().split_once(':').unwrap().0;
                if let Some((created, former)) = last.get(&path) {
                    assert_eq!(*created, kv.create_revision);
                    assert_eq!(former, owner, "{path} was overwritten at {at}");
                }
                last.insert(path, (kv.create_revision, owner.to_owned()));
            }
        }
    }
}

impl Owner {
    fn go_on(&mut self) {
        self.machine.go_on();
        self.is_stopped = false;
    }
}

async fn run(seed: u64) {
    let mut schedule = Schedule::new(seed);
    let changes = schedule
        .observer
        .watch(WatchRequest::new(KeyRange::all()).start(Revision(1)));
    for _ in 0..STEPS {
        schedule.step().await;
    }
    for owner in &mut schedule.owners {
        owner.faults.heal();
        owner.go_on();
    }
    // What was delayed arrives yet.
    sleep(Duration::from_secs(10)).await;
    until("each path has its owner", async || {
        schedule.is_settled().await
    })
    .await;
    for owner in &mut schedule.owners {
        owner.keys = vec![None; PATHS];
    }
    until("nothing is left", async || schedule.is_settled().await).await;
    schedule.check(changes).await;
    let owners = std::mem::take(&mut schedule.owners);
    let machines: Vec<_> = owners.iter().map(|owner| owner.machine.clone()).collect();
    drop(owners);
    until("no lease and no task is left", async || {
        schedule.observer.leases().await.unwrap().is_empty()
            && machines.iter().all(|machine| machine.tasks() == 0)
    })
    .await;
}

#[test]
fn a_path_has_one_owner_whatever_its_rivals_do() {
    each_seed(60, run);
}

//! Random schedules: many clients, whatever can happen to them, and what must be true all the same.
//!
//! The faults of each schedule are made of one seed, which is printed: `SEED=17 cargo test --test
//! schedules` runs that one alone, `SEEDS=10000` as many from zero. Who of several that wait for the same
//! thing wakes first is tokio's choice, so a seed may have to be run more than once.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate::{
    Client, ConnectOptions, Error, ErrorKind, Fenced, KeyRange, Leadership, LockGuard, Revision,
    backend::{
        Backend, Memory,
        fault::{CallKind, Fate, Fault, Faults, Held, Partition},
    },
};
use support::{machine::Machine, number, until};
use tokio::time::{Instant, sleep, timeout};

const CLIENTS: usize = 4;
const WORKERS: usize = 2;
const NAME: &str = "name";
const TTL: Duration = Duration::from_secs(2);

/// How long the faults go on.
const STORM: Duration = Duration::from_secs(25);

/// Either kind of hold on the one queue.
enum Hold {
    Leads(Leadership),
    Locks(LockGuard),
}

impl Hold {
    fn is_held(&self) -> bool {
        match self {
            Self::Leads(leadership) => leadership.is_held(),
            Self::Locks(guard) => guard.is_held(),
        }
    }

    fn token(&self) -> Revision {
        match self {
            Self::Leads(leadership) => leadership.token(),
            Self::Locks(guard) => guard.token(),
        }
    }

    fn fenced(&self) -> Fenced {
        match self {
            Self::Leads(leadership) => leadership.fenced("ledger"),
            Self::Locks(guard) => guard.fenced("ledger"),
        }
    }

    async fn release(self) -> Result<(), Error> {
        match self {
            Self::Leads(leadership) => leadership.resign().await,
            Self::Locks(guard) => guard.release().await,
        }
    }
}

/// Who holds, and what was counted.
#[derive(Default)]
struct Oracle {
    holds: Vec<Arc<Hold>>,
    last: Revision,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    acquired: u64,
    cancelled: u64,
    lost: u64,
    released: u64,
    refused_writes: u64,
}

impl Oracle {
    /// Everything that must be true when somebody has just acquired.
    fn acquired(&mut self, hold: &Arc<Hold>) {
        if !hold.is_held() {
            return;
        }
        assert!(hold.token() > self.last, "out of order: {}", hold.token());
        self.last = hold.token();
        self.holds.push(Arc::clone(hold));
        self.look();
        self.counts.acquired += 1;
    }

    /// No two hold, by their own clocks.
    fn look(&self) {
        let held = self.holds.iter().filter(|hold| hold.is_held()).count();
        assert!(held <= 1, "{held} hold");
    }

    fn forget(&mut self, hold: &Arc<Hold>) {
        self.holds.retain(|other| !Arc::ptr_eq(other, hold));
    }
}

/// One of many clients.
struct Member {
    client: Client,
    faults: Faults,
    machine: Machine,
}

/// Holds again and again, until the storm is over.
async fn work(client: Client, seed: u64, over: Instant, oracle: Arc<Mutex<Oracle>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    while Instant::now() < over {
        let patience = Duration::from_millis(random.u64(1..6000));
        let own_session = random.u8(..4) == 0;
        let hold = match random.u8(..4) {
            0 => {
                let mut election = client.election(NAME).value("v");
                if own_session {
                    election = election.ttl(TTL);
                }
                timeout(patience, election.campaign())
                    .await
                    .map(|led| led.map(|leadership| Some(Hold::Leads(leadership))))
            }
            kind => {
                let mut lock = client.lock(NAME);
                if own_session {
                    lock = lock.ttl(TTL);
                }
                let locked = async {
                    match kind {
                        1 => lock.try_acquire().await,
                        _ => lock.acquire().await.map(Some),
                    }
                };
                let locked = timeout(patience, locked).await;
                locked.map(|locked| locked.map(|guard| guard.map(Hold::Locks)))
            }
        };
        match hold {
            Ok(Ok(Some(hold))) => keep(Arc::new(hold), &mut random, &oracle).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                let expected = [ErrorKind::Lost, ErrorKind::Timeout, ErrorKind::Unavailable];
                assert!(expected.contains(&error.kind()), "{error:?}");
            }
            Err(_) => oracle.lock().unwrap().counts.cancelled += 1,
        }
        sleep(Duration::from_millis(random.u64(..300))).await;
    }
}

async fn keep(hold: Arc<Hold>, random: &mut fastrand::Rng, oracle: &Mutex<Oracle>) {
    oracle.lock().unwrap().acquired(&hold);
    let token = hold.token().0;
    // Some hold for longer than their lease lives.
    let steps = if random.u8(..5) == 0 { 40 } else { 4 };
    for _ in 0..random.u64(..steps) {
        let ledger = hold.fenced();
        let write = ledger.update(|kv| {
            let before: i64 = kv.map_or(0, |kv| kv.value.as_str().unwrap().parse().unwrap());
            assert!(before <= token, "{before} was written before {token}");
            token.to_string()
        });
        match write.await.map_err(|error| error.kind()) {
            Err(ErrorKind::Lost) => oracle.lock().unwrap().counts.refused_writes += 1,
            Ok(_) | Err(ErrorKind::Timeout | ErrorKind::Unavailable) => {}
            Err(kind) => panic!("{kind:?}"),
        }
        sleep(Duration::from_millis(random.u64(..200))).await;
        if !hold.is_held() && random.bool() {
            break;
        }
    }
    {
        let mut oracle = oracle.lock().unwrap();
        oracle.forget(&hold);
        oracle.counts.lost += u64::from(!hold.is_held());
    }
    let hold = Arc::into_inner(hold).unwrap();
    if random.bool() && hold.release().await.is_ok() {
        oracle.lock().unwrap().counts.released += 1;
    }
}

/// Does to a member what networks, servers and machines do.
fn disturb(member: &Member, random: &mut fastrand::Rng, late: &mut Vec<Held>) {
    const CALLS: [CallKind; 6] = [
        CallKind::Grant,
        CallKind::Range,
        CallKind::Revoke,
        CallKind::Txn,
        CallKind::Txn,
        CallKind::Watch,
    ];
    let faults = &member.faults;
    let call = CALLS[random.usize(..CALLS.len())];
    let delay = Duration::from_millis(random.u64(..1500));
    match random.u8(..22) {
        0 => faults.partition(Partition::Hang),
        1 => faults.partition(Partition::LoseReplies),
        2 => faults.partition(Partition::Refuse),
        3 => faults.cut_watches(),
        4 => faults.silence_watches(),
        5 => faults.cut_beats(),
        6 => faults.silence_beats(),
        7 => faults.drop_beats(random.u32(1..4)),
        8 => faults.delay_beats(random.u32(1..4), delay),
        9 => faults.delay_events(delay / 4),
        10 => faults.next(call, Fate::DelayReply(delay)),
        11 => faults.next(call, Fate::DelayRequest(delay)),
        12 => faults.next(call, Fate::Double),
        13 => faults.next(call, Fate::LoseReply),
        14 => faults.next(call, Fate::LoseRequest),
        15 => late.push(faults.hold_next(call)),
        16 if !late.is_empty() => late.swap_remove(random.usize(..late.len())).let_through(),
        17 => member.machine.stop(),
        18 | 19 => member.machine.go_on(),
        _ => faults.heal(),
    }
}

async fn storm(seed: u64) -> Counts {
    let mut random = fastrand::Rng::with_seed(seed);
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let observer = Client::with_backend(Arc::clone(&store));
    let oracle: Arc<Mutex<Oracle>> = Arc::default();
    let over = Instant::now() + STORM;
    let mut members = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..CLIENTS {
        let machine = Machine::new(0.95 + 0.1 * random.f64(), random.u64(..));
        let fault = Fault::new(Arc::clone(&store));
        let faults = fault.faults();
        let options = ConnectOptions::memory()
            .runtime(Arc::new(machine.clone()))
            .session_ttl(TTL)
            .timeout(Duration::from_secs(1));
        let client = Client::with_backend_and(Arc::new(fault), options);
        for _ in 0..WORKERS {
            let worker = work(client.clone(), random.u64(..), over, Arc::clone(&oracle));
            workers.push(tokio::spawn(machine.run(worker)));
        }
        members.push(Member {
            client,
            faults,
            machine,
        });
    }

    let mut late = Vec::new();
    while Instant::now() < over {
        sleep(Duration::from_millis(random.u64(..150))).await;
        oracle.lock().unwrap().look();
        let member = &members[random.usize(..CLIENTS)];
        disturb(member, &mut random, &mut late);
        if random.u8(..20) == 0 {
            let present = observer.put("noise", "x").await.unwrap();
            observer.compact(present, false).await.unwrap();
        }
    }

    for member in &members {
        member.machine.go_on();
        member.faults.heal();
    }
    late.iter().for_each(Held::let_through);
    for worker in workers {
        // Nobody waits for ever, and nobody who waits is forgotten.
        let ended = timeout(Duration::from_secs(60), worker).await;
        ended.expect("a worker hangs").unwrap();
    }
    for member in &members {
        let lock = member.client.lock(NAME);
        let acquired = timeout(Duration::from_secs(20), async {
            loop {
                match lock.acquire().await {
                    Ok(guard) => return guard,
                    // Of a session that somebody began to make during the storm.
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        });
        let guard = acquired.await.expect("the lock is free");
        guard.release().await.unwrap();
    }
    let machines: Vec<_> = members
        .into_iter()
        .map(|member| (member.machine, member.faults))
        .collect();
    until("nothing is left behind", async || {
        let keys = observer.count(KeyRange::prefix(NAME)).await.unwrap();
        let leases = observer.leases().await.unwrap();
        keys == 0
            && leases.is_empty()
            && machines.iter().all(|(machine, faults)| {
                machine.tasks() == 0
                    && faults.open_streams(CallKind::Watch) == 0
                    && faults.open_streams(CallKind::KeepAlive) == 0
            })
    })
    .await;
    oracle.lock().unwrap().counts
}

fn run(seed: u64) -> Counts {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(storm(seed))
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(150);
    let mut sum = Counts::default();
    for seed in 0..seeds {
        let counts = run(seed);
        sum.acquired += counts.acquired;
        sum.cancelled += counts.cancelled;
        sum.lost += counts.lost;
        sum.released += counts.released;
        sum.refused_writes += counts.refused_writes;
    }
    println!("{sum:?}");
    // A storm in which nothing happened would have proved nothing.
    let Counts {
        acquired,
        cancelled,
        lost,
        released,
        refused_writes,
    } = sum;
    for count in [acquired, cancelled, lost, released, refused_writes] {
        assert!(count >= seeds / 2, "{sum:?}");
    }
}

//! What happens to the clients and their store, and when: drawn from a seed, and kept as data so that it
//! can be printed, and cut down to what a failure needs.

use std::{fmt, time::Duration};

use quorate::{
    ErrorKind,
    backend::fault::{CallKind, Fate, Partition},
};

use super::scheduler::MachineId;

/// Everything that is decided before a run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    /// How fast the clock of each client runs.
    pub(crate) rates: Vec<f64>,
    /// How many tasks each client has.
    pub(crate) workers: u64,
    /// The time to live of sessions.
    pub(crate) ttl: Duration,
    /// How long the faults go on.
    pub(crate) storm: Duration,
    /// Whether nobody ends a lease early or deletes what is not his.
    pub(crate) assumed: bool,
    pub(crate) steps: Vec<Step>,
}

/// A fault, and its moment.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Not before then.
    pub(crate) at: Duration,
    /// And after so many more steps of the client's tasks: between any two of them.
    pub(crate) after: u32,
    /// Whom it happens to.
    pub(crate) client: MachineId,
    pub(crate) fault: Fault,
}

/// What happens to a client, or to the store of all.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Its connection, for so long.
    Partition(Partition, Duration),
    CutWatches,
    SilenceWatches(Duration),
    CutBeats,
    SilenceBeats(Duration),
    DropBeats(u32),
    DelayBeats(u32, Duration),
    DelayEvents(Duration, Duration),
    /// The next call of a kind.
    Next(CallKind, Fate),
    /// The next call of a kind stays in flight for so long, whoever waits for it.
    Late(CallKind, Duration),
    /// The client stands still, its clock goes on.
    Pause(Duration),
    /// One of its tasks stands still, all else goes on.
    Stall(u64, Duration),

    /// The store has no leader for so long; the new one lets every lease begin its time anew.
    Election(Duration),
    /// The store is away for so long.
    Restart(Duration),
    /// Every answer takes so long, for so long.
    Slow(Duration, Duration),
    /// Leases end so much later, for so long.
    LateExpiry(Duration, Duration),
    Compact,

    /// Outside of the assumptions: the store ends the lease of some key.
    EndLease(u64),
    /// Somebody deletes some key.
    DeleteKey(u64),
}

/// The calls that something may happen to. Most are transactions.
const CALLS: [CallKind; 8] = [
    CallKind::Grant,
    CallKind::KeepAlive,
    CallKind::Range,
    CallKind::Revoke,
    CallKind::Txn,
    CallKind::Txn,
    CallKind::Txn,
    CallKind::Watch,
];

/// The clock rates that are allowed, seen from the store.
const SLOWEST: f64 = 0.95;
const FASTEST: f64 = 1.05;

impl Schedule {
    /// Draws a schedule.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clients = random.usize(2..5);
        let rates = (0..clients).map(|_| match random.u8(..4) {
            // What can go wrong goes wrong at the ends.
            0 => SLOWEST,
            1 => FASTEST,
            _ => SLOWEST + (FASTEST - SLOWEST) * random.f64(),
        });
        let rates = rates.collect();
        let workers = random.u64(1..4);
        let ttl = Duration::from_secs(random.u64(1..4));
        let storm = Duration::from_secs(random.u64(10..30));
        let assumed = random.u8(..3) != 0;
        let mut steps = Vec::new();
        // Some storms are violent, and in some there are long lulls.
        let pause = random.u64(40..800);
        let mut at = Duration::ZERO;
        loop {
            at += Duration::from_millis(random.u64(..2 * pause));
            if at >= storm {
                break;
            }
            steps.push(Step {
                at,
                after: if random.bool() { random.u32(1..20) } else { 0 },
                client: random.usize(..clients),
                fault: Fault::draw(&mut random, ttl, assumed),
            });
        }
        Self {
            seed,
            rates,
            workers,
            ttl,
            storm,
            assumed,
            steps,
        }
    }
}

impl Schedule {
    /// Whether a network that repeats requests may have a write applied twice.
    pub(crate) fn doubles(&self) -> bool {
        let doubled = |step: &Step| matches!(step.fault, Fault::Next(CallKind::Txn, Fate::Double));
        self.steps.iter().any(doubled)
    }
}

impl Fault {
    fn draw(random: &mut fastrand::Rng, ttl: Duration, assumed: bool) -> Self {
        let call = CALLS[random.usize(..CALLS.len())];
        let short = Duration::from_millis(random.u64(1..1500));
        // Shorter than a session lives, or longer.
        let window = ttl.mul_f64(random.f64() * if random.bool() { 0.6 } else { 2.5 });
        let kinds = if assumed { 34 } else { 38 };
        match random.u8(..kinds) {
            0 | 1 => Self::Partition(Partition::Hang, window),
            2 => Self::Partition(Partition::LoseReplies, window),
            3 => Self::Partition(Partition::Refuse, window),
            4 => Self::CutWatches,
            5 => Self::SilenceWatches(window),
            6 => Self::CutBeats,
            7 => Self::SilenceBeats(window),
            8 => Self::DropBeats(random.u32(1..4)),
            9 => Self::DelayBeats(random.u32(1..4), short),
            10 => Self::DelayEvents(short / 4, window),
            11 => Self::Next(call, Fate::DelayReply(short)),
            12 => Self::Next(call, Fate::DelayRequest(short)),
            13 => Self::Next(call, Fate::Double),
            14 | 15 => Self::Next(call, Fate::LoseReply),
            16 => Self::Next(call, Fate::LoseRequest),
            17 | 18 => Self::Late(call, window),
            19..=21 => Self::Pause(window),
            22 => Self::Election(window / 2),
            23 => Self::Restart(window / 2),
            24 => Self::Slow(short / 3, window),
            25 => Self::LateExpiry(short, window),
            26 => Self::Compact,
            27 => Self::Partition(Partition::LoseRequests, window),
            28 => Self::Next(call, Fate::HangReply),
            29 => Self::Next(call, Fate::HangRequest),
            30 => Self::Next(call, Fate::Refuse(ErrorKind::Unavailable)),
            31..=33 => Self::Stall(random.u64(..), window),
            34 | 35 => Self::EndLease(random.u64(..)),
            _ => Self::DeleteKey(random.u64(..)),
        }
    }

    /// Whether it happens to the store, and so to everybody.
    pub(crate) fn is_of_store(&self) -> bool {
        matches!(
            self,
            Self::Election(_)
                | Self::Restart(_)
                | Self::Slow(..)
                | Self::LateExpiry(..)
                | Self::Compact
                | Self::EndLease(_)
                | Self::DeleteKey(_)
        )
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            rates,
            workers,
            ttl,
            storm,
            assumed,
            steps,
        } = self;
        let clients = rates.len();
        let inside = if *assumed { "inside" } else { "outside" };
        writeln!(
            f,
            "seed {seed}: {clients} clients with {workers} tasks each, sessions of {ttl:?}, \
             {} faults in {storm:?}, {inside} of the assumptions",
            steps.len()
        )?;
        for (client, rate) in rates.iter().enumerate() {
            writeln!(f, "  the clock of client {client} runs at {rate:.3}")?;
        }
        steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            after,
            client,
            fault,
        } = self;
        write!(f, "{:>9.3}", at.as_secs_f64())?;
        if *after > 0 {
            write!(f, " +{after}")?;
        }
        if !fault.is_of_store() {
            write!(f, " client {client}:")?;
        }
        write!(f, " {fault:?}")
    }
}

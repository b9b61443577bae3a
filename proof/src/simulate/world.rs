//! The clients, their store, and what happens to them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use quorate::{
    Client, ConnectOptions, KeyRange, LeaseId, Range,
    backend::{
        Backend, Memory,
        fault::{CallKind, Fault as Faulty, Faults, Held, Partition},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    machine::Machine,
    schedule::{Fault, Schedule, Step},
    scheduler::{MachineId, Scheduler},
    trace::Trace,
    trouble::{Trouble, Troubles},
    wire::Wire,
};

/// Where everything runs that nothing happens to.
pub(crate) const OUTSIDE: MachineId = usize::MAX;

/// How long a call may take.
pub(crate) const CALL: Duration = Duration::from_secs(1);

/// How long what was let go may stay: as long as the longest lease, and until that is seen.
const GONE: Duration = Duration::from_secs(5);

/// How long anything may take once all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which of the invariants.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// How often what happened.
pub type Counts = BTreeMap<&'static str, u64>;

/// Everything of one run.
pub(crate) struct World {
    pub(crate) schedule: Schedule,
    pub(crate) trace: Trace,
    pub(crate) store: Memory,
    /// A client that nothing happens to.
    pub(crate) observer: Client,
    pub(crate) members: Vec<Member>,
    /// When the faults end.
    pub(crate) over: Instant,
    scheduler: Scheduler,
    begun: Instant,
    workers: Mutex<Vec<oneshot::Receiver<()>>>,
    late: Mutex<Vec<Held>>,
    next_trouble: AtomicUsize,
    /// When the store last let all leases begin their time anew.
    kept_alive: Mutex<Instant>,
    /// By how much leases end late now; the longest counts.
    delays: Mutex<Vec<Duration>>,
    latest_expiry: Duration,
    ended: AtomicBool,
    verdict: Mutex<Option<Violation>>,
    counts: Mutex<Counts>,
}

/// A client, its machine, and what is between it and the store.
pub(crate) struct Member {
    /// Absent once nobody is to use it any more.
    client: Mutex<Option<Client>>,
    pub(crate) faults: Faults,
    troubles: Troubles,
    /// When something of this client last got through that had been held back.
    healed: Mutex<Instant>,
    pub(crate) machine: Machine,
}

impl Member {
    /// The client. Tasks that outlive the storm must not keep it.
    pub(crate) fn client(&self) -> Client {
        let client = lock(&self.client).clone();
        client.expect("nobody works when the clients are gone")
    }
}

impl World {
    pub(crate) fn new(schedule: Schedule, trace: Trace) -> Arc<Self> {
        let mut random = fastrand::Rng::with_seed(schedule.seed ^ 0x5eed);
        let scheduler = Scheduler::new(random.u64(..));
        let store = Memory::new();
        let join = |id: MachineId, rate, seed: u64| {
            let machine = Machine::new(id, &scheduler, rate, seed);
            let fault = Faulty::new(Arc::new(store.clone()));
            let faults = fault.faults();
            let mut backend: Arc<dyn Backend> = Arc::new(fault);
            if trace.is_on() {
                backend = Arc::new(Wire::new(backend, id, &trace));
            }
            let options = ConnectOptions::memory()
                .runtime(Arc::new(machine.clone()))
                .session_ttl(schedule.ttl)
                .timeout(CALL);
            let client = Client::with_backend_and(backend, options);
            Member {
                client: Mutex::new(Some(client)),
                troubles: Troubles::new(faults.clone()),
                faults,
                healed: Mutex::new(Instant::now()),
                machine,
            }
        };
        let members = schedule.rates.iter().enumerate();
        let members = members.map(|(id, &rate)| join(id, rate, random.u64(..)));
        let members = members.collect();
        let observer = join(OUTSIDE, 1.0, random.u64(..)).client();
        let begun = Instant::now();
        let delays = schedule.steps.iter().map(|step| match step.fault {
            Fault::LateExpiry(delay, _) => delay,
            _ => Duration::ZERO,
        });
        let latest_expiry = delays.max().unwrap_or_default();
        Arc::new(Self {
            trace,
            store,
            observer,
            members,
            over: begun + schedule.storm,
            scheduler,
            begun,
            workers: Mutex::default(),
            late: Mutex::default(),
            next_trouble: AtomicUsize::new(0),
            kept_alive: Mutex::new(begun),
            delays: Mutex::default(),
            latest_expiry,
            ended: AtomicBool::new(false),
            verdict: Mutex::default(),
            counts: Mutex::default(),
            schedule,
        })
    }

    /// Adds a task to a client, which has to come to an end once the faults have.
    pub(crate) fn work(&self, client: MachineId, work: impl Future<Output = ()> + Send + 'static) {
        let (end, ended) = oneshot::channel();
        let task = async move {
            work.await;
            drop(end);
        };
        lock(&self.workers).push(ended);
        self.scheduler.spawn(client, Box::pin(task));
    }

    /// A generator of its own for each task, so that a fault less changes no draw.
    pub(crate) fn random(&self, client: MachineId, worker: u64) -> fastrand::Rng {
        let mix = |seed, place: u64| {
            let place = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            fastrand::Rng::with_seed(seed ^ place).u64(..)
        };
        let seed = [client as u64, worker]
            .into_iter()
            .fold(self.schedule.seed, mix);
        fastrand::Rng::with_seed(seed)
    }

    /// Since when all of a client stands still, if it does.
    pub(crate) fn stopped(&self, client: MachineId) -> Option<Instant> {
        self.scheduler.stopped(client)
    }

    /// Whether a client, or any task of it, stands still.
    pub(crate) fn is_stopped(&self, client: MachineId) -> bool {
        self.scheduler.is_stopped(client)
    }

    pub(crate) fn storms(&self) -> bool {
        Instant::now() < self.over
    }

    /// Whether all is done, and only to be dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || lock(&self.verdict).is_some()
    }

    /// Says that a promise was broken. The first is what counts.
    pub(crate) fn broken(&self, invariant: &'static str, what: fmt::Arguments<'_>) {
        self.trace.say(format_args!("BROKEN {invariant}: {what}"));
        lock(&self.verdict).get_or_insert_with(|| Violation {
            invariant,
            what: what.to_string(),
        });
    }

    /// When a beat, or a grant, of this client may last have arrived that it had sent before.
    pub(crate) fn healed(&self, client: MachineId) -> Instant {
        *lock(&self.members[client].healed)
    }

    /// When the store last let all leases begin their time anew.
    pub(crate) fn kept_alive(&self) -> Instant {
        *lock(&self.kept_alive)
    }

    /// How much later than its time a lease may end.
    pub(crate) fn latest_expiry(&self) -> Duration {
        self.latest_expiry
    }

    pub(crate) fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Runs to the end: `look` is asked after every step of every task, `settle` once all is well.
    pub(crate) async fn run(
        self: &Arc<Self>,
        mut look: impl FnMut(),
        settle: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Violation> {
        let world = Arc::clone(self);
        let driver = async move {
            world.storm().await;
            world.calm().await;
            settle.await;
            world.ended.store(true, Ordering::Relaxed);
        };
        self.scheduler.spawn(OUTSIDE, Box::pin(driver));
        let until = || {
            look();
            self.ended.load(Ordering::Relaxed) || lock(&self.verdict).is_some()
        };
        if let Err(panic) = self.scheduler.run(until).await {
            self.broken("I13", format_args!("a task panicked: {panic}"));
        }
        lock(&self.verdict).clone()
    }

    async fn storm(self: &Arc<Self>) {
        for step in &self.schedule.steps {
            sleep_until(self.begun + step.at).await;
            let world = Arc::clone(self);
            let armed = step.clone();
            let act = move || world.happen(&armed);
            self.scheduler.after(step.client, step.after, act);
        }
        sleep_until(self.over).await;
    }

    /// Ends all faults, and waits for everybody.
    async fn calm(&self) {
        self.trace.say(format_args!("calm"));
        self.store.delay_expiry(Duration::ZERO);
        lock(&self.late).iter().for_each(Held::let_through);
        for member in &self.members {
            let client = member.machine.id();
            self.scheduler.go_on_at_last(client);
            member.troubles.end_all();
            self.is_healed(client);
        }
        let all_ended = async {
            // Who works may set others to work to the last.
            loop {
                let workers = std::mem::take(&mut *lock(&self.workers));
                if workers.is_empty() {
                    return;
                }
                join_all(workers).await;
            }
        };
        if timeout(PATIENCE, all_ended).await.is_err() {
            self.broken("I12", format_args!("a task hangs"));
        }
    }

    fn happen(self: &Arc<Self>, step: &Step) {
        // What comes when all is well is no fault of the schedule.
        if !self.storms() {
            return;
        }
        self.trace.say(format_args!("* {step}"));
        let client = step.client;
        let faults = &self.members[client].faults;
        let trouble = |trouble, window| self.trouble(&[client], trouble, window);
        match step.fault {
            Fault::Partition(partition, window) => trouble(Trouble::CutOff(partition), window),
            Fault::CutWatches => faults.cut_watches(),
            Fault::SilenceWatches(window) => trouble(Trouble::SilentWatches, window),
            Fault::CutBeats => faults.cut_beats(),
            Fault::SilenceBeats(window) => trouble(Trouble::SilentBeats, window),
            Fault::DropBeats(count) => faults.drop_beats(count),
            Fault::DelayBeats(count, delay) => faults.delay_beats(count, delay),
            Fault::DelayEvents(delay, window) => trouble(Trouble::LateEvents(delay), window),
            Fault::Next(call, fate) => faults.next(call, fate),
            Fault::Late(call, window) => {
                let held = faults.hold_next(call);
                let mut late = lock(&self.late);
                let place = late.len();
                late.push(held);
                drop(late);
                self.later(window, move |world| {
                    lock(&world.late)[place].let_through();
                    world.is_healed(client);
                });
            }
            Fault::Pause(window) => {
                self.scheduler.stop(client);
                self.later(window, move |world| world.scheduler.go_on(client));
            }
            Fault::Stall(nth, window) => {
                if let Some(task) = self.scheduler.stall(client, nth) {
                    self.later(window, move |world| world.scheduler.resume(client, task));
                }
            }
            Fault::Election(window) => {
                self.later(window, |world| {
                    world.keep_all_alive();
                    for member in &world.members {
                        member.faults.cut_watches();
                        member.faults.cut_beats();
                    }
                });
                self.trouble(&self.everybody(), Trouble::CutOff(Partition::Hang), window);
            }
            Fault::Restart(window) => {
                self.later(window, Self::keep_all_alive);
                self.trouble(
                    &self.everybody(),
                    Trouble::CutOff(Partition::Refuse),
                    window,
                );
            }
            Fault::Slow(delay, window) => {
                self.trouble(&self.everybody(), Trouble::SlowAnswers(delay), window);
            }
            Fault::LateExpiry(delay, window) => {
                let delays = |world: &Self, change: &dyn Fn(&mut Vec<Duration>)| {
                    let mut delays = lock(&world.delays);
                    change(&mut delays);
                    let longest = delays.iter().max().copied().unwrap_or_default();
                    world.store.delay_expiry(longest);
                };
                delays(self, &|delays| delays.push(delay));
                self.later(window, move |world| {
                    delays(world, &|delays| {
                        let place = delays.iter().position(|other| *other == delay);
                        if let Some(place) = place {
                            delays.remove(place);
                        }
                    });
                });
            }
            Fault::Compact => self.aside(|world| async move {
                let present = world.store.revision();
                // It may have been compacted already.
                drop(world.store.compact(present, false).await);
            }),
            Fault::EndLease(nth) => self.aside(move |world| async move {
                if let Ok(leases) = world.observer.leases().await
                    && !leases.is_empty()
                {
                    let lease: LeaseId = leases[nth as usize % leases.len()];
                    world.store.expire(lease);
                }
            }),
            Fault::DeleteKey(nth) => self.aside(move |world| async move {
                let all = Range::new(KeyRange::all());
                let keys = world.store.range(all).await;
                let keys = keys.map(|found| found.kvs).unwrap_or_default();
                let mut leased = keys
                    .iter()
                    .filter(|kv| kv.lease.is_some())
                    .collect::<Vec<_>>();
                leased.sort_unstable_by_key(|kv| kv.create_revision);
                if !leased.is_empty() {
                    let key = &leased[nth as usize % leased.len()].key;
                    drop(world.observer.delete(key).await);
                }
            }),
        }
    }

    fn everybody(&self) -> Vec<MachineId> {
        (0..self.members.len()).collect()
    }

    /// Troubles clients for a while.
    fn trouble(self: &Arc<Self>, clients: &[MachineId], trouble: Trouble, window: Duration) {
        let id = self.next_trouble.fetch_add(1, Ordering::Relaxed);
        for &client in clients {
            self.members[client].troubles.begin(id, trouble);
            self.later(window, move |world| {
                world.members[client].troubles.end(id);
                world.is_healed(client);
            });
        }
    }

    fn keep_all_alive(&self) {
        self.store.keep_all_alive();
        *lock(&self.kept_alive) = Instant::now();
    }

    /// What a client sent before may arrive now.
    fn is_healed(&self, client: MachineId) {
        *lock(&self.members[client].healed) = Instant::now();
    }

    /// Does something when a while has passed.
    fn later(self: &Arc<Self>, delay: Duration, act: impl FnOnce(&Self) + Send + 'static) {
        self.aside(move |world| async move {
            sleep(delay).await;
            // What has not ended by then ends with all faults.
            if world.storms() {
                act(&world);
            }
        });
    }

    /// Runs what nothing happens to.
    pub(crate) fn aside<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(Arc<Self>) -> F,
    ) {
        let task = act(Arc::clone(self));
        self.scheduler.spawn(OUTSIDE, Box::pin(task));
    }

    /// Lets the clients go and waits until nothing of their doing is left: no lease, no task, no stream.
    pub(crate) async fn nothing_left(&self) {
        for member in &self.members {
            drop(lock(&member.client).take());
        }
        let left = || async {
            let leases = self.observer.leases().await.unwrap_or_default().len();
            let mut left = vec![format!("{leases} leases")];
            for member in &self.members {
                let id = member.machine.id();
                let tasks = self.scheduler.tasks(id);
                let watches = member.faults.open_streams(CallKind::Watch);
                let beats = member.faults.open_streams(CallKind::KeepAlive);
                if tasks + watches + beats > 0 {
                    left.push(format!(
                        "client {id}: {tasks} tasks, {watches} watches, {beats} beats"
                    ));
                }
            }
            (leases > 0 || left.len() > 1).then(|| left.join("; "))
        };
        let deadline = Instant::now() + GONE;
        while let Some(left) = left().await {
            if Instant::now() >= deadline {
                self.broken("I5", format_args!("left behind: {left}"));
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

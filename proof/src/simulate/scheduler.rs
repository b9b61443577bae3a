//! Runs the tasks of all machines on one thread, in an order that the seed decides.
//!
//! Tokio gives timers and virtual time, but no order that could be repeated: who of several that wait for
//! one thing wakes first is its choice. Here a task that could run is one of a set, and the next is drawn
//! from it. That also tries orders that a fair queue never would.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use futures_core::future::BoxFuture;
use tokio::time::Instant;

/// A machine, by its place among all of them.
pub(crate) type MachineId = usize;

/// The tasks of every machine. Clones are the same scheduler.
#[derive(Clone, Default)]
pub(crate) struct Scheduler(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tasks: BTreeMap<TaskId, Task>,
    machines: BTreeMap<MachineId, Machine>,
    next: TaskId,
    random: fastrand::Rng,
    /// Who runs all of this.
    runner: Option<Waker>,
}

/// A task, by its place among all that there ever were.
pub(crate) type TaskId = u64;

struct Task {
    machine: MachineId,
    /// Absent while it is polled.
    future: Option<BoxFuture<'static, ()>>,
}

#[derive(Default)]
struct Machine {
    ready: BTreeSet<TaskId>,
    tasks: usize,
    /// How many times it was stopped and did not go on, and when the first time was.
    stops: u32,
    stopped: Option<Instant>,
    /// Those of its tasks that stand still though it runs.
    stalled: BTreeSet<TaskId>,
    /// What happens after how many more steps of its tasks.
    wires: Vec<(u32, Box<dyn FnOnce() + Send>)>,
}

impl Scheduler {
    /// A scheduler that draws by `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let scheduler = Self::default();
        scheduler.lock().random.seed(seed);
        scheduler
    }

    /// Adds a task to a machine.
    pub(crate) fn spawn(&self, machine: MachineId, future: BoxFuture<'static, ()>) {
        let runner = {
            let mut state = self.lock();
            let id = state.next;
            state.next += 1;
            let future = Some(future);
            state.tasks.insert(id, Task { machine, future });
            let machine = state.machines.entry(machine).or_default();
            machine.tasks += 1;
            machine.ready.insert(id);
            state.runner.take()
        };
        runner.into_iter().for_each(Waker::wake);
    }

    /// How many tasks a machine has.
    pub(crate) fn tasks(&self, machine: MachineId) -> usize {
        let state = self.lock();
        state.machines.get(&machine).map_or(0, |m| m.tasks)
    }

    /// Stops everything that runs on a machine, until it [goes on](Scheduler::go_on) as many times.
    pub(crate) fn stop(&self, machine: MachineId) {
        self.change(machine, |machine| {
            machine.stops += 1;
            machine.stopped.get_or_insert_with(Instant::now);
        });
    }

    /// Stops one of a machine's tasks, if it has any.
    pub(crate) fn stall(&self, machine: MachineId, nth: u64) -> Option<TaskId> {
        let mut state = self.lock();
        let own = state
            .tasks
            .iter()
            .filter(|(_, task)| task.machine == machine);
        let own: Vec<_> = own.map(|(id, _)| *id).collect();
        let id = *own.get(nth as usize % own.len().max(1))?;
        state
            .machines
            .entry(machine)
            .or_default()
            .stalled
            .insert(id);
        Some(id)
    }

    /// Whether a machine, or any of its tasks, stands still.
    pub(crate) fn is_stopped(&self, machine: MachineId) -> bool {
        let state = self.lock();
        let machine = state.machines.get(&machine);
        machine.is_some_and(|machine| machine.stops > 0 || !machine.stalled.is_empty())
    }

    /// Since when all of a machine stands still, if it does.
    pub(crate) fn stopped(&self, machine: MachineId) -> Option<Instant> {
        let state = self.lock();
        state
            .machines
            .get(&machine)
            .and_then(|machine| machine.stopped)
    }

    /// Takes one stop back.
    pub(crate) fn go_on(&self, machine: MachineId) {
        self.change(machine, |machine| {
            machine.stops = machine.stops.saturating_sub(1);
            if machine.stops == 0 {
                machine.stopped = None;
            }
        });
    }

    /// Lets a task go on that was stalled.
    pub(crate) fn resume(&self, machine: MachineId, task: TaskId) {
        self.change(machine, |machine| {
            machine.stalled.remove(&task);
        });
    }

    /// Lets everything go on.
    pub(crate) fn go_on_at_last(&self, machine: MachineId) {
        self.change(machine, |machine| {
            machine.stops = 0;
            machine.stopped = None;
            machine.stalled.clear();
        });
    }

    fn change(&self, machine: MachineId, change: impl FnOnce(&mut Machine)) {
        let runner = {
            let mut state = self.lock();
            change(state.machines.entry(machine).or_default());
            state.runner.take()
        };
        runner.into_iter().for_each(Waker::wake);
    }

    /// Does something between two steps of a machine's tasks: after `steps` more of them.
    pub(crate) fn after(
        &self,
        machine: MachineId,
        steps: u32,
        act: impl FnOnce() + Send + 'static,
    ) {
        if steps == 0 {
            act();
            return;
        }
        let mut state = self.lock();
        let machine = state.machines.entry(machine).or_default();
        machine.wires.push((steps, Box::new(act)));
    }

    /// Runs all tasks until `until` tells, which is asked after every step, and drops them. The error is
    /// what a task panicked with.
    pub(crate) async fn run(&self, mut until: impl FnMut() -> bool) -> Result<(), String> {
        let outcome = poll_fn(|cx| {
            // Asked first for what happened outside of the tasks.
            if until() {
                return Poll::Ready(Ok(()));
            }
            let Some(id) = self.draw(cx) else {
                return Poll::Pending;
            };
            if let Err(panic) = self.step(id) {
                return Poll::Ready(Err(panic));
            }
            // One step at a time, so that each has a budget of its own.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let tasks = std::mem::take(&mut self.lock().tasks);
        // Outside of the lock: what is dropped may wake others.
        drop(tasks);
        outcome
    }

    /// Draws who runs next, of all that could.
    fn draw(&self, cx: &Context<'_>) -> Option<TaskId> {
        let mut state = self.lock();
        let State {
            machines, random, ..
        } = &mut *state;
        let running = machines.values().filter(|machine| machine.stops == 0);
        let count: usize = running.map(|machine| machine.runnable().count()).sum();
        if count == 0 {
            state.runner = Some(cx.waker().clone());
            return None;
        }
        let mut nth = random.usize(..count);
        for machine in machines.values_mut().filter(|machine| machine.stops == 0) {
            let id = machine.runnable().nth(nth);
            if let Some(id) = id {
                machine.ready.remove(&id);
                return Some(id);
            }
            nth -= machine.runnable().count();
        }
        None
    }

    fn step(&self, id: TaskId) -> Result<(), String> {
        let taken = self.lock().tasks.get_mut(&id).and_then(|task| {
            let machine = task.machine;
            task.future.take().map(|future| (machine, future))
        });
        // It was woken after its end.
        let Some((machine, mut future)) = taken else {
            return Ok(());
        };
        let alarm = Arc::new(Alarm {
            scheduler: self.clone(),
            machine,
            id,
        });
        let waker = Waker::from(alarm);
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let polled = future.as_mut().poll(&mut cx);
            if polled.is_ready() {
                drop(future);
                return None;
            }
            Some(future)
        }));
        let future = polled.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            text.unwrap_or_else(|| "a panic without a text".to_owned())
        })?;
        let due = {
            let mut state = self.lock();
            let ended = future.is_none();
            match future {
                Some(future) => {
                    if let Some(task) = state.tasks.get_mut(&id) {
                        task.future = Some(future);
                    }
                }
                None => drop(state.tasks.remove(&id)),
            }
            let machine = state.machines.entry(machine).or_default();
            machine.tasks -= usize::from(ended);
            machine.trip()
        };
        due.into_iter().for_each(|act| act());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// The tasks that could run.
    fn runnable(&self) -> impl Iterator<Item = TaskId> {
        self.ready.difference(&self.stalled).copied()
    }

    /// Counts a step, and takes what is to happen now.
    fn trip(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut due = Vec::new();
        for (left, act) in std::mem::take(&mut self.wires) {
            if left <= 1 {
                due.push(act);
            } else {
                self.wires.push((left - 1, act));
            }
        }
        due
    }
}

/// Wakes a task.
struct Alarm {
    scheduler: Scheduler,
    machine: MachineId,
    id: TaskId,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let runner = {
            let mut state = self.scheduler.lock();
            if !state.tasks.contains_key(&self.id) {
                return;
            }
            let machine = state.machines.entry(self.machine).or_default();
            machine.ready.insert(self.id);
            state.runner.take()
        };
        runner.into_iter().for_each(Waker::wake);
    }
}

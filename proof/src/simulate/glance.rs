//! Looks at the store and at the machines that take no time and change nothing, for oracles.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Event, KeyRange, KeyValue, LeaseId, Moment, Range, Revision, Runtime, WatchRequest,
    backend::{Backend, WatchStream},
};
use tokio::{task::unconstrained, time::Instant};

use super::{scheduler::MachineId, world::World};

impl World {
    /// The keys of a range as they are now.
    pub(crate) fn keys(&self, keys: KeyRange) -> Vec<KeyValue> {
        // The store answers at once.
        let found = unconstrained(self.store.range(Range::new(keys))).now_or_never();
        found
            .and_then(Result::ok)
            .map(|found| found.kvs)
            .unwrap_or_default()
    }

    /// The leases that live now.
    pub(crate) fn leases(&self) -> Vec<LeaseId> {
        let leases = unconstrained(self.store.leases()).now_or_never();
        leases.and_then(Result::ok).unwrap_or_default()
    }
}

/// What is written to a range, read after every step: nothing is missed, whatever is compacted.
pub(crate) struct Log {
    keys: KeyRange,
    stream: Option<Box<dyn WatchStream>>,
    at: Revision,
}

impl Log {
    /// What is written from the beginning of the store on.
    pub(crate) const fn new(keys: KeyRange) -> Self {
        Self {
            keys,
            stream: None,
            at: Revision::ZERO,
        }
    }

    /// What was written since the last look.
    pub(crate) fn look(&mut self, world: &World) -> Vec<Event> {
        let present = world.store.revision();
        if self.at == present {
            return Vec::new();
        }
        self.at = present;
        // The store answers at once.
        let stream = self.stream.get_or_insert_with(|| {
            let request = WatchRequest::new(self.keys.clone()).start(Revision(1));
            let watching = unconstrained(world.store.watch(request)).now_or_never();
            let watching = watching.and_then(Result::ok);
            watching.expect("the beginning is not compacted yet").stream
        });
        let mut events = Vec::new();
        while let Some(batch) = unconstrained(stream.next()).now_or_never() {
            let batch = batch.and_then(Result::ok);
            events.extend(batch.expect("it is read before it is compacted").events);
        }
        events
    }
}

/// Has everything looked at whenever something is written to a range, and be it by the store.
pub(crate) fn wake(world: &Arc<World>, keys: KeyRange) {
    world.aside(move |world| async move {
        // A compaction ends what has not been read yet.
        while let Ok(mut watching) = world.store.watch(WatchRequest::new(keys.clone())).await {
            while let Some(Ok(_)) = watching.stream.next().await {}
        }
    });
}

/// The keys of a range, read again only when the store has changed.
#[derive(Default)]
pub(crate) struct Mirror {
    at: Option<Revision>,
    keys: Vec<KeyValue>,
}

impl Mirror {
    /// Reads the keys as they are now, and tells whether the store has changed.
    pub(crate) fn look(&mut self, world: &World, keys: impl FnOnce() -> KeyRange) -> bool {
        let present = world.store.revision();
        let is_news = self.at != Some(present);
        if is_news {
            self.keys = world.keys(keys());
            self.at = Some(present);
        }
        is_news
    }

    /// The keys as they were read last.
    pub(crate) fn keys(&self) -> &[KeyValue] {
        &self.keys
    }
}

/// When which machine stood still.
#[derive(Default)]
pub(crate) struct Pauses(BTreeMap<MachineId, Pause>);

enum Pause {
    Now,
    Until(Instant),
}

/// Something that is to happen at once when it is due.
#[derive(Default)]
pub(crate) struct Due(Option<Instant>);

impl Due {
    /// Whether it has been due for longer than timers are late.
    pub(crate) fn is_late(&mut self, is_due: bool) -> bool {
        if !is_due {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() > Pauses::LATE
    }
}

/// When a call began.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    at: Instant,
    by_own_clock: Moment,
}

impl Begun {
    pub(crate) fn now(world: &World, machine: MachineId) -> Self {
        Self {
            at: Instant::now(),
            by_own_clock: world.members[machine].machine.now(),
        }
    }
}

impl Pauses {
    /// How long timers may be late: they count milliseconds.
    pub(crate) const LATE: Duration = Duration::from_millis(3);

    /// Takes note of who stands still. To be called after every step.
    pub(crate) fn look(&mut self, world: &World) {
        for member in &world.members {
            let id = member.machine.id();
            let now = Instant::now();
            if world.is_stopped(id) {
                self.0.insert(id, Pause::Now);
            } else if let Some(pause @ Pause::Now) = self.0.get_mut(&id) {
                *pause = Pause::Until(now);
            }
        }
    }

    /// A call of a machine that never stood still meanwhile may not take longer than `most`.
    pub(crate) fn bounded(
        &self,
        world: &World,
        machine: MachineId,
        begun: Begun,
        most: Duration,
        what: &str,
    ) {
        let paused = match self.0.get(&machine) {
            None => false,
            Some(Pause::Now) => true,
            Some(Pause::Until(end)) => *end >= begun.at,
        };
        let elapsed = world.members[machine]
            .machine
            .now()
            .since(begun.by_own_clock);
        if !paused && elapsed > most + Self::LATE {
            world.broken("I12", format_args!("{what} took {elapsed:?}"));
        }
    }
}

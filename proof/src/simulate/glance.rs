//! Looks at the store and at the machines that take no time and change nothing, for oracles.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use quorate::{KeyRange, KeyValue, LeaseId, Range, Revision, backend::Backend};
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

/// The keys of a range, read again only when the store has changed.
#[derive(Default)]
pub(crate) struct Mirror {
    at: Option<Revision>,
    keys: Vec<KeyValue>,
}

impl Mirror {
    /// The keys as they are now.
    pub(crate) fn look(&mut self, world: &World, keys: impl FnOnce() -> KeyRange) -> &[KeyValue] {
        let present = world.store.revision();
        if self.at != Some(present) {
            self.keys = world.keys(keys());
            self.at = Some(present);
        }
        &self.keys
    }
}

/// When which machine stood still.
#[derive(Default)]
pub(crate) struct Pauses(BTreeMap<MachineId, Pause>);

enum Pause {
    Stopped,
    Ended(Instant),
}

impl Pauses {
    /// Takes note of who stands still. To be called after every step.
    pub(crate) fn look(&mut self, world: &World) {
        for member in &world.members {
            let id = member.machine.id();
            if world.is_stopped(id) {
                self.0.insert(id, Pause::Stopped);
            } else if let Some(pause @ Pause::Stopped) = self.0.get_mut(&id) {
                *pause = Pause::Ended(Instant::now());
            }
        }
    }

    /// Whether a machine has run ever since.
    pub(crate) fn has_run_since(&self, machine: MachineId, since: Instant) -> bool {
        match self.0.get(&machine) {
            None => true,
            Some(Pause::Stopped) => false,
            Some(Pause::Ended(end)) => *end < since,
        }
    }
}

//! What a picker knows of the instances: who can be picked, and who failed when.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Change, Instance, Strategy, Tracker, shares::Shares};
use crate::{Moment, retry::fraction};

/// How long the first quarantine is at most.
const FIRST: Duration = Duration::from_secs(1);

/// How long any quarantine is at most.
const LONGEST: Duration = Duration::from_secs(30);

/// After so long without a failure the next is a first one.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// The instances that a picker picks from. It is no more than a value: time and chance come from the
/// caller.
pub(super) struct Pool {
    tracker: Tracker,
    strategy: Strategy,
    slots: Vec<Slot>,
    /// The place of each instance in `slots`.
    places: HashMap<Arc<str>, usize>,
    /// How much of the picks each slot gets.
    shares: Shares,
    /// Those in quarantine, by its end.
    quarantine: BTreeSet<(Moment, Arc<str>)>,
    /// Those in quarantine, by their last failure.
    last_resort: BTreeSet<(u64, Arc<str>)>,
    /// Those that failed before and may be picked, by their last failure; if that is the strategy.
    recovered: BTreeSet<(u64, Arc<str>)>,
    /// Where the next turn begins.
    turn: usize,
    /// A point of the whole, as a fraction of 2^64, that wanders evenly.
    point: u64,
    /// How many picks and failures there were.
    clock: u64,
}

struct Slot {
    id: Arc<str>,
    instance: Arc<Instance>,
    /// Tells it from another that has the same id later.
    since: u64,
    failures: u32,
    /// When the last failure was told, by the pool's count and by the clock.
    last_failure: Option<(u64, Moment)>,
    quarantine: Option<Moment>,
}

/// One pick.
pub(super) struct Picked {
    pub(super) id: Arc<str>,
    pub(super) instance: Arc<Instance>,
    since: u64,
    at: u64,
    /// The end of the quarantine that it is the test of.
    test: Option<Moment>,
}

impl Pool {
    pub(super) fn new(mut tracker: Tracker, strategy: Strategy, random: u64) -> Self {
        let instances = tracker.snapshot();
        let mut pool = Self {
            tracker,
            strategy,
            slots: Vec::with_capacity(instances.len()),
            places: HashMap::with_capacity(instances.len()),
            shares: Shares::default(),
            quarantine: BTreeSet::new(),
            last_resort: BTreeSet::new(),
            recovered: BTreeSet::new(),
            turn: 0,
            point: random,
            clock: 0,
        };
        for (id, instance) in instances.iter() {
            pool.add(Arc::clone(id), Arc::clone(instance));
        }
        // Clients that begin together begin at different instances.
        pool.turn = scale(random, pool.slots.len() as u64) as usize;
        pool
    }

    pub(super) fn pick(&mut self, now: Moment, random: u64) -> Option<Picked> {
        self.follow();
        self.end_quarantines(now);
        let at = self.choose(random)?;
        self.clock += 1;
        let mut test = None;
        if self.slots[at].failures > 0 && self.slots[at].quarantine.is_none() {
            // Nobody else is to try it at the same time.
            let end = now + quarantine(self.slots[at].failures, random);
            self.change(at, |slot| slot.quarantine = Some(end));
            test = Some(end);
        }
        let slot = &self.slots[at];
        Some(Picked {
            id: Arc::clone(&slot.id),
            instance: Arc::clone(&slot.instance),
            since: slot.since,
            at: self.clock,
            test,
        })
    }

    pub(super) fn failed(&mut self, picked: &Picked, now: Moment, random: u64) {
        let Some(at) = self.place(picked) else {
            return;
        };
        self.clock += 1;
        let clock = self.clock;
        self.change(at, |slot| {
            let forgotten = slot
                .last_failure
                .is_none_or(|(_, last)| now.since(last) >= FORGOTTEN);
            slot.failures = if forgotten { 1 } else { slot.failures + 1 };
            slot.last_failure = Some((clock, now));
            slot.quarantine = Some(now + quarantine(slot.failures, random));
        });
    }

    pub(super) fn succeeded(&mut self, picked: &Picked) {
        if let Some(at) = self.place(picked)
            && self.slots[at].failures > 0
        {
            self.change(at, |slot| {
                slot.failures = 0;
                slot.quarantine = None;
            });
        }
    }

    /// Nothing was told of a pick.
    pub(super) fn dropped(&mut self, picked: &Picked) {
        if let Some(test) = picked.test
            && let Some(at) = self.place(picked)
            && self.slots[at].quarantine == Some(test)
        {
            self.change(at, |slot| slot.quarantine = None);
        }
    }

    /// The slot of a pick, if what came of that says anything that is not known.
    fn place(&self, picked: &Picked) -> Option<usize> {
        let at = *self.places.get(&picked.id)?;
        let slot = &self.slots[at];
        let is_news = slot.last_failure.is_none_or(|(last, _)| last < picked.at);
        (slot.since == picked.since && is_news).then_some(at)
    }

    fn choose(&mut self, random: u64) -> Option<usize> {
        /// The fraction of 2^64 that wanders most evenly: the golden ratio's.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

        let total = self.shares.total();
        if total == 0 {
            let mut failed = self.recovered.iter().chain(&self.last_resort);
            let (_, id) = failed.next()?;
            return self.places.get(id).copied();
        }
        let point = match self.strategy {
            Strategy::Random => scale(random, total),
            Strategy::Weighted => {
                self.point = self.point.wrapping_add(STEP);
                scale(self.point, total)
            }
            Strategy::LeastRecentlyFailed | Strategy::RoundRobin => {
                match self.shares.before(self.turn) {
                    all if all == total => 0,
                    before => before,
                }
            }
        };
        let at = self.shares.find(point)?;
        self.turn = at + 1;
        Some(at)
    }

    fn end_quarantines(&mut self, now: Moment) {
        while let Some((end, id)) = self.quarantine.first()
            && *end <= now
            && let Some(&at) = self.places.get(id)
        {
            self.change(at, |slot| slot.quarantine = None);
        }
    }

    fn follow(&mut self) {
        while let Some(change) = self.tracker.take_change() {
            match change {
                Change::Joined(id, instance) => self.add(id, instance),
                Change::Left(id) => self.remove(&id),
                Change::Updated(id, instance) => {
                    let Some(&at) = self.places.get(&id) else {
                        continue;
                    };
                    if self.slots[at].instance.address == instance.address {
                        self.change(at, |slot| slot.instance = instance);
                    } else {
                        self.remove(&id);
                        self.add(id, instance);
                    }
                }
            }
        }
    }

    fn add(&mut self, id: Arc<str>, instance: Arc<Instance>) {
        self.clock += 1;
        let at = self.slots.len();
        self.slots.push(Slot {
            id: Arc::clone(&id),
            instance,
            since: self.clock,
            failures: 0,
            last_failure: None,
            quarantine: None,
        });
        self.places.insert(id, at);
        self.shares.push();
        self.enlist(at);
    }

    fn remove(&mut self, id: &str) {
        let Some(at) = self.places.remove(id) else {
            return;
        };
        let last = self.slots.len() - 1;
        self.strike(at);
        if at != last {
            // The last takes its place.
            self.strike(last);
        }
        self.slots.swap_remove(at);
        self.shares.pop();
        if let Some(moved) = self.slots.get(at) {
            self.places.insert(Arc::clone(&moved.id), at);
            self.enlist(at);
        }
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Slot)) {
        self.strike(at);
        change(&mut self.slots[at]);
        self.enlist(at);
    }

    /// Enters a slot where it belongs as it is.
    fn enlist(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.instance.draining || slot.instance.weight == 0 {
            return;
        }
        let failure = slot.last_failure.map(|(last, _)| last);
        if let Some(end) = slot.quarantine {
            self.quarantine.insert((end, Arc::clone(&slot.id)));
            let failure = failure.unwrap_or_default();
            self.last_resort.insert((failure, Arc::clone(&slot.id)));
            return;
        }
        match (self.strategy, failure) {
            (Strategy::LeastRecentlyFailed, Some(failure)) => {
                self.recovered.insert((failure, Arc::clone(&slot.id)));
            }
            (Strategy::Weighted, _) => self.shares.set(at, slot.instance.weight),
            _ => self.shares.set(at, 1),
        }
    }

    /// Takes a slot out of where it was entered.
    fn strike(&mut self, at: usize) {
        let slot = &self.slots[at];
        self.shares.set(at, 0);
        let failure = slot.last_failure.map_or(0, |(last, _)| last);
        let by_failure = (failure, Arc::clone(&slot.id));
        self.recovered.remove(&by_failure);
        if let Some(end) = slot.quarantine {
            self.last_resort.remove(&by_failure);
            self.quarantine.remove(&(end, by_failure.1));
        }
    }
}

/// How long a quarantine is after so many failures: half is certain, half is chance, so that clients
/// do not return together.
fn quarantine(failures: u32, random: u64) -> Duration {
    let longest = FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST);
    longest / 2 + fraction(longest / 2, random)
}

/// A fraction of 2^64 as a part of the whole.
fn scale(fraction: u64, whole: u64) -> u64 {
    ((u128::from(fraction) * u128::from(whole)) >> 64) as u64
}

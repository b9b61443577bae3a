//! What the keeper knows of one key, and what it does next about it.

use std::sync::Arc;

use super::slot::{Goal, Slot};
use crate::{
    Compare, EphemeralState, Event, Key, KeyValue, LeaseId, Op, OpResult, Put, Range, Revision,
    Session, Txn, TxnResult,
    mutant::{Mutant, planted},
};

/// How often an owner is deposed before the one who takes over gives up.
const EVICTIONS: u32 = 8;

/// Of how many leases it is remembered that they may yet bring the key back, or take it over. Older ones are long over.
const REMEMBERED: usize = 4;

/// Up to this size a value is sent a second time to be compared, rather than written twice.
const COMPARED: usize = 64 * 1024;

/// One key of the keeper.
pub(super) struct Entry {
    pub(super) slot: Arc<Slot>,
    /// What is wanted, as the keeper last looked; `None` if the key shall be gone.
    pub(super) goal: Option<Goal>,
    /// The newest value that was written for certain.
    pub(super) kept: Option<Goal>,
    /// How many times whoever owns the path may be deposed yet.
    evictions: u32,
    known: Known,
    /// Our incarnation, as it was last seen. It may be gone unless it is known to be present.
    own: Option<Own>,
    /// The number of the value that our incarnation has; zero if that is not known.
    written: u64,
    /// The leases under which an attempt to make the key may still be on its way.
    attempts: Vec<LeaseId>,
    /// The leases to which our incarnation may have been moved, or may be yet.
    moves: Vec<LeaseId>,
    /// Whether a write may have happened whose answer was lost.
    pub(super) in_doubt: bool,
    /// The revision of the store at which it was as it is known.
    known_at: Revision,
    /// The newest change of the key that was heard of.
    heard: Revision,
    /// Whether it goes in a transaction of its own, since one with others was refused.
    pub(super) alone: bool,
    /// Whether a step of it is on its way: what comes of it decides what is next.
    pub(super) in_flight: bool,
    /// Whether it is in line for the next transactions.
    pub(super) in_line: bool,
    /// Whether its changes are, or will be, told.
    pub(super) watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    /// Somebody else's, made at this revision.
    Foreign(Revision),
    /// Ours.
    Present,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    created: Revision,
    modified: Revision,
    lease: LeaseId,
}

/// What has to be done about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is somebody else's now.
    Conflict,
    /// It does not stand, as is wanted.
    Gone,
    /// All is as is wanted.
    Rest,
    /// It was somebody else's from the beginning.
    Taken,
    /// There is something to write, or to find out.
    Work,
}

/// One key's part in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes the key unless there is one.
    Create,
    /// Deletes our incarnation.
    Delete,
    /// Deletes somebody else's incarnation.
    Evict,
    /// Finds out.
    Look,
    /// Writes the value, or moves the key to another lease.
    Write,
}

impl Step {
    pub(super) const fn puts(self) -> bool {
        matches!(self, Self::Create | Self::Write)
    }
}

impl Entry {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self {
            goal: slot.goal(),
            evictions: evictions(&slot),
            slot,
            kept: None,
            known: Known::Unknown,
            own: None,
            written: 0,
            attempts: Vec::new(),
            moves: Vec::new(),
            in_doubt: false,
            known_at: Revision::ZERO,
            heard: Revision::ZERO,
            alone: false,
            in_flight: false,
            in_line: false,
            watched: false,
        }
    }

    /// Lets another slot have the key, of which what may still come is remembered.
    pub(super) fn pass_to(&mut self, slot: Arc<Slot>) {
        self.goal = slot.goal();
        self.evictions = evictions(&slot);
        self.slot = slot;
        self.kept = None;
        self.known = Known::Unknown;
        self.own = None;
        self.written = 0;
        self.alone = false;
    }

    /// Whether the key was made for its present owner.
    pub(super) const fn is_made(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether the key may stand under `lease`, or an attempt to make it may still be on its way.
    pub(super) fn may_stand_under(&self, lease: LeaseId) -> bool {
        self.attempts.contains(&lease) || self.own.is_some_and(|own| own.lease == lease)
    }

    /// Whether it is over for the owner, and kept only for what may still come.
    pub(super) fn is_left(&self) -> bool {
        self.goal.is_none() && self.slot.told().gone.is_some()
    }

    /// Whether a change may be what an attempt of ours did.
    pub(super) fn may_have_made(&self, event: &Event) -> bool {
        match event {
            Event::Put { kv, .. } => kv.lease.is_some_and(|lease| self.may_stand_under(lease)),
            Event::Delete { .. } => false,
        }
    }

    /// Whether there was ever anything to be deleted.
    fn was_tried(&self) -> bool {
        self.own.is_some() || !self.attempts.is_empty()
    }

    pub(super) fn verdict(&self, lease: Option<LeaseId>) -> Verdict {
        match (&self.goal, self.known) {
            (Some(_), Known::Foreign(_)) if self.is_made() => Verdict::Conflict,
            (Some(_), Known::Foreign(_)) if self.evictions == 0 => Verdict::Taken,
            (Some(goal), Known::Present) if self.written == goal.number && self.lives_by(lease) => {
                Verdict::Rest
            }
            (None, Known::Unknown) if !self.was_tried() => Verdict::Gone,
            (None, Known::Absent | Known::Foreign(_)) => Verdict::Gone,
            _ => Verdict::Work,
        }
    }

    /// The next step and its transaction; `None` if there is nothing to do, or no lease to do it.
    pub(super) fn plan(&self, lease: Option<LeaseId>) -> Option<(Step, Txn)> {
        if self.verdict(lease) != Verdict::Work {
            return None;
        }
        let path = &self.slot.path;
        let read = Range::new(path).keys_only();
        let Some(goal) = &self.goal else {
            return Some(match (self.known, self.own) {
                (Known::Present, Some(own)) => {
                    let txn = own.when_it_stands(path);
                    (Step::Delete, txn.then(Op::delete(path)).or_else(read))
                }
                _ => (Step::Look, Txn::new().then(read)),
            });
        };
        let lease = lease?;
        let put = Put::new(path, goal.value.clone()).lease(lease);
        let (step, txn) = match (self.known, self.own) {
            (Known::Foreign(created), _) => {
                let txn = Txn::new().when(Compare::create_revision(path).eq(created));
                return Some((Step::Evict, txn.then(Op::delete(path)).or_else(read)));
            }
            (Known::Present, Some(own)) => {
                // Bound to the last write that was seen: whatever is still on its way of ours comes
                // before this one, which then finds out, or not at all.
                let unchanged = Compare::mod_revision(path).eq(own.modified);
                (Step::Write, own.when_it_stands(path).when(unchanged))
            }
            _ if self.is_made() && planted(Mutant::HealOverAnother) => (Step::Create, Txn::new()),
            _ => (Step::Create, Txn::new().when(Compare::absent(path))),
        };
        let mut txn = txn.then(put).or_else(read);
        if self.in_doubt && goal.value.len() <= COMPARED {
            let same = Txn::new().when(Compare::value(path).eq(goal.value.clone()));
            txn = txn.or_else(same);
        }
        Some((step, txn))
    }

    /// Takes note of the answer to a step that was taken for `goal` under `lease`; false if it cannot
    /// be understood.
    pub(super) fn learn(
        &mut self,
        step: Step,
        goal: Option<&Goal>,
        lease: Option<LeaseId>,
        at: Revision,
        answer: &TxnResult,
    ) -> bool {
        let done = answer.succeeded && step != Step::Look;
        match (step, goal, lease) {
            (Step::Create | Step::Write, Some(goal), Some(lease)) if done => {
                let created = match (step, self.own) {
                    (Step::Write, Some(own)) => own.created,
                    _ => at,
                };
                self.known = Known::Present;
                self.own = Some(Own {
                    created,
                    modified: at,
                    lease,
                });
                // Whatever is still on its way is bound to what stood before.
                self.moves.clear();
                self.settle(goal);
            }
            (Step::Delete | Step::Evict, ..) if done => self.is_absent(),
            _ => {
                let Some(OpResult::Range(range)) = answer.results.first() else {
                    self.known = Known::Unknown;
                    return false;
                };
                let same =
                    matches!(answer.results.get(1), Some(OpResult::Txn(same)) if same.succeeded);
                self.see(range.kvs.first(), goal.filter(|_| same));
            }
        }
        if step == Step::Evict {
            self.evictions = self.evictions.saturating_sub(1);
        }
        self.known_at = self.known_at.max(at);
        if self.heard > self.known_at {
            self.known = Known::Unknown;
        }
        true
    }

    /// Takes note of what was read. `same` is the goal whose value the key was seen to have.
    fn see(&mut self, kv: Option<&KeyValue>, same: Option<&Goal>) {
        let Some(kv) = kv else {
            return self.is_absent();
        };
        let Some(lease) = kv.lease.filter(|lease| self.is_ours(kv, *lease)) else {
            self.known = Known::Foreign(kv.create_revision);
            self.own = None;
            return;
        };
        let unchanged = self.own.is_some_and(|own| {
            own.modified == kv.mod_revision && own.created == kv.create_revision
        });
        self.known = Known::Present;
        self.own = Some(Own {
            created: kv.create_revision,
            modified: kv.mod_revision,
            lease,
        });
        match same {
            // If nothing was written since, what is still on its way may be yet: only another write
            // keeps it off.
            _ if unchanged => {}
            Some(goal) => self.settle(goal),
            None => self.written = 0,
        }
    }

    /// Whether it is our incarnation, or one that an attempt of ours made whose answer was lost. A put
    /// by somebody else takes the key off our lease.
    fn is_ours(&self, kv: &KeyValue, lease: LeaseId) -> bool {
        let is_own = self.own.is_some_and(|own| {
            own.created == kv.create_revision && (own.lease == lease || self.moves.contains(&lease))
        });
        is_own || self.attempts.contains(&lease)
    }

    fn is_absent(&mut self) {
        self.known = Known::Absent;
        self.own = None;
        self.written = 0;
        self.moves.clear();
    }

    fn settle(&mut self, goal: &Goal) {
        self.written = goal.number;
        self.kept = Some(goal.clone());
        self.in_doubt = false;
        self.alone = false;
    }

    /// Takes note that nobody knows whether a step was taken.
    pub(super) fn doubt(&mut self, step: Step, lease: Option<LeaseId>) {
        self.known = Known::Unknown;
        let Some(lease) = lease.filter(|_| step.puts()) else {
            return;
        };
        self.in_doubt = true;
        let leases = match step {
            Step::Write => &mut self.moves,
            _ => &mut self.attempts,
        };
        if !leases.contains(&lease) {
            if leases.len() == REMEMBERED {
                leases.remove(0);
            }
            leases.push(lease);
        }
    }

    /// Takes note of a change; whether there is something to find out now.
    pub(super) fn hear(&mut self, at: Revision) -> bool {
        self.heard = self.heard.max(at);
        let news = at > self.known_at;
        if news {
            self.known = Known::Unknown;
        }
        news
    }

    /// Takes note that changes may have been missed.
    pub(super) fn forget(&mut self) {
        self.known = Known::Unknown;
        self.watched = false;
    }

    /// Takes note that the session with `lease` is over, and with it what might still come under it.
    /// What stands may stand until the server has noticed too.
    pub(super) fn session_is_over(&mut self, lease: LeaseId) {
        if self.goal.is_some() {
            self.known = Known::Unknown;
        } else {
            self.attempts.retain(|attempt| *attempt != lease);
        }
    }

    /// Takes note that the store is not the one that it was.
    pub(super) fn start_over(&mut self) {
        self.forget();
        self.known_at = Revision::ZERO;
        self.heard = Revision::ZERO;
    }

    /// How many bytes its step has, or somewhat more.
    pub(super) fn bytes(&self) -> usize {
        let value = self.goal.as_ref().map_or(0, |goal| goal.value.len());
        let compared = if self.in_doubt && value <= COMPARED {
            value
        } else {
            0
        };
        value + compared + 6 * self.slot.path.len() + 128
    }

    /// From which revision on changes have not been seen; `None` while nothing is known.
    pub(super) fn unseen_from(&self) -> Option<Revision> {
        (self.known_at > Revision::ZERO && self.known != Known::Unknown)
            .then(|| self.known_at.next())
    }

    fn lives_by(&self, lease: Option<LeaseId>) -> bool {
        lease.is_some() && self.own.map(|own| own.lease) == lease
    }

    /// Tells the owner how the key stands.
    pub(super) fn report(&self, session: Option<&Session>) {
        if self.goal.is_none() {
            return;
        }
        match (self.known, self.own) {
            (Known::Present, Some(own)) if self.is_made() => {
                let Some(session) = session.filter(|session| session.lease() == own.lease) else {
                    return;
                };
                self.slot.tell(|told| {
                    told.state = EphemeralState::Present { token: own.created };
                    told.token = own.created;
                    told.session = Some(session.clone());
                    told.confirmed = told.confirmed.max(self.written);
                    if self.verdict(Some(own.lease)) == Verdict::Rest {
                        told.error = None;
                    }
                });
            }
            (Known::Absent, _) if self.is_made() => self.report_gap(),
            _ => {}
        }
    }

    /// Tells the owner that the key does not stand.
    pub(super) fn report_gap(&self) {
        self.slot.tell(|told| {
            told.state = EphemeralState::Recreating;
            told.session = None;
        });
    }
}

impl Own {
    /// A transaction for as long as the incarnation stands by its lease: in a store that was restored
    /// somebody else's may have its revisions.
    fn when_it_stands(&self, path: &Key) -> Txn {
        if planted(Mutant::UnfencedRelease) {
            return Txn::new();
        }
        Txn::new()
            .when(Compare::create_revision(path).eq(self.created))
            .when(Compare::lease(path).eq(self.lease))
    }
}

fn evictions(slot: &Slot) -> u32 {
    if slot.takes_over { EVICTIONS } else { 0 }
}

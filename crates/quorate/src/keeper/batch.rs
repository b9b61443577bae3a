//! Many keys' steps in one transaction.

use std::sync::Arc;

use super::{Slot, entry::Step, slot::Goal};
use crate::{Error, ErrorKind, Op, OpResult, Result, Revision, Session, Txn, TxnResult};

/// How many keys go in one transaction: etcd takes 128 operations, less what is inside of them.
const MOST_KEYS: usize = 100;

/// How many bytes go in one transaction, unless a single key has more: etcd takes 1.5 MiB.
const MOST_BYTES: usize = 512 * 1024;

/// How many conditions go in one transaction.
const MOST_COMPARES: usize = MOST_KEYS;

/// The steps of several keys, all at one revision.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Sent>,
    /// The session under whose lease keys are put.
    pub(super) session: Option<Session>,
    txns: Vec<Txn>,
    bytes: usize,
    /// Whether each step is taken for itself, and not all or none.
    apart: bool,
}

/// A step as it was sent.
pub(super) struct Sent {
    pub(super) slot: Arc<Slot>,
    pub(super) step: Step,
    pub(super) goal: Option<Goal>,
}

impl Batch {
    pub(super) fn new(session: Option<Session>) -> Self {
        Self {
            session,
            ..Self::default()
        }
    }

    /// Whether nothing more should be added.
    pub(super) fn is_full(&self) -> bool {
        self.steps.len() >= MOST_KEYS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether so many more bytes can go with the rest.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.is_empty() || self.bytes + bytes <= MOST_BYTES
    }

    pub(super) fn add(&mut self, sent: Sent, txn: Txn, bytes: usize) {
        self.steps.push(sent);
        self.txns.push(txn);
        self.bytes += bytes;
    }

    /// Whether those who wait for it get their turn before the next, with which they may want other keys to go.
    /// Whoever was deposed would make use of it, too, and be back before us.
    pub(super) fn gathers(&self) -> bool {
        let deposes = |sent: &Sent| sent.step == Step::Evict;
        self.steps.len() > 1 && !self.steps.iter().any(deposes)
    }

    pub(super) fn puts(&self) -> bool {
        self.steps.iter().any(|sent| sent.step.puts())
    }

    /// The transaction to send: all steps or none, which a server takes in sooner than each for itself.
    pub(super) fn txn(&mut self) -> Txn {
        if let [txn] = &*self.txns {
            return txn.clone();
        }
        let compares: usize = self.txns.iter().map(|txn| txn.compares.len()).sum();
        self.apart |= compares > MOST_COMPARES;
        let mut all = Txn::new();
        for txn in &self.txns {
            if self.apart {
                all.success.push(Op::Txn(txn.clone()));
            } else {
                all.compares.extend_from_slice(&txn.compares);
                all.success.extend_from_slice(&txn.success);
            }
        }
        all
    }

    /// Whether none was taken, because something stood in the way of one. Then each is to be taken for itself.
    pub(super) fn was_refused(&mut self, answer: &TxnResult) -> bool {
        let was_refused = self.steps.len() > 1 && !self.apart && !answer.succeeded;
        self.apart |= was_refused;
        was_refused
    }

    /// The answer to each step, and the revision at which they were given.
    pub(super) fn answers(&self, answer: TxnResult) -> Result<(Revision, Vec<TxnResult>)> {
        let at = answer.header.revision;
        let answers = match self.steps.len() {
            1 => Some(vec![answer]),
            _ if self.apart => inner(answer),
            _ => self.parts(answer),
        };
        answers
            .filter(|answers| answers.len() == self.steps.len())
            .map(|answers| (at, answers))
            .ok_or_else(|| {
                let message = "the answer to a transaction has other parts than were asked for";
                Error::new(ErrorKind::Internal, message)
            })
    }

    /// The answers to steps that were all taken.
    fn parts(&self, answer: TxnResult) -> Option<Vec<TxnResult>> {
        let lengths = self.txns.iter().map(|txn| txn.success.len());
        let is_whole = answer.results.len() == lengths.clone().sum::<usize>();
        let mut results = answer.results.into_iter();
        let part = |length| TxnResult {
            header: answer.header,
            succeeded: true,
            results: results.by_ref().take(length).collect(),
        };
        is_whole.then(|| lengths.map(part).collect())
    }
}

/// The answers to steps that were each taken for itself.
fn inner(answer: TxnResult) -> Option<Vec<TxnResult>> {
    let inner = answer.results.into_iter().map(|result| match result {
        OpResult::Txn(inner) => Some(inner),
        _ => None,
    });
    inner.collect()
}

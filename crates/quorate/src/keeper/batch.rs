//! Many keys' steps in one transaction.

use std::sync::Arc;

use super::{Slot, entry::Step, slot::Goal};
use crate::{Error, ErrorKind, Op, OpResult, Result, Revision, Session, Txn, TxnResult};

/// How many keys go in one transaction: etcd takes 128 operations, less what is inside of them.
const MOST_KEYS: usize = 100;

/// How many bytes go in one transaction, unless a single key has more: etcd takes 1.5 MiB.
const MOST_BYTES: usize = 512 * 1024;

/// How many conditions go in one transaction.
const MOST_COMPARES: usize = 128;

/// How many bytes are sent twice, once for all steps at once and once for each for itself.
const MOST_TWICE: usize = 64 * 1024;

/// The steps of several keys, all at one revision.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Sent>,
    /// The session under whose lease keys are put.
    pub(super) session: Option<Session>,
    txns: Vec<Txn>,
    bytes: usize,
    /// How many operations each step has, if they were sent to be taken all at once.
    lengths: Vec<usize>,
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

    pub(super) fn puts(&self) -> bool {
        self.steps.iter().any(|sent| sent.step.puts())
    }

    /// The transaction to send: all steps at once if nothing stands in the way of any, and else each for
    /// itself, which takes a server longer.
    pub(super) fn take_txn(&mut self) -> Txn {
        let mut txns = std::mem::take(&mut self.txns);
        if txns.len() == 1 {
            return txns.remove(0);
        }
        let compares: usize = txns.iter().map(|txn| txn.compares.len()).sum();
        let mut all = Txn::new();
        if compares > MOST_COMPARES || self.bytes > MOST_TWICE {
            all.success = txns.into_iter().map(Op::Txn).collect();
            return all;
        }
        for txn in &txns {
            all.compares.extend_from_slice(&txn.compares);
            all.success.extend_from_slice(&txn.success);
            self.lengths.push(txn.success.len());
        }
        all.failure = txns.into_iter().map(Op::Txn).collect();
        all
    }

    /// The answer to each step, and the revision at which they were given.
    pub(super) fn answers(&self, answer: TxnResult) -> Result<(Revision, Vec<TxnResult>)> {
        let at = answer.header.revision;
        if self.steps.len() == 1 {
            return Ok((at, vec![answer]));
        }
        let answers = match answer.succeeded && !self.lengths.is_empty() {
            true => self.parts(answer),
            false => inner(answer),
        };
        answers
            .filter(|answers| answers.len() == self.steps.len())
            .map(|answers| (at, answers))
            .ok_or_else(|| {
                let message = "the answer to a transaction has other parts than were asked for";
                Error::new(ErrorKind::Internal, message)
            })
    }

    /// The answers to steps that were all taken at once.
    fn parts(&self, answer: TxnResult) -> Option<Vec<TxnResult>> {
        let expected = self.lengths.iter().sum::<usize>();
        let mut results = answer.results.into_iter();
        (results.len() == expected).then(|| {
            let lengths = self.lengths.iter();
            let part = |&length| TxnResult {
                header: answer.header,
                succeeded: true,
                results: results.by_ref().take(length).collect(),
            };
            lengths.map(part).collect()
        })
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

//! Many keys' steps in one transaction.

use std::sync::Arc;

use super::{Slot, entry::Step, slot::Goal};
use crate::{Error, ErrorKind, Op, OpResult, Result, Revision, Session, Txn, TxnResult};

/// How many keys go in one transaction: etcd takes 128 operations, less what is inside of them.
const MOST_KEYS: usize = 100;

/// How many bytes go in one transaction, unless a single key has more: etcd takes 1.5 MiB.
const MOST_BYTES: usize = 512 * 1024;

/// The steps of several keys, all at one revision.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Sent>,
    /// The session under whose lease keys are put.
    pub(super) session: Option<Session>,
    txns: Vec<Txn>,
    bytes: usize,
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

    /// The transaction to send.
    pub(super) fn take_txn(&mut self) -> Txn {
        let mut txns = std::mem::take(&mut self.txns);
        if txns.len() == 1 {
            return txns.remove(0);
        }
        Txn {
            success: txns.into_iter().map(Op::Txn).collect(),
            ..Txn::default()
        }
    }

    /// The answer to each step, and the revision at which they were given.
    pub(super) fn answers(&self, answer: TxnResult) -> Result<(Revision, Vec<TxnResult>)> {
        let at = answer.header.revision;
        if self.steps.len() == 1 {
            return Ok((at, vec![answer]));
        }
        let inner = answer.results.into_iter().map(|result| match result {
            OpResult::Txn(inner) => Some(inner),
            _ => None,
        });
        let answers: Option<Vec<_>> = inner.collect();
        answers
            .filter(|answers| answers.len() == self.steps.len())
            .map(|answers| (at, answers))
            .ok_or_else(|| {
                let message = "the answer to a transaction has other parts than were asked for";
                Error::new(ErrorKind::Internal, message)
            })
    }
}

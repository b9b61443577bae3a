//! What a keeper sends, and what it makes of the answer.

use std::sync::Arc;

use futures_core::future::BoxFuture;

use super::{
    batch::{Batch, Sent},
    entry::Entry,
    task::Task,
    watches::Watches,
};
use crate::{Error, ErrorKind, Key, Result, Session, TxnResult};

/// A batch on its way.
pub(super) struct Flight {
    pub(super) batch: Batch,
    pub(super) answer: BoxFuture<'static, Result<TxnResult>>,
}

impl Task {
    /// Sends what there is to send, unless something is on its way.
    pub(super) fn send(&mut self) {
        if self.flight.is_some() || self.paused_until.is_some() {
            return;
        }
        let session = self.tenure.held().filter(|session| !session.is_lost());
        let session = session.cloned();
        let lease = session.as_ref().map(Session::lease);
        let mut batch = Batch::new(session);
        while !batch.is_full()
            && let Some(path) = self.line.pop_front()
        {
            // A key that left and came back may be in line twice.
            let Some(entry) = self.entries.get_mut(&path).filter(|entry| entry.in_line) else {
                continue;
            };
            let Some((step, txn)) = entry.plan(lease) else {
                entry.in_line = false;
                continue;
            };
            let bytes = entry.bytes();
            if !batch.is_empty() && (entry.alone || !batch.has_room_for(bytes)) {
                self.line.push_front(path);
                break;
            }
            entry.in_line = false;
            entry.in_flight = true;
            let alone = entry.alone;
            let (slot, goal) = (Arc::clone(&entry.slot), entry.goal.clone());
            batch.add(Sent { slot, step, goal }, txn, bytes);
            if alone {
                break;
            }
        }
        if batch.is_empty() {
            return;
        }
        self.launch(batch);
    }

    fn launch(&mut self, mut batch: Batch) {
        let (link, txn) = (self.link.clone(), batch.txn());
        let answer = Box::pin(async move { link.txn(txn).await });
        self.flight = Some(Flight { batch, answer });
    }

    pub(super) fn answered(&mut self, answer: Result<TxnResult>) {
        let Some(Flight { mut batch, .. }) = self.flight.take() else {
            return;
        };
        let is_refused = answer
            .as_ref()
            .is_ok_and(|answer| batch.was_refused(answer));
        let is_lost = batch.session.as_ref().is_some_and(Session::is_lost);
        if is_refused && !is_lost {
            return self.launch(batch);
        }
        for sent in &batch.steps {
            if let Some(entry) = self.entries.get_mut(&sent.slot.path) {
                entry.in_flight = false;
            }
        }
        if is_refused {
            // Nothing was done, and under a session that is over nothing shall be.
            for sent in &batch.steps {
                self.review(&sent.slot.path);
            }
            return;
        }
        match answer.and_then(|answer| batch.answers(answer)) {
            Ok((at, answers)) => {
                self.backoff.reset();
                let lease = batch.session.as_ref().map(Session::lease);
                for (sent, answer) in batch.steps.iter().zip(&answers) {
                    if let Some(entry) = self.sender(sent)
                        && !entry.learn(sent.step, sent.goal.as_ref(), lease, at, answer)
                    {
                        self.pause();
                    }
                    self.report(&sent.slot.path);
                    self.review(&sent.slot.path);
                }
            }
            Err(error) => self.failed(batch, &error),
        }
    }

    fn failed(&mut self, batch: Batch, error: &Error) {
        tracing::debug!(%error, keys = batch.steps.len(), "ephemeral keys not written");
        let changed = error.kind() == ErrorKind::ClusterChanged;
        if changed {
            self.start_over();
        }
        let lease = batch.session.as_ref().map(Session::lease);
        let is_unclear = error.is_indefinite() || changed || error.kind() == ErrorKind::Internal;
        if is_unclear {
            for sent in &batch.steps {
                if let Some(entry) = self.sender(sent) {
                    entry.doubt(sent.step, lease);
                }
            }
        }
        let is_lease_gone = error.kind() == ErrorKind::NotFound && batch.puts();
        if is_lease_gone && let Some(session) = &batch.session {
            session.revoked();
            // The store answers: whatever had kept it from that must not keep the keys away for longer.
            self.backoff.reset();
        }
        if is_lease_gone || is_unclear || error.is_retryable() {
            self.pause();
        } else if let [sent] = &*batch.steps {
            self.guilty(sent, error);
            return;
        }
        // A lease that is gone is no fault of the key's: another session makes the key again.
        let told_error = if is_lease_gone {
            Error::new(ErrorKind::Unavailable, error.to_string())
        } else {
            error.clone()
        };
        // One key's fault must not keep the others: from now on each goes alone until it is written.
        let alone = !is_lease_gone && !error.is_retryable() && !changed;
        for sent in &batch.steps {
            if let Some(entry) = self.sender(sent) {
                entry.alone |= alone;
                entry
                    .slot
                    .tell(|told| told.error = Some(told_error.clone()));
            }
            self.review(&sent.slot.path);
        }
    }

    /// A key's step was refused on its own account.
    fn guilty(&mut self, sent: &Sent, error: &Error) {
        let path = &sent.slot.path;
        let Some(entry) = self.sender(sent) else {
            return self.review(path);
        };
        entry.alone = true;
        let Some(goal) = &sent.goal else {
            // The owner learns of it. It is not let stand for as long as the session lives.
            self.finish(path, Err(error.clone()));
            return self.retry_later(path.clone());
        };
        if entry.goal.is_none() {
            return self.review(path);
        }
        let error = if entry.in_doubt {
            error.clone().indefinite()
        } else {
            error.clone()
        };
        match entry.kept.clone() {
            None => self.refuse(path, &error),
            Some(kept) if goal.number > kept.number => {
                // The owner learns of it, and the key keeps the value that it had.
                entry.slot.revert(goal.number, &kept);
                entry.goal = entry.slot.goal();
                entry
                    .slot
                    .tell(|told| told.refused = Some((goal.number, error)));
                self.review(path);
            }
            Some(_) => {
                entry.slot.tell(|told| told.error = Some(error));
                self.retry_later(path.clone());
            }
        }
    }

    /// The entry that took a step, unless its owner has left it since: what comes of the step is not
    /// the next owner's.
    fn sender(&mut self, sent: &Sent) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&sent.slot.path)?;
        Arc::ptr_eq(&entry.slot, &sent.slot).then_some(entry)
    }

    fn report(&mut self, path: &Key) {
        if let Some(entry) = self.entries.get(path) {
            entry.report(self.tenure.held());
        }
    }

    /// Nothing that was known of the store holds any more: it is another one.
    pub(super) fn start_over(&mut self) {
        self.watches = Watches::new(self.link.clone());
        for (path, entry) in &mut self.entries {
            self.watches.add(path);
            entry.start_over();
        }
        self.review_all();
    }
}

//! Brings answers into a form in which both stores must agree to the letter.

use std::cmp::Ordering;

use quorate::{
    Error, Header, KeyValue, LeaseStatus, Op, OpResult, Order, Range, RangeResult, Result,
    Revision, SortBy, Txn, TxnResult, Value, backend::Beat,
};

/// Above this many keys etcd's sort is not stable.
const STABLE: i64 = 12;

/// What can be compared of an answer.
pub trait Comparable {
    fn clean(&mut self);
}

/// The answer in words, without what may differ.
pub fn words<T: Comparable + std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Ok(mut answer) => {
            answer.clean();
            format!("{answer:?}")
        }
        Err(error) => refusal(&error),
    }
}

pub fn refusal(error: &Error) -> String {
    let (indefinite, oldest) = (error.is_indefinite(), error.oldest_revision());
    format!(
        "{:?}: {error}, indefinite {indefinite}, oldest {oldest:?}",
        error.kind()
    )
}

impl Comparable for Header {
    fn clean(&mut self) {
        *self = Self {
            revision: self.revision,
            ..Self::default()
        };
    }
}

impl Comparable for Beat {
    fn clean(&mut self) {
        self.header.clean();
    }
}

impl Comparable for LeaseStatus {
    fn clean(&mut self) {
        self.header.clean();
        self.keys.sort();
        self.remaining = self.remaining.map(|_| self.granted);
    }
}

impl Comparable for RangeResult {
    fn clean(&mut self) {
        self.header.clean();
    }
}

impl Comparable for TxnResult {
    fn clean(&mut self) {
        self.header.clean();
        for result in &mut self.results {
            match result {
                OpResult::Range(range) => range.clean(),
                OpResult::Txn(txn) => txn.clean(),
                OpResult::Delete { .. } | OpResult::Put { .. } => {}
            }
        }
    }
}

/// Takes out what etcd's sort leaves open.
pub fn loosen(range: &Range, found: &mut RangeResult) {
    let Some((sort, order)) = range.order else {
        return;
    };
    if sort == SortBy::Key || found.count <= STABLE {
        return;
    }
    if sort == SortBy::Value && range.keys_only {
        // What was sorted by cannot be seen.
        if found.more {
            found.kvs.clear();
        }
        found.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        return;
    }
    let by = |a: &KeyValue, b: &KeyValue| sorted_by(sort, a).cmp(&sorted_by(sort, b));
    let sorted = found.kvs.is_sorted_by(|a, b| match order {
        Order::Ascending | Order::Unstated => by(a, b) != Ordering::Greater,
        Order::Descending => by(a, b) != Ordering::Less,
    });
    assert!(sorted, "{range:?} is not sorted: {found:?}");
    found
        .kvs
        .sort_by(|a, b| by(a, b).then_with(|| a.key.cmp(&b.key)));
    let cut = match order {
        Order::Ascending | Order::Unstated => found.kvs.last().cloned(),
        Order::Descending => found.kvs.first().cloned(),
    };
    if found.more
        && let Some(cut) = cut
    {
        // Of those that equal the last one, any may have been returned.
        for kv in found
            .kvs
            .iter_mut()
            .filter(|kv| by(kv, &cut) == Ordering::Equal)
        {
            *kv = KeyValue {
                key: "any".into(),
                value: format!("{:?}", sorted_by(sort, kv)).into(),
                create_revision: Revision::ZERO,
                mod_revision: Revision::ZERO,
                version: 0,
                lease: None,
            };
        }
    }
}

/// The same for the reads of a transaction.
pub fn loosen_txn(txn: &Txn, done: &mut TxnResult) {
    let ops = if done.succeeded {
        &txn.success
    } else {
        &txn.failure
    };
    for (op, result) in ops.iter().zip(&mut done.results) {
        match (op, result) {
            (Op::Range(range), OpResult::Range(found)) => loosen(range, found),
            (Op::Txn(txn), OpResult::Txn(done)) => loosen_txn(txn, done),
            _ => {}
        }
    }
}

fn sorted_by(by: SortBy, kv: &KeyValue) -> (i64, Value) {
    match by {
        SortBy::CreateRevision => (kv.create_revision.0, Value::default()),
        SortBy::Key => (0, kv.key.to_vec().into()),
        SortBy::ModRevision => (kv.mod_revision.0, Value::default()),
        SortBy::Value => (0, kv.value.clone()),
        SortBy::Version => (kv.version, Value::default()),
    }
}

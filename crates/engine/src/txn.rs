//! Transactions: what is refused, what is decided, what is done.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
};

use crate::{
    Compare, CompareOp, CompareTarget, Delete, Error, Header, Key, KeyRange, KeyValue, LeaseId,
    MAX_OPS, Op, OpResult, Put, Range, RangeEnd, Revision, Store, Txn, TxnResult, log::Change,
    store::compacted,
};

/// How many bytes of keys and values a transaction that writes may carry. A real etcd counts the
/// encoding of the request too.
const MAX_REQUEST_BYTES: usize = 3 * 512 * 1024;

impl Store {
    /// Applies a transaction. A refused one changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyOps`], [`Error::EmptyKey`], [`Error::ValueProvided`],
    /// [`Error::LeaseProvided`], [`Error::DuplicateKey`] or [`Error::RequestTooLarge`] by the look
    /// of the request; [`Error::KeyNotFound`], [`Error::LeaseNotFound`], [`Error::FutureRevision`]
    /// or [`Error::Compacted`] by what the chosen operations meet.
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnResult, Error> {
        txn.check()?;
        if is_write(txn) && size(txn) > MAX_REQUEST_BYTES {
            return Err(Error::RequestTooLarge);
        }
        let plan = self.decide(txn);
        self.check_puts(&plan, &mut Vec::new())?;
        self.check_ranges(&plan)?;

        let mut changes = Vec::new();
        let done = self.apply(&plan, &mut changes);
        self.commit(changes);
        Ok(TxnResult {
            header: self.header(),
            ..done
        })
    }

    /// Evaluates all conditions, those of inner transactions too, against the store as it is.
    fn decide<'a>(&self, txn: &'a Txn) -> Plan<'a> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let steps = ops.iter().map(|op| match op {
            Op::Delete(delete) => Step::Delete(delete),
            Op::Put(put) => Step::Put(put),
            Op::Range(range) => Step::Range(range),
            Op::Txn(inner) => Step::Txn(self.decide(inner)),
        });
        Plan {
            succeeded,
            steps: steps.collect(),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut found = self.index.range(&compare.keys, self.revision).peekable();
        if found.peek().is_none() {
            return holds_for(compare, None);
        }
        found.all(|kv| holds_for(compare, Some(kv)))
    }

    /// Refuses puts that cannot be done. `deleted` is what the operations before them delete.
    fn check_puts<'a>(
        &self,
        plan: &Plan<'a>,
        deleted: &mut Vec<&'a KeyRange>,
    ) -> Result<(), Error> {
        for step in &plan.steps {
            match step {
                Step::Delete(delete) => deleted.push(&delete.keys),
                Step::Put(put) => {
                    if (put.ignore_value || put.ignore_lease)
                        && (self.index.get(&put.key, self.revision).is_none()
                            || deleted.iter().any(|keys| keys.contains(&put.key)))
                    {
                        return Err(Error::KeyNotFound);
                    }
                    if lease_of(put).is_some_and(|id| !self.leases.contains(id)) {
                        return Err(Error::LeaseNotFound);
                    }
                }
                Step::Range(_) => {}
                Step::Txn(inner) => self.check_puts(inner, deleted)?,
            }
        }
        Ok(())
    }

    /// Refuses reads at revisions that are yet to come, that of this transaction included, or gone.
    fn check_ranges(&self, plan: &Plan<'_>) -> Result<(), Error> {
        for step in &plan.steps {
            match step {
                Step::Range(range) if range.revision == Revision::ZERO => {}
                Step::Range(range) if range.revision > self.revision => {
                    return Err(Error::FutureRevision);
                }
                Step::Range(range) if range.revision < self.compacted => {
                    return Err(compacted());
                }
                Step::Delete(_) | Step::Put(_) | Step::Range(_) => {}
                Step::Txn(inner) => self.check_ranges(inner)?,
            }
        }
        Ok(())
    }

    /// Does what was decided and checked. What it writes carries the next revision.
    fn apply(&mut self, plan: &Plan<'_>, changes: &mut Vec<Change>) -> TxnResult {
        let results = plan.steps.iter().map(|step| match step {
            Step::Delete(delete) => self.apply_delete(delete, changes),
            Step::Put(put) => self.apply_put(put, changes),
            Step::Range(range) if changes.is_empty() => {
                OpResult::Range(self.read(range, self.revision))
            }
            Step::Range(range) => OpResult::Range(self.read(range, self.revision.next())),
            Step::Txn(inner) => OpResult::Txn(self.apply(inner, changes)),
        });
        TxnResult {
            results: results.collect(),
            succeeded: plan.succeeded,
            header: Header::default(),
        }
    }

    fn apply_put(&mut self, put: &Put, changes: &mut Vec<Change>) -> OpResult {
        let revision = self.revision.next();
        let prev = self.index.get(&put.key, revision).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: match &prev {
                Some(prev) if put.ignore_value => prev.value.clone(),
                _ => put.value.clone(),
            },
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: match &prev {
                Some(prev) if put.ignore_lease => prev.lease,
                _ => lease_of(put),
            },
        };
        if let Some(id) = prev.as_ref().and_then(|prev| prev.lease) {
            self.leases.detach(id, &put.key);
        }
        if let Some(id) = kv.lease {
            self.leases.attach(id, put.key.clone());
        }
        self.write(put.key.clone(), Some(kv), changes);
        OpResult::Put {
            prev: prev.filter(|_| put.prev_kv),
        }
    }

    fn apply_delete(&mut self, delete: &Delete, changes: &mut Vec<Change>) -> OpResult {
        let revision = self.revision.next();
        let prevs: Vec<KeyValue> = self.index.range(&delete.keys, revision).cloned().collect();
        for prev in &prevs {
            if let Some(id) = prev.lease {
                self.leases.detach(id, &prev.key);
            }
            self.write(prev.key.clone(), None, changes);
        }
        OpResult::Delete {
            deleted: prevs.len() as i64,
            prevs: if delete.prev_kv { prevs } else { Vec::new() },
        }
    }
}

impl Txn {
    /// Tells whether a store refuses it by its look alone, whatever the store holds.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyOps`], [`Error::EmptyKey`], [`Error::ValueProvided`],
    /// [`Error::LeaseProvided`] or [`Error::DuplicateKey`].
    pub fn check(&self) -> Result<(), Error> {
        check_shape(self, MAX_OPS)?;
        check_overlaps(&self.success)?;
        check_overlaps(&self.failure)?;
        Ok(())
    }
}

/// A transaction whose conditions are decided.
struct Plan<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Delete(&'a Delete),
    Put(&'a Put),
    Range(&'a Range),
    Txn(Plan<'a>),
}

/// Lease zero is etcd's word for none.
fn lease_of(put: &Put) -> Option<LeaseId> {
    put.lease.filter(|id| id.0 != 0)
}

fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let revision = |of: fn(&KeyValue) -> Revision| kv.map_or(Revision::ZERO, of);
    let ordering = match &compare.target {
        CompareTarget::CreateRevision(target) => revision(|kv| kv.create_revision).cmp(target),
        CompareTarget::Lease(target) => {
            let lease = kv.and_then(|kv| kv.lease);
            LeaseId::to_wire(lease).cmp(&LeaseId::to_wire(*target))
        }
        CompareTarget::ModRevision(target) => revision(|kv| kv.mod_revision).cmp(target),
        // A missing value is no empty one: it compares with nothing.
        CompareTarget::Value(target) => match kv {
            Some(kv) => kv.value.cmp(target),
            None => return false,
        },
        CompareTarget::Version(target) => kv.map_or(0, |kv| kv.version).cmp(target),
    };
    match compare.op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::Less => ordering == Ordering::Less,
        CompareOp::NotEqual => ordering != Ordering::Equal,
    }
}

/// Checks both branches, taken or not. An inner transaction may hold as many operations as the
/// longest list of the outer one leaves.
fn check_shape(txn: &Txn, limit: usize) -> Result<(), Error> {
    let longest = txn
        .compares
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    let Some(left) = limit.checked_sub(longest) else {
        return Err(Error::TooManyOps);
    };
    let named = |key: &Key| {
        if key.is_empty() {
            Err(Error::EmptyKey)
        } else {
            Ok(())
        }
    };
    for compare in &txn.compares {
        named(&compare.keys.start)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Delete(delete) => named(&delete.keys.start)?,
            Op::Put(put) => {
                named(&put.key)?;
                if put.ignore_value && !put.value.is_empty() {
                    return Err(Error::ValueProvided);
                }
                if put.ignore_lease && lease_of(put).is_some() {
                    return Err(Error::LeaseProvided);
                }
            }
            Op::Range(range) => named(&range.keys.start)?,
            Op::Txn(inner) => check_shape(inner, left)?,
        }
    }
    Ok(())
}

/// Refuses a branch that puts a key twice, or puts and deletes it, and returns what it puts and
/// deletes.
///
/// The rules are etcd's, with their holes: a deletion without an end is overlooked, and so is one in
/// an inner transaction after another inner transaction that puts the key.
fn check_overlaps(ops: &[Op]) -> Result<(HashSet<&Key>, Deleted<'_>), Error> {
    let mut deleted = Deleted::default();
    for op in ops {
        if let Op::Delete(delete) = op {
            deleted.insert(&delete.keys);
        }
    }
    let mut puts = HashSet::new();
    for op in ops {
        let Op::Txn(inner) = op else { continue };
        let (then_puts, then_deleted) = check_overlaps(&inner.success)?;
        let (else_puts, else_deleted) = check_overlaps(&inner.failure)?;
        // A key may be put in both branches, since only one of them is taken.
        let both: HashSet<&Key> = then_puts.union(&else_puts).copied().collect();
        for key in both {
            if deleted.contains(key) || !puts.insert(key) {
                return Err(Error::DuplicateKey);
            }
        }
        deleted.extend(then_deleted);
        deleted.extend(else_deleted);
    }
    for op in ops {
        if let Op::Put(put) = op
            && (deleted.contains(&put.key) || !puts.insert(&put.key))
        {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((puts, deleted))
}

/// A set of keys and ranges that are deleted.
#[derive(Default)]
struct Deleted<'a> {
    keys: HashSet<&'a Key>,
    /// First key to end; apart from each other.
    ranges: BTreeMap<&'a Key, &'a Key>,
}

impl<'a> Deleted<'a> {
    fn insert(&mut self, keys: &'a KeyRange) {
        match &keys.end {
            RangeEnd::Single => {
                self.keys.insert(&keys.start);
            }
            RangeEnd::Before(end) if keys.start < *end => self.insert_range(&keys.start, end),
            RangeEnd::Before(_) | RangeEnd::Unbounded => {}
        }
    }

    /// Joins the range with those that it overlaps or touches.
    fn insert_range(&mut self, mut start: &'a Key, mut end: &'a Key) {
        while let Some((&other_start, &other_end)) = self.ranges.range::<Key, _>(..=end).next_back()
            && other_end >= start
        {
            self.ranges.remove(other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }

    fn contains(&self, key: &Key) -> bool {
        let covers = |(_, end): (&&Key, &&'a Key)| key < *end;
        self.keys.contains(key)
            || self
                .ranges
                .range::<Key, _>(..=key)
                .next_back()
                .is_some_and(covers)
    }
}

/// Whether etcd takes the transaction for a write: anything but plain reads.
fn is_write(txn: &Txn) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| !matches!(op, Op::Range(_)))
}

/// The bytes of all keys and values in a transaction.
fn size(txn: &Txn) -> usize {
    let compares = txn.compares.iter().map(|compare| {
        let target = match &compare.target {
            CompareTarget::Value(value) => value.len(),
            _ => 0,
        };
        range_size(&compare.keys) + target
    });
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Delete(delete) => range_size(&delete.keys),
        Op::Put(put) => put.key.len() + put.value.len(),
        Op::Range(range) => range_size(&range.keys),
        Op::Txn(inner) => size(inner),
    });
    compares.chain(ops).sum()
}

fn range_size(keys: &KeyRange) -> usize {
    let end = match &keys.end {
        RangeEnd::Before(end) => end.len(),
        RangeEnd::Single | RangeEnd::Unbounded => 0,
    };
    keys.start.len() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Op {
        Op::put(key, "v")
    }

    fn all_of(ops: impl IntoIterator<Item = Op>) -> Txn {
        ops.into_iter().fold(Txn::new(), Txn::then)
    }

    fn refusal(txn: &Txn) -> Option<Error> {
        Store::new(1, 1).txn(txn).err()
    }

    #[test]
    fn a_list_holds_128_entries_less_those_around_it() {
        let puts = |count| (0..count).map(|n| put(&n.to_string()));
        assert_eq!(refusal(&all_of(puts(128))), None);
        assert_eq!(refusal(&all_of(puts(129))), Some(Error::TooManyOps));
        assert_eq!(refusal(&all_of([all_of(puts(127)).into()])), None);
        assert_eq!(
            refusal(&all_of([all_of(puts(128)).into()])),
            Some(Error::TooManyOps)
        );
    }

    #[test]
    fn a_key_is_put_once_and_not_deleted_beside() {
        let duplicate = Some(Error::DuplicateKey);
        assert_eq!(refusal(&all_of([put("a"), put("a")])), duplicate);
        assert_eq!(refusal(&all_of([put("a"), Op::delete("a")])), duplicate);
        assert_eq!(
            refusal(&all_of([put("ab"), Op::delete(KeyRange::prefix("a"))])),
            duplicate
        );
        assert_eq!(
            refusal(&all_of([put("b"), Op::delete(KeyRange::prefix("a"))])),
            None
        );
        let overlapping = [Op::delete(KeyRange::prefix("a")), Op::delete("ab")];
        assert_eq!(refusal(&all_of(overlapping)), None);
        let overlapping = [
            Op::delete(KeyRange::between("a", "c")),
            Op::delete(KeyRange::between("b", "e")),
            put("d"),
        ];
        assert_eq!(refusal(&all_of(overlapping)), duplicate);
    }

    #[test]
    fn both_branches_of_an_inner_transaction_may_put_a_key() {
        let inner = Txn::new().then(put("a")).or_else(put("a"));
        assert_eq!(refusal(&all_of([inner.clone().into()])), None);
        let twice = all_of([inner.clone().into(), inner.clone().into()]);
        assert_eq!(refusal(&twice), Some(Error::DuplicateKey));
        assert_eq!(
            refusal(&all_of([inner.into(), put("a")])),
            Some(Error::DuplicateKey)
        );
    }

    #[test]
    fn the_holes_of_the_duplicate_check_are_those_of_etcd() {
        let without_end = [Op::delete(KeyRange::from("a")), put("b")];
        assert_eq!(refusal(&all_of(without_end)), None);
        let puts = || Op::from(all_of([put("a")]));
        let deletes = || Op::from(all_of([Op::delete("a")]));
        assert_eq!(refusal(&all_of([puts(), deletes()])), None);
        assert_eq!(
            refusal(&all_of([deletes(), puts()])),
            Some(Error::DuplicateKey)
        );
    }

    #[test]
    fn keeping_the_value_of_a_key_deleted_before_is_refused() {
        let mut store = Store::new(1, 1);
        store.txn(&all_of([put("b")])).expect("a plain put");
        let keep = Put::new("b", "").ignore_value();
        let txn = all_of([Op::delete(KeyRange::from("a")), keep.into()]);
        assert_eq!(store.txn(&txn), Err(Error::KeyNotFound));
        assert_eq!(store.header().revision, Revision(2));
    }

    #[test]
    fn a_refused_transaction_changes_nothing() {
        let mut store = Store::new(1, 1);
        let unleased = Put::new("b", "v").lease(LeaseId(9));
        let txn = all_of([put("a"), unleased.into()]);
        assert_eq!(store.txn(&txn), Err(Error::LeaseNotFound));
        assert_eq!(
            store.range(&Range::new("a")).map(|found| found.count),
            Ok(0)
        );
    }

    #[test]
    fn a_transaction_that_writes_nothing_makes_no_revision() {
        let mut store = Store::new(1, 1);
        let done = store
            .txn(&all_of([Op::delete("a"), Op::range("a")]))
            .expect("plain");
        assert_eq!(done.header.revision, Revision(1));
    }

    #[test]
    fn a_read_sees_the_writes_before_it() {
        let mut store = Store::new(1, 1);
        let txn = all_of([Op::range("a"), put("a"), Op::range("a")]);
        let done = store.txn(&txn).expect("plain");
        let counts: Vec<_> = done
            .results
            .iter()
            .filter_map(|result| match result {
                OpResult::Range(found) => Some((found.header.revision, found.count)),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [(Revision(1), 0), (Revision(2), 1)]);
    }

    #[test]
    fn inner_conditions_see_the_store_as_it_was() {
        let mut store = Store::new(1, 1);
        let inner = Txn::new().when(Compare::absent("a")).then(put("b"));
        store.txn(&all_of([put("a"), inner.into()])).expect("plain");
        assert_eq!(
            store.range(&Range::new("b")).map(|found| found.count),
            Ok(1)
        );
    }

    #[test]
    fn a_missing_key_compares_as_zero_but_its_value_with_nothing() {
        let store = Store::new(1, 1);
        assert!(store.holds(&Compare::version("a").eq(0)));
        assert!(store.holds(&Compare::lease("a").eq(None)));
        assert!(store.holds(&Compare::create_revision(KeyRange::all()).lt(Revision(1))));
        assert!(!store.holds(&Compare::value("a").eq("")));
        assert!(!store.holds(&Compare::value("a").ne("")));
    }

    #[test]
    fn a_deleted_key_is_made_anew() {
        let mut store = Store::new(1, 1);
        for op in [put("a"), put("a"), Op::delete("a"), put("a")] {
            store.txn(&all_of([op])).expect("plain");
        }
        let found = store.range(&Range::new("a")).expect("plain");
        let kv = &found.kvs[0];
        assert_eq!(
            (kv.create_revision, kv.mod_revision, kv.version),
            (Revision(5), Revision(5), 1)
        );
    }

    #[test]
    fn only_writes_are_bounded_in_size() {
        let large = vec![b'v'; MAX_REQUEST_BYTES];
        let compare = Compare::value("a").eq(large);
        assert_eq!(refusal(&Txn::new().when(compare.clone())), None);
        let write = Txn::new().when(compare).then(put("a"));
        assert_eq!(refusal(&write), Some(Error::RequestTooLarge));
    }
}

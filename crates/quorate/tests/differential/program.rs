//! Makes random programs, step by step.

use std::{collections::BTreeSet, time::Duration};

use fastrand::Rng;
use quorate::{
    Compare, CompareOp, CompareTarget, Delete, Key, KeyRange, LeaseId, Op, Order, Put, Range,
    RangeEnd, Revision, SortBy, Txn, Value, WatchRequest,
};

/// One step of a program.
#[derive(Clone, Debug)]
pub enum Step {
    Beat(LeaseId),
    Compact(Revision, bool),
    DropWatch,
    Grant(LeaseId, Duration),
    LeaseStatus(LeaseId, bool),
    Leases,
    Range(Range),
    Revoke(LeaseId),
    /// Lets every watch tell all that it has to tell.
    Settle,
    Txn(Txn),
    Watch(WatchRequest),
}

/// What a program is made from.
pub struct Maker {
    rng: Rng,
    /// Whether watches may begin where etcd 3.4 and 3.5 differ.
    is_35: bool,
    /// How far the store is.
    pub revision: Revision,
    pub compacted: Revision,
    /// How many watches are open.
    pub watches: usize,
    /// The revisions at which a key changed twice.
    pub doubled: BTreeSet<Revision>,
    /// The revisions that deleted something.
    pub deleting: BTreeSet<Revision>,
}

/// How many keys there are; each is one, two or three bytes long.
const KEYS: usize = 30;

const LEASES: i64 = 6;

const MAX_WATCHES: usize = 8;

impl Maker {
    pub fn new(seed: u64, is_35: bool) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            is_35,
            revision: Revision(1),
            compacted: Revision::ZERO,
            watches: 0,
            doubled: BTreeSet::new(),
            deleting: BTreeSet::new(),
        }
    }

    pub fn step(&mut self) -> Step {
        match self.rng.u32(..1000) {
            0..200 => Step::Range(self.range()),
            200..400 => Step::Txn(Txn::new().then(self.put())),
            400..460 => Step::Txn(Txn::new().then(self.delete())),
            460..780 => Step::Txn(self.txn()),
            780..820 => Step::Grant(self.lease(), self.ttl()),
            820..845 => Step::Revoke(self.lease()),
            845..885 => Step::LeaseStatus(self.lease(), self.rng.bool()),
            885..895 => Step::Leases,
            895..915 => Step::Beat(self.lease()),
            915..935 => self.compact(),
            935..965 if self.watches < MAX_WATCHES => Step::Watch(self.watch()),
            935..965 => Step::DropWatch,
            _ => Step::Settle,
        }
    }

    pub fn one_in(&mut self, chances: u32) -> bool {
        self.rng.u32(..chances) == 0
    }

    /// A key of a small set, with neighbours, prefixes and odd bytes in it.
    fn key(&mut self) -> Key {
        const BYTES: &[u8] = b"\0\x01abc\xfe\xff";
        let number = self.rng.usize(..KEYS);
        let mut key = vec![BYTES[number % BYTES.len()]];
        let mut rest = number / BYTES.len();
        while rest > 0 {
            key.push(BYTES[rest % BYTES.len()]);
            rest /= 2;
        }
        key.into()
    }

    /// A key, now and then none at all.
    fn any_key(&mut self) -> Key {
        if self.one_in(150) {
            Key::default()
        } else {
            self.key()
        }
    }

    fn keys(&mut self) -> KeyRange {
        match self.rng.u32(..20) {
            0..9 => KeyRange::key(self.any_key()),
            9..12 => KeyRange::prefix(self.key()),
            12..14 => KeyRange::from(self.key()),
            14 => KeyRange::all(),
            // Also the wrong way round.
            15 => KeyRange::between(self.any_key(), self.any_key()),
            _ => {
                let (one, other) = (self.key(), self.key());
                KeyRange::between(one.clone().min(other.clone()), one.max(other))
            }
        }
    }

    fn value(&mut self) -> Value {
        let length = self.rng.usize(..3);
        let value: Vec<u8> = (0..length).map(|_| self.rng.u8(b'a'..=b'c')).collect();
        value.into()
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId(self.rng.i64(1..=LEASES))
    }

    fn ttl(&mut self) -> Duration {
        if self.one_in(20) {
            return Duration::from_secs(9_000_000_001);
        }
        Duration::from_millis(self.rng.u64(600_000..10_000_000))
    }

    /// A revision for a read: mostly one that is kept.
    fn past(&mut self) -> Revision {
        match self.rng.u32(..20) {
            0..8 => Revision::ZERO,
            8 => Revision(self.revision.0 + self.rng.i64(0..4)),
            9 => Revision(self.compacted.0 + self.rng.i64(-2..3)),
            10 => Revision(self.rng.i64(-2..=0)),
            _ => self.kept(),
        }
    }

    fn kept(&mut self) -> Revision {
        let oldest = self.compacted.0.max(1);
        // Mostly not long ago.
        let oldest = if self.one_in(4) {
            oldest
        } else {
            oldest.max(self.revision.0 - 50)
        };
        Revision(self.rng.i64(oldest..=self.revision.0.max(oldest)))
    }

    fn range(&mut self) -> Range {
        let mut range = Range::new(self.keys()).revision(self.past());
        if self.one_in(2) {
            range = range.limit(self.rng.i64(-1..8));
        }
        if self.one_in(2) {
            let by = [
                SortBy::CreateRevision,
                SortBy::Key,
                SortBy::ModRevision,
                SortBy::Value,
                SortBy::Version,
            ];
            let orders = [Order::Ascending, Order::Descending, Order::Unstated];
            let order = orders[self.rng.usize(..orders.len())];
            range = range.order(by[self.rng.usize(..by.len())], order);
        }
        if self.one_in(4) {
            range = range.serializable();
        }
        if self.one_in(6) {
            range = range.keys_only();
        }
        if self.one_in(8) {
            range = range.count_only();
        }
        if self.one_in(6) {
            range = range.min_mod_revision(self.kept());
        }
        if self.one_in(6) {
            range = range.max_mod_revision(self.kept());
        }
        if self.one_in(6) {
            range = range.min_create_revision(self.kept());
        }
        if self.one_in(6) {
            range = range.max_create_revision(self.kept());
        }
        range
    }

    fn put(&mut self) -> Put {
        let mut put = Put::new(self.any_key(), self.value());
        put.prev_kv = self.one_in(3);
        if self.one_in(4) {
            put.lease = Some(self.lease());
        }
        if self.one_in(10) {
            put.ignore_lease = true;
            if !self.one_in(10) {
                put.lease = None;
            }
        }
        if self.one_in(10) {
            put.ignore_value = true;
            if !self.one_in(10) {
                put.value = Value::default();
            }
        }
        put
    }

    fn delete(&mut self) -> Delete {
        let mut keys = self.keys();
        // Most would empty the store.
        if keys.end == RangeEnd::Unbounded && !self.one_in(6) {
            keys.end = RangeEnd::Single;
        }
        let mut delete = Delete::new(keys);
        delete.prev_kv = self.one_in(2);
        delete
    }

    fn compare(&mut self) -> Compare {
        let target = match self.rng.u32(..5) {
            0 => CompareTarget::CreateRevision(self.revision_or_zero()),
            1 => CompareTarget::ModRevision(self.revision_or_zero()),
            2 => CompareTarget::Version(self.rng.i64(-1..6)),
            3 => CompareTarget::Value(self.value()),
            _ if self.one_in(2) => CompareTarget::Lease(None),
            _ => CompareTarget::Lease(Some(self.lease())),
        };
        let ops = [
            CompareOp::Equal,
            CompareOp::Greater,
            CompareOp::Less,
            CompareOp::NotEqual,
        ];
        Compare {
            keys: self.keys(),
            op: ops[self.rng.usize(..ops.len())],
            target,
        }
    }

    fn revision_or_zero(&mut self) -> Revision {
        if self.one_in(2) {
            Revision::ZERO
        } else {
            self.kept()
        }
    }

    fn txn(&mut self) -> Txn {
        if self.one_in(150) {
            let count = self.rng.usize(120..132);
            let reads = (0..count).map(|_| Op::Range(Range::new(self.key())));
            return Txn {
                success: reads.collect(),
                ..Txn::new()
            };
        }
        let mut txn = self.txn_of_depth(0);
        if deletes_to_the_end(&txn) {
            keep_nothing(&mut txn);
        }
        txn
    }

    fn txn_of_depth(&mut self, depth: usize) -> Txn {
        let compares = self.rng.usize(..3);
        let (success, failure) = (self.rng.usize(..5), self.rng.usize(..4));
        Txn {
            compares: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(depth)).collect(),
            failure: (0..failure).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: usize) -> Op {
        match self.rng.u32(..10) {
            0..3 => Op::Range(self.range_within()),
            3..6 => Op::Put(self.put()),
            6..8 => Op::Delete(self.delete()),
            _ if depth < 3 => Op::Txn(self.txn_of_depth(depth + 1)),
            _ => Op::Put(self.put()),
        }
    }

    /// Rarely one that must be refused, since that refuses the whole transaction.
    fn range_within(&mut self) -> Range {
        let mut range = self.range();
        if !self.one_in(10) && range.revision != Revision::ZERO {
            range.revision = self.kept();
        }
        range
    }

    fn compact(&mut self) -> Step {
        let revision = match self.rng.u32(..10) {
            0 => Revision(self.revision.0 + self.rng.i64(0..3)),
            1 => Revision(self.compacted.0 - self.rng.i64(0..3)),
            2 => self.revision,
            _ => self.kept(),
        };
        if self.doubled.contains(&revision) {
            return Step::Settle;
        }
        Step::Compact(revision, self.rng.bool())
    }

    fn watch(&mut self) -> WatchRequest {
        let mut request = WatchRequest::new(self.keys());
        request.prev_kv = self.rng.bool();
        match self.rng.u32(..10) {
            0 => request.no_put = true,
            1 => request.no_delete = true,
            2 if self.one_in(4) => (request.no_put, request.no_delete) = (true, true),
            _ => {}
        }
        request.start = match self.rng.u32(..10) {
            0..3 => Revision::ZERO,
            3 => Revision(self.revision.0 + self.rng.i64(0..30)),
            4..6 => Revision(self.compacted.0 + self.rng.i64(-2..2)),
            _ => self.kept(),
        };
        let differs = request.start < Revision::ZERO
            || request.start == self.compacted && self.deleting.contains(&request.start);
        if differs && !self.is_35 {
            request.start = self.compacted.next();
        }
        request
    }
}

fn ops(txn: &mut Txn) -> impl Iterator<Item = &mut Op> {
    txn.success.iter_mut().chain(&mut txn.failure)
}

fn deletes_to_the_end(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Delete(delete) => delete.keys.end == RangeEnd::Unbounded,
        Op::Txn(inner) => deletes_to_the_end(inner),
        Op::Put(_) | Op::Range(_) => false,
    })
}

fn keep_nothing(txn: &mut Txn) {
    for op in ops(txn) {
        match op {
            Op::Put(put) => (put.ignore_value, put.ignore_lease) = (false, false),
            Op::Txn(inner) => keep_nothing(inner),
            Op::Delete(_) | Op::Range(_) => {}
        }
    }
}

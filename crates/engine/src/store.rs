//! The store itself.

use std::cmp::Ordering;

use crate::{
    Error, Header, Key, KeyValue, Order, Range, RangeResult, Revision, SortBy,
    auth::Auth,
    index::Index,
    lease::Leases,
    log::{Change, Log},
};

/// The revision of a store that nothing was written to.
const FIRST_REVISION: Revision = Revision(1);

/// The term that every header shows: there is one member, which has led since it was elected.
const RAFT_TERM: u64 = 2;

/// An etcd store: keys with their history, leases, users and roles.
///
/// Time is an argument, the time since an origin of the caller's choice, and must not go back.
/// Leases end when [`tick`](Store::tick) is told that their time has come, and not before.
///
/// Two kinds of transactions that end etcd's own process are harmless here. Some transactions can
/// delete a key and put it, in spite of [`Error::DuplicateKey`]: a put that keeps the value of the
/// deleted key is refused with [`Error::KeyNotFound`], and a compaction at that revision keeps the
/// key.
#[derive(Debug)]
pub struct Store {
    cluster_id: u64,
    member_id: u64,
    pub(crate) revision: Revision,
    /// What is older cannot be read. Below zero before the first compaction, as in etcd, where this
    /// shows in transactions that read at a negative revision.
    pub(crate) compacted: Revision,
    pub(crate) index: Index,
    pub(crate) log: Log,
    pub(crate) leases: Leases,
    auth: Auth,
}

impl Store {
    /// An empty store, with the ids that its headers shall show.
    pub fn new(cluster_id: u64, member_id: u64) -> Self {
        Self {
            cluster_id,
            member_id,
            revision: FIRST_REVISION,
            compacted: Revision(-1),
            index: Index::default(),
            log: Log::starting_at(FIRST_REVISION.next()),
            leases: Leases::default(),
            auth: Auth::default(),
        }
    }

    /// Who answers, and how far this store is.
    pub const fn header(&self) -> Header {
        Header {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: self.revision,
            raft_term: RAFT_TERM,
        }
    }

    /// The oldest revision that can be read, and watched from.
    pub fn compacted(&self) -> Revision {
        self.compacted.max(Revision::ZERO)
    }

    /// The keys that were written or deleted after a revision, in the order of the changes; a key
    /// that changed twice comes twice. Compacted changes are left out.
    pub fn changed_since(&self, revision: Revision) -> impl Iterator<Item = &Key> {
        self.log
            .since(revision.next())
            .flat_map(|(_, changes)| changes.iter().map(|change| &change.key))
    }

    /// The bytes of all keys and values that are kept.
    pub const fn bytes(&self) -> u64 {
        self.index.bytes()
    }

    /// How many keys are kept, with those that were deleted and not yet compacted away.
    pub fn key_count(&self) -> usize {
        self.index.len()
    }

    /// Users and roles.
    pub const fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Users and roles, to change them.
    pub const fn auth_mut(&mut self) -> &mut Auth {
        &mut self.auth
    }

    /// Reads keys.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], [`Error::FutureRevision`], or [`Error::Compacted`].
    pub fn range(&self, range: &Range) -> Result<RangeResult, Error> {
        if range.keys.start.is_empty() {
            return Err(Error::EmptyKey);
        }
        if range.revision > self.revision {
            return Err(Error::FutureRevision);
        }
        if range.revision > Revision::ZERO && range.revision < self.compacted {
            return Err(compacted());
        }
        Ok(RangeResult {
            header: self.header(),
            ..self.read(range, self.revision)
        })
    }

    /// Drops the history before a revision.
    ///
    /// # Errors
    ///
    /// [`Error::FutureRevision`], or [`Error::Compacted`] if it was compacted so far already.
    pub fn compact(&mut self, revision: Revision) -> Result<Header, Error> {
        if revision <= self.compacted {
            return Err(compacted());
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compacted = revision;
        self.index.compact(revision);
        self.log.compact(revision);
        Ok(self.header())
    }

    /// Reads keys of a checked range; `latest` is what its revision zero stands for.
    pub(crate) fn read(&self, range: &Range, latest: Revision) -> RangeResult {
        let at = match range.revision {
            Revision(..=0) => latest,
            revision => revision,
        };
        let header = Header {
            revision: latest,
            ..Header::default()
        };
        let mut found = self.index.range(&range.keys, at);
        if range.count_only {
            return RangeResult {
                header,
                count: found.count() as i64,
                ..RangeResult::default()
            };
        }

        let limit = usize::try_from(range.limit).unwrap_or(0);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let has_bounds = has_bounds(range);
        let looked_at = match range.order {
            _ if has_bounds => usize::MAX,
            Some((_, Order::Ascending | Order::Descending)) => usize::MAX,
            Some((_, Order::Unstated)) => limit.saturating_add(1),
            None => limit,
        };
        let mut kvs: Vec<&KeyValue> = found.by_ref().take(looked_at).collect();
        let count = kvs.len() + found.count();
        if has_bounds {
            kvs.retain(|kv| is_within_bounds(range, kv));
        }
        if let Some((by, order)) = range.order {
            sort(&mut kvs, by, order);
        }
        let more = if has_bounds { kvs.len() } else { count } > limit;
        kvs.truncate(limit);

        let kvs = kvs.into_iter().map(|kv| {
            let mut kv = kv.clone();
            if range.keys_only {
                kv.value = Default::default();
            }
            kv
        });
        RangeResult {
            header,
            kvs: kvs.collect(),
            more,
            count: count as i64,
        }
    }

    /// Ends a transaction: its changes, which the index has already, make a revision if there are
    /// any.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.revision = self.revision.next();
            self.log.push(changes);
        }
    }
}

/// The refusal of all calls but a watch, to which etcd does not add the oldest revision.
pub(crate) const fn compacted() -> Error {
    Error::Compacted {
        oldest: Revision::ZERO,
    }
}

fn has_bounds(range: &Range) -> bool {
    [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ]
    .iter()
    .any(|&bound| bound != Revision::ZERO)
}

fn is_within_bounds(range: &Range, kv: &KeyValue) -> bool {
    let at_least = |min: Revision, revision| min == Revision::ZERO || revision >= min;
    let at_most = |max: Revision, revision| max == Revision::ZERO || revision <= max;
    at_least(range.min_mod_revision, kv.mod_revision)
        && at_most(range.max_mod_revision, kv.mod_revision)
        && at_least(range.min_create_revision, kv.create_revision)
        && at_most(range.max_create_revision, kv.create_revision)
}

/// Equals stay in the order of their keys, whichever the direction; etcd leaves their order open.
fn sort(kvs: &mut [&KeyValue], by: SortBy, order: Order) {
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match by {
            SortBy::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortBy::Value => a.value.cmp(&b.value),
            SortBy::Version => a.version.cmp(&b.version),
        }
    };
    match order {
        Order::Ascending | Order::Unstated => kvs.sort_by(|a, b| compare(a, b)),
        Order::Descending => kvs.sort_by(|a, b| compare(b, a)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRange, Op, Txn};

    fn store_with(keys: &[&str]) -> Store {
        let mut store = Store::new(1, 1);
        for &key in keys {
            store
                .txn(&Txn::new().then(Op::put(key, key)))
                .expect("a plain put");
        }
        store
    }

    fn keys(found: &RangeResult) -> Vec<String> {
        found.kvs.iter().map(|kv| kv.key.to_string()).collect()
    }

    #[test]
    fn the_first_revision_is_one() {
        let store = Store::new(5, 6);
        let header = store.header();
        assert_eq!(
            (header.cluster_id, header.member_id, header.revision),
            (5, 6, Revision(1))
        );
    }

    #[test]
    fn a_limit_leaves_the_count_alone() {
        let store = store_with(&["a", "b", "c"]);
        let all = Range::new(KeyRange::all());
        let found = store.range(&all.clone().limit(2)).expect("a plain read");
        assert_eq!((keys(&found).len(), found.more, found.count), (2, true, 3));
        let found = store.range(&all.limit(3)).expect("a plain read");
        assert_eq!((keys(&found).len(), found.more, found.count), (3, false, 3));
    }

    #[test]
    fn bounds_apply_before_the_limit_and_leave_the_count_alone() {
        let store = store_with(&["a", "b", "c"]);
        let range = Range::new(KeyRange::all())
            .min_mod_revision(Revision(3))
            .limit(2);
        let found = store.range(&range).expect("a plain read");
        assert_eq!(
            (keys(&found), found.more, found.count),
            (vec!["b".into(), "c".into()], false, 3)
        );
    }

    #[test]
    fn a_sort_comes_before_the_limit() {
        let store = store_with(&["a", "c", "b"]);
        let range = Range::new(KeyRange::all())
            .order(SortBy::ModRevision, Order::Descending)
            .limit(2);
        let found = store.range(&range).expect("a plain read");
        assert_eq!(
            (keys(&found), found.more),
            (vec!["b".into(), "c".into()], true)
        );
    }

    #[test]
    fn a_sort_in_no_stated_order_comes_after_the_limit() {
        let store = store_with(&["d", "c", "b", "a"]);
        let range = Range::new(KeyRange::all())
            .order(SortBy::ModRevision, Order::Unstated)
            .limit(2);
        let found = store.range(&range).expect("a plain read");
        assert_eq!(
            (keys(&found), found.more, found.count),
            (vec!["c".into(), "b".into()], true, 4)
        );
    }

    #[test]
    fn the_compacted_revision_itself_can_be_read() {
        let mut store = store_with(&["a", "b", "c"]);
        store.compact(Revision(3)).expect("a revision that is kept");
        let at = |revision| store.range(&Range::new(KeyRange::all()).revision(Revision(revision)));
        assert_eq!(at(2), Err(compacted()));
        assert_eq!(at(3).map(|found| found.count), Ok(2));
        assert_eq!(at(5), Err(Error::FutureRevision));
        assert_eq!(store.compact(Revision(3)), Err(compacted()));
        assert_eq!(store.compact(Revision(5)), Err(Error::FutureRevision));
    }

    #[test]
    fn the_shell_can_ask_what_a_commit_changed() {
        let mut store = store_with(&["a"]);
        let before = store.header().revision;
        let txn = Txn::new().then(Op::delete("a")).then(Op::put("b", "v"));
        store.txn(&txn).expect("apart from each other");
        let changed: Vec<_> = store.changed_since(before).cloned().collect();
        assert_eq!(changed, [Key::from("a"), Key::from("b")]);
    }
}

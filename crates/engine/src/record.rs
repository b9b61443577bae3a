//! What is written down of a store, so that it can be restored.

use std::time::Duration;

use crate::{
    Key, KeyRange, KeyValue, LeaseId, Permission, Revision, Store,
    auth::Auth,
    index::Version,
    log::{Change, Log},
    store::FIRST_REVISION,
};

/// One thing that was done to a [`Store`]. Those of one call belong together: all of them are to be
/// written down, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// Users and roles are these from now on.
    Auth(AuthRecord),
    /// A transaction or the end of a lease wrote a key or deleted it.
    Change {
        /// The revision that it made.
        revision: Revision,
        /// The place of the change among those of its revision.
        sub: i64,
        /// The key.
        key: Key,
        /// The key as it now stands; none if it was deleted.
        kv: Option<KeyValue>,
    },
    /// The history before a revision was dropped.
    Compacted {
        /// The oldest revision that can still be read.
        revision: Revision,
        /// The changes, by revision and place, that no read can see any more. They may be forgotten
        /// at any later time.
        dropped: Vec<(Revision, i64)>,
    },
    /// A lease was revoked or ran out.
    LeaseEnded {
        /// Its id.
        id: LeaseId,
    },
    /// A lease was granted.
    LeaseGranted {
        /// Its id.
        id: LeaseId,
        /// Its time to live.
        ttl: Duration,
    },
    /// The store chose an id for a lease, and goes on from there.
    LeaseIdChosen(LeaseId),
}

/// Users and roles, as they are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRecord {
    /// Whether users must authenticate.
    pub enabled: bool,
    /// The revision of the books.
    pub revision: Revision,
    /// The names of the users, and of each one's roles.
    pub users: Vec<(String, Vec<String>)>,
    /// The names of the roles, and the permissions of each.
    pub roles: Vec<(String, Vec<Permission>)>,
}

/// A store that came out of its records.
#[derive(Debug)]
pub struct Restored {
    /// The store.
    pub store: Store,
    /// The changes among the records that a compaction had dropped: they may be forgotten.
    pub dropped: Vec<(Revision, i64)>,
}

/// Why a store cannot be restored: the records are not those of a store, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Changes are missing.
    #[error("the changes of revision {missing} are missing")]
    Gap {
        /// The first revision that is not there.
        missing: Revision,
    },
    /// A key lives by a lease that does not.
    #[error("the key {key} lives by the lease {lease}, which is missing")]
    LeaseMissing {
        /// The key.
        key: Key,
        /// Its lease.
        lease: LeaseId,
    },
    /// Changes do not come in their order.
    #[error("the change {sub} of revision {revision} does not come in its order")]
    OutOfOrder {
        /// The revision of the change.
        revision: Revision,
        /// Its place within the revision.
        sub: i64,
    },
}

impl Store {
    /// Notes from now on what is done, for [`take_records`](Store::take_records).
    pub fn keep_records(&mut self) {
        self.records = Some(Records {
            kept: Vec::new(),
            auth: self.auth.to_record(),
            is_auth_touched: false,
        });
    }

    /// What was done since this was asked for last, in its order.
    pub fn take_records(&mut self) -> Vec<Record> {
        let Some(records) = &mut self.records else {
            return Vec::new();
        };
        if std::mem::take(&mut records.is_auth_touched) {
            let auth = self.auth.to_record();
            if auth != records.auth {
                records.auth = auth.clone();
                records.kept.push(Record::Auth(auth));
            }
        }
        std::mem::take(&mut records.kept)
    }

    /// The whole store as records: the changes in ascending order of revision and place, then the
    /// rest.
    pub fn records(&self) -> Vec<Record> {
        let oldest = self.log.oldest();
        let versions = self.index.versions();
        // What the compaction keeps is not in the log.
        let mut records: Vec<Record> = versions
            .filter(|(_, version)| version.revision < oldest)
            .map(|(key, version)| Record::Change {
                revision: version.revision,
                sub: version.sub,
                key: key.clone(),
                kv: version.kv.clone(),
            })
            .collect();
        records.sort_unstable_by_key(Record::place);
        for (revision, changes) in self.log.since(oldest) {
            records.extend(changes.iter().map(|change| change.to_record(revision)));
        }

        let leases = self.leases.all().into_iter();
        records.extend(leases.map(|(id, ttl)| Record::LeaseGranted { id, ttl }));
        if let Some(id) = LeaseId::from_wire(self.leases.last_id()) {
            records.push(Record::LeaseIdChosen(id));
        }
        records.push(Record::Auth(self.auth.to_record()));
        records.push(Record::Compacted {
            revision: self.compacted,
            dropped: Vec::new(),
        });
        records
    }

    /// Makes a store of its records: of [`records`](Store::records), or of all that it ever let
    /// [take](Store::take_records). All leases begin their time to live at `now`.
    ///
    /// # Errors
    ///
    /// [`RestoreError`], if the records are not those of a store.
    pub fn restore(
        cluster_id: u64,
        member_id: u64,
        now: Duration,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Restored, RestoreError> {
        let mut store = Self::new(cluster_id, member_id);
        let mut changes = Vec::new();
        for record in records {
            match record {
                Record::Auth(auth) => store.auth = Auth::from_record(auth),
                Record::Change {
                    revision,
                    sub,
                    key,
                    kv,
                } => changes.push((revision, Change { sub, key, kv })),
                Record::Compacted { revision, .. } => {
                    store.compacted = store.compacted.max(revision);
                }
                Record::LeaseEnded { id } => drop(store.leases.remove(id)),
                Record::LeaseGranted { id, ttl } => store.leases.insert(now, id, ttl),
                Record::LeaseIdChosen(LeaseId(id)) => store.leases.set_last_id(id),
            }
        }
        store.fill(changes)?;
        store.attach_all()?;
        store.log.compact(store.compacted);
        let dropped = store.index.compact(store.compacted);
        Ok(Restored { store, dropped })
    }

    /// Writes the history of an empty store whose compaction is known.
    fn fill(&mut self, changes: Vec<(Revision, Change)>) -> Result<(), RestoreError> {
        // Of what is older only those changes are left that can still be seen.
        let oldest = self.compacted.max(FIRST_REVISION.next());
        self.log = Log::starting_at(oldest);
        let mut last = (FIRST_REVISION, i64::MAX);
        let mut commit = Vec::new();
        for (revision, change) in changes {
            let sub = change.sub;
            if (revision, sub) <= last {
                return Err(RestoreError::OutOfOrder { revision, sub });
            }
            if revision > last.0 {
                self.end_commit(oldest, last.0, &mut commit);
                let missing = last.0.next().max(oldest);
                if revision > missing {
                    return Err(RestoreError::Gap { missing });
                }
            }
            last = (revision, sub);
            let version = Version {
                revision,
                sub,
                kv: change.kv.clone(),
            };
            self.index.write(change.key.clone(), version);
            commit.push(change);
        }
        self.end_commit(oldest, last.0, &mut commit);
        self.revision = last.0;
        if self.compacted > self.revision {
            let missing = self.compacted;
            return Err(RestoreError::Gap { missing });
        }
        Ok(())
    }

    fn end_commit(&mut self, oldest: Revision, revision: Revision, commit: &mut Vec<Change>) {
        let changes = std::mem::take(commit);
        if revision >= oldest {
            self.log.push(changes);
        }
    }

    /// Lets the keys live by their leases.
    fn attach_all(&mut self) -> Result<(), RestoreError> {
        let all = KeyRange::all();
        for kv in self.index.range(&all, self.revision) {
            let Some(lease) = kv.lease else { continue };
            if !self.leases.contains(lease) {
                let key = kv.key.clone();
                return Err(RestoreError::LeaseMissing { key, lease });
            }
            self.leases.attach(lease, kv.key.clone());
        }
        Ok(())
    }

    /// Notes what was done, if anybody wants to know.
    pub(crate) fn record(&mut self, record: impl FnOnce() -> Record) {
        if let Some(records) = &mut self.records {
            records.kept.push(record());
        }
    }
}

impl Record {
    /// Where a change stands in the order of all changes.
    const fn place(&self) -> (Revision, i64) {
        match self {
            Self::Change { revision, sub, .. } => (*revision, *sub),
            _ => (Revision::ZERO, 0),
        }
    }
}

impl Change {
    fn to_record(&self, revision: Revision) -> Record {
        Record::Change {
            revision,
            sub: self.sub,
            key: self.key.clone(),
            kv: self.kv.clone(),
        }
    }
}

/// What was done since it was taken last.
#[derive(Debug)]
pub(crate) struct Records {
    kept: Vec<Record>,
    /// Users and roles as they were recorded last.
    auth: AuthRecord,
    /// Somebody had the means to change them.
    is_auth_touched: bool,
}

impl Records {
    pub(crate) fn add_changes(&mut self, revision: Revision, changes: &[Change]) {
        let changes = changes.iter();
        self.kept
            .extend(changes.map(|change| change.to_record(revision)));
    }

    pub(crate) const fn touch_auth(&mut self) {
        self.is_auth_touched = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Op, Put, Range, Txn, WatchRequest, Watcher};

    const NOW: Duration = Duration::ZERO;

    fn restore(records: Vec<Record>) -> Result<Restored, RestoreError> {
        Store::restore(1, 1, NOW, records)
    }

    fn change(revision: i64, sub: i64) -> Record {
        Record::Change {
            revision: Revision(revision),
            sub,
            key: "a".into(),
            kv: None,
        }
    }

    #[test]
    fn nothing_restores_to_an_empty_store() {
        let restored = restore(Vec::new()).expect("nothing is missing");
        assert_eq!(restored.store.header(), Store::new(1, 1).header());
    }

    #[test]
    fn missing_and_misplaced_changes_are_refused() {
        let gap = |missing| {
            Some(RestoreError::Gap {
                missing: Revision(missing),
            })
        };
        assert_eq!(restore(vec![change(3, 0)]).err(), gap(2));
        assert_eq!(restore(vec![change(2, 0), change(4, 0)]).err(), gap(3));
        let compacted = |revision| Record::Compacted {
            revision: Revision(revision),
            dropped: Vec::new(),
        };
        assert_eq!(restore(vec![change(2, 0), compacted(3)]).err(), gap(3));
        assert_eq!(restore(vec![change(6, 0), compacted(5)]).err(), gap(5));
        assert_eq!(
            restore(vec![change(2, 1), change(2, 1)]).err(),
            Some(RestoreError::OutOfOrder {
                revision: Revision(2),
                sub: 1
            })
        );
    }

    #[test]
    fn a_key_of_a_missing_lease_is_refused() {
        let mut store = Store::new(1, 1);
        store.keep_records();
        let id = LeaseId(7);
        store
            .grant(NOW, id, Duration::from_secs(5))
            .expect("a new lease");
        let put = Put::new("a", "v").lease(id);
        store.txn(&Txn::new().then(put)).expect("a plain put");
        let mut records = store.take_records();
        records.retain(|record| matches!(record, Record::Change { .. }));
        let missing = RestoreError::LeaseMissing {
            key: "a".into(),
            lease: id,
        };
        assert_eq!(restore(records).err(), Some(missing));
    }

    #[test]
    fn a_store_that_is_not_asked_keeps_no_records() {
        let mut store = Store::new(1, 1);
        store
            .txn(&Txn::new().then(Op::put("a", "v")))
            .expect("a plain put");
        assert!(store.take_records().is_empty());
        store.keep_records();
        assert!(store.auth_mut().delete_user("nobody").is_err());
        assert!(store.take_records().is_empty());
    }

    #[test]
    fn what_a_compaction_dropped_can_be_forgotten_or_not() {
        let mut store = Store::new(1, 1);
        store.keep_records();
        for _ in 0..3 {
            let puts = Txn::new().then(Op::put("a", "v")).then(Op::put("b", "v"));
            store.txn(&puts).expect("plain puts");
        }
        let mut written = store.take_records();
        store.compact(Revision(3)).expect("a revision that is kept");
        let compaction = store.take_records();
        let [Record::Compacted { dropped, .. }] = &compaction[..] else {
            panic!("one compaction, not {compaction:?}");
        };
        assert_eq!(dropped[..], [(Revision(2), 0), (Revision(2), 1)]);

        written.extend(compaction.clone());
        let all = restore(written.clone()).expect("nothing is missing");
        assert_eq!(all.dropped[..], dropped[..]);
        written.retain(|record| !dropped.contains(&record.place()));
        let rest = restore(written).expect("nothing that counts is missing");
        assert!(rest.dropped.is_empty());
        assert_eq!(rest.store.records(), store.records());
        assert_eq!(all.store.records(), store.records());
        assert!(matches!(
            rest.store.range(&Range::new("a").revision(Revision(2))),
            Err(Error::Compacted { .. })
        ));
        let request = WatchRequest::new(KeyRange::all()).start(Revision(3));
        let (mut watcher, _) = Watcher::new(&rest.store, request).expect("a range");
        let told = watcher.next(&rest.store).expect("kept").expect("changes");
        assert_eq!(told.events.len(), 4);
    }
}

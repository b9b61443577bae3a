//! The store against a model that is too simple to be wrong: a list of everything that was ever
//! written, which every question is answered from by looking at all of it.

use proptest::prelude::*;
use quorate_engine::{
    Compare, Delete, Error, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Put, Range, Revision,
    Store, Txn, TxnResult, WatchRequest, Watcher,
};

/// Everything that was ever written: the key, the revision, and the key as it then stood.
#[derive(Debug, Default)]
struct Model {
    writes: Vec<(String, Revision, Option<KeyValue>)>,
}

impl Model {
    fn get(&self, key: &str, at: Revision) -> Option<&KeyValue> {
        let mut writes = self.writes.iter().rev();
        writes
            .find(|(written, revision, _)| written == key && *revision <= at)
            .and_then(|(_, _, kv)| kv.as_ref())
    }

    fn range(&self, keys: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let mut written: Vec<&String> = self.writes.iter().map(|(key, ..)| key).collect();
        written.sort();
        written.dedup();
        written
            .into_iter()
            .filter(|key| keys.contains(key.as_bytes()))
            .filter_map(|key| self.get(key, at).cloned())
            .collect()
    }

    fn put(&mut self, put: &Put, revision: Revision) -> Option<KeyValue> {
        let key = put.key.to_string();
        let prev = self.get(&key, revision).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: put.lease,
        };
        self.writes.push((key, revision, Some(kv)));
        prev
    }

    fn delete(&mut self, keys: &KeyRange, revision: Revision) -> Vec<KeyValue> {
        let prevs = self.range(keys, revision);
        for prev in &prevs {
            self.writes.push((prev.key.to_string(), revision, None));
        }
        prevs
    }

    fn txn(&mut self, txn: &Txn, revision: Revision) -> Vec<OpResult> {
        let ops = txn.success.iter();
        ops.map(|op| match op {
            Op::Delete(delete) => {
                let prevs = self.delete(&delete.keys, revision);
                OpResult::Delete {
                    deleted: prevs.len() as i64,
                    prevs,
                }
            }
            Op::Put(put) => OpResult::Put {
                prev: self.put(put, revision),
            },
            Op::Range(_) | Op::Txn(_) => unreachable!("the model is given writes alone"),
        })
        .collect()
    }

    fn revoke(&mut self, lease: LeaseId, revision: Revision) {
        let latest = self.range(&KeyRange::all(), revision);
        for kv in latest.iter().filter(|kv| kv.lease == Some(lease)) {
            self.writes.push((kv.key.to_string(), revision, None));
        }
    }

    fn events(&self, keys: &KeyRange, from: Revision) -> Vec<Event> {
        let writes = self.writes.iter();
        writes
            .filter(|(key, revision, _)| *revision >= from && keys.contains(key.as_bytes()))
            .map(|(key, revision, kv)| {
                let prev = self.get(key, revision.previous()).cloned();
                match kv {
                    Some(kv) => Event::Put {
                        kv: kv.clone(),
                        prev: prev.filter(|_| kv.create_revision < *revision),
                    },
                    None => Event::Delete {
                        key: key.into(),
                        revision: *revision,
                        prev,
                    },
                }
            })
            .collect()
    }

    fn revision(&self) -> Revision {
        self.writes
            .last()
            .map_or(Revision(1), |&(_, revision, _)| revision)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Compact(i64),
    Read(KeyRange, i64),
    Revoke(LeaseId),
    Watch(KeyRange, i64),
    Write(Vec<Op>),
}

fn key() -> impl Strategy<Value = String> {
    "[ab]{1,2}"
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::key),
        2 => key().prop_map(KeyRange::prefix),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::between(start, end)),
        1 => key().prop_map(KeyRange::from),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), "[vw]", proptest::option::of(1..4_i64)).prop_map(|(key, value, lease)| {
            let put = Put::new(key, value).prev_kv();
            Op::Put(match lease {
                Some(id) => put.lease(LeaseId(id)),
                None => put,
            })
        }),
        2 => range().prop_map(|keys| Op::Delete(Delete::new(keys).prev_kv())),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Revisions are counted back from the latest one.
    prop_oneof![
        8 => proptest::collection::vec(op(), 1..4).prop_map(Step::Write),
        4 => (range(), -1..12_i64).prop_map(|(keys, back)| Step::Read(keys, back)),
        4 => (range(), -1..12_i64).prop_map(|(keys, back)| Step::Watch(keys, back)),
        1 => (1..4_i64).prop_map(|id| Step::Revoke(LeaseId(id))),
        1 => (-1..12_i64).prop_map(Step::Compact),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_the_model_does(steps in proptest::collection::vec(step(), 1..60)) {
        let mut store = Store::new(1, 1);
        let mut model = Model::default();
        let mut compacted = Revision(-1);
        let mut followers = Vec::new();
        for keys in [KeyRange::key("a"), KeyRange::prefix("b"), KeyRange::all()] {
            let request = WatchRequest::new(keys).prev_kv();
            followers.push(Watcher::new(&store, request).expect("a range with keys").0);
        }
        let mut followed = vec![Vec::new(); followers.len()];
        let now = std::time::Duration::ZERO;
        for id in 1..4 {
            store.grant(now, LeaseId(id), std::time::Duration::from_secs(60)).expect("new");
        }

        for step in steps {
            let latest = store.header().revision;
            prop_assert_eq!(latest, model.revision());
            match step {
                Step::Compact(back) => {
                    let at = Revision(latest.0 - back);
                    for follower in &mut followers {
                        follower.read_ahead(&store);
                    }
                    let answer = store.compact(at);
                    if at > latest {
                        prop_assert_eq!(answer, Err(Error::FutureRevision));
                    } else if at <= compacted {
                        prop_assert!(is_compacted(&answer));
                    } else {
                        prop_assert!(answer.is_ok());
                        compacted = at;
                    }
                }
                Step::Read(keys, back) => {
                    let at = Revision((latest.0 - back).max(1));
                    let answer = store.range(&Range::new(keys.clone()).revision(at));
                    if at > latest {
                        prop_assert_eq!(answer, Err(Error::FutureRevision));
                    } else if at < compacted {
                        prop_assert!(is_compacted(&answer));
                    } else {
                        let found = answer.expect("the revision is kept").kvs;
                        prop_assert_eq!(found, model.range(&keys, at));
                    }
                }
                Step::Revoke(id) => {
                    if store.revoke(id).is_ok() {
                        model.revoke(id, latest.next());
                    }
                }
                Step::Watch(keys, back) => {
                    let from = Revision((latest.0 - back).max(1));
                    let request = WatchRequest::new(keys.clone()).start(from).prev_kv();
                    let Ok((mut watcher, _)) = Watcher::new(&store, request) else {
                        prop_assert!(!keys.contains(&keys.start));
                        continue;
                    };
                    let answer = watcher.next(&store);
                    if from < compacted {
                        prop_assert_eq!(answer, Err(Error::Compacted { oldest: compacted }));
                    } else if from > compacted {
                        let told = answer.expect("the revision is kept");
                        let told = told.map(|batch| batch.events).unwrap_or_default();
                        let from = model.events(&keys, from);
                        prop_assert_eq!(told, without_lost(from, compacted));
                    }
                }
                Step::Write(ops) => {
                    let txn = ops.into_iter().fold(Txn::new(), Txn::then);
                    match store.txn(&txn) {
                        Ok(TxnResult { results, .. }) => {
                            prop_assert_eq!(results, model.txn(&txn, latest.next()));
                        }
                        Err(refusal) => prop_assert!(matches!(
                            refusal,
                            Error::DuplicateKey | Error::LeaseNotFound
                        )),
                    }
                }
            }
            for (follower, followed) in followers.iter_mut().zip(&mut followed) {
                // Some steps pass before a watch is looked at.
                if store.header().revision.0 % 3 == 0 {
                    while let Some(batch) = follower.next(&store).expect("it keeps up") {
                        followed.extend(batch.events);
                    }
                }
            }
        }
        for (mut follower, mut followed) in followers.into_iter().zip(followed) {
            while let Some(batch) = follower.next(&store).expect("it keeps up") {
                followed.extend(batch.events);
            }
            let all = model.events(follower.keys(), Revision(1));
            prop_assert_eq!(strip(followed), strip(all));
        }
        let absent = store.txn(&Txn::new().when(Compare::absent(KeyRange::all())));
        let expected = model.range(&KeyRange::all(), model.revision()).is_empty();
        prop_assert_eq!(absent.expect("it has no operations").succeeded, expected);
    }
}

fn is_compacted<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Compacted { .. }))
}

/// What stood before the oldest revision kept cannot be told.
fn without_lost(events: Vec<Event>, compacted: Revision) -> Vec<Event> {
    let lost = |event: &Event| event.revision().previous() < compacted;
    let (lost, kept): (Vec<Event>, Vec<Event>) = events.into_iter().partition(lost);
    strip(lost).into_iter().chain(kept).collect()
}

/// Leaves out how keys stood before, which depends on when a watch was served.
fn strip(events: Vec<Event>) -> Vec<Event> {
    events
        .into_iter()
        .map(|event| match event {
            Event::Put { kv, .. } => Event::Put { kv, prev: None },
            Event::Delete { key, revision, .. } => Event::Delete {
                key,
                revision,
                prev: None,
            },
        })
        .collect()
}

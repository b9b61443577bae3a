//! A store that was restored from its records answers as the one that was recorded.

use std::time::Duration;

use proptest::prelude::*;
use quorate_engine::{
    Error, KeyRange, LeaseId, Op, Password, Permission, PermissionKind, Put, Range, Record,
    Restored, Revision, Store, Txn, WatchBatch, WatchRequest, Watcher,
};

const TTL: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
enum Step {
    Auth(u8, u8),
    /// Counted back from the latest revision.
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    Tick(u64),
    Write(Vec<Op>),
}

fn key() -> impl Strategy<Value = String> {
    "[ab]{1,2}"
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::key),
        2 => key().prop_map(KeyRange::prefix),
        1 => key().prop_map(KeyRange::from),
    ]
}

/// Inner transactions and deletions without an end reach the holes of the duplicate check: what is
/// written twice at one revision.
fn op() -> impl Strategy<Value = Op> {
    let plain = prop_oneof![
        3 => (key(), "[vw]{0,2}", proptest::option::of(1..4_i64)).prop_map(|(key, value, lease)| {
            let put = Put::new(key, value);
            Op::Put(match lease {
                Some(id) => put.lease(LeaseId(id)),
                None => put,
            })
        }),
        2 => range().prop_map(Op::delete),
    ];
    plain.prop_recursive(2, 6, 3, |op| {
        proptest::collection::vec(op, 1..3)
            .prop_map(|ops| ops.into_iter().fold(Txn::new(), Txn::then).into())
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(op(), 1..4).prop_map(Step::Write),
        2 => (0..4_i64).prop_map(Step::Grant),
        1 => (1..4_i64).prop_map(Step::Revoke),
        1 => (0..4_u64).prop_map(Step::Tick),
        2 => (0..12_i64).prop_map(Step::Compact),
        1 => (0..8_u8, 0..3_u8).prop_map(|(what, who)| Step::Auth(what, who)),
    ]
}

fn run(store: &mut Store, now: &mut Duration, step: &Step) -> Result<(), Error> {
    match step {
        Step::Auth(what, who) => change_books(store, *what, &format!("n{who}")),
        Step::Compact(back) => {
            let at = Revision(store.header().revision.0 - back);
            store.compact(at).map(drop)
        }
        Step::Grant(id) => store.grant(*now, LeaseId(*id), TTL).map(drop),
        Step::Revoke(id) => store.revoke(LeaseId(*id)).map(drop),
        Step::Tick(seconds) => {
            *now += Duration::from_secs(*seconds);
            store.tick(*now);
            Ok(())
        }
        Step::Write(ops) => {
            let txn = ops.iter().cloned().fold(Txn::new(), Txn::then);
            store.txn(&txn).map(drop)
        }
    }
}

fn change_books(store: &mut Store, what: u8, name: &str) -> Result<(), Error> {
    let books = store.auth_mut();
    let permission = Permission {
        kind: PermissionKind::Write,
        keys: KeyRange::prefix(name),
    };
    match what {
        0 => books.add_user("root", Password::None),
        1 => books.grant_role("root", "root"),
        2 => books.add_role(name),
        3 => books.grant(name, permission),
        4 => books.grant_role("root", name),
        5 => books.delete_role(name),
        6 => books.enable(),
        _ => {
            books.disable();
            Ok(())
        }
    }
}

/// Everything that can be asked of a store, and what it answers.
fn answers(store: &Store, now: Duration) -> Vec<String> {
    let mut answers = Vec::new();
    let mut add = |answer: &dyn std::fmt::Debug| answers.push(format!("{answer:?}"));
    add(&(store.header(), store.compacted(), store.bytes()));
    add(&store.records());
    let mut leases = store.leases();
    leases.sort();
    for id in leases {
        let status = store.lease_status(now, id, true);
        add(&(id, status.granted, status.keys));
    }
    for revision in 0..=store.header().revision.0 + 1 {
        let at = Revision(revision);
        add(&store.range(&Range::new(KeyRange::all()).revision(at)));
        for keys in [KeyRange::all(), KeyRange::key("a"), KeyRange::prefix("b")] {
            let request = WatchRequest::new(keys).start(at).prev_kv();
            let (mut watcher, _) = Watcher::new(store, request).expect("a range with keys");
            add(&watcher
                .next(store)
                .map(|batch: Option<WatchBatch>| batch.map(|batch| batch.events)));
        }
    }
    let books = store.auth();
    add(&(books.is_enabled(), books.revision()));
    for user in books.users() {
        add(&(user, books.roles_of(user).map(Iterator::collect::<Vec<_>>)));
    }
    for role in books.roles() {
        add(&(role, books.permissions(role)));
    }
    answers
}

fn restored(records: Vec<Record>, now: Duration) -> Result<Store, TestCaseError> {
    let restored = Store::restore(1, 2, now, records);
    let failed = |error| TestCaseError::fail(format!("{error}"));
    let Restored { store, .. } = restored.map_err(failed)?;
    Ok(store)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_store_answers_as_the_original(
        steps in proptest::collection::vec(step(), 1..40),
        after in proptest::collection::vec(step(), 1..10),
    ) {
        let mut store = Store::new(1, 2);
        store.keep_records();
        let mut now = Duration::ZERO;
        let mut taken = Vec::new();
        for step in &steps {
            let _ = run(&mut store, &mut now, step);
            taken.extend(store.take_records());
        }
        // All leases begin anew, those of the original too.
        for id in store.leases() {
            store.keep_alive(now, id);
        }
        let expected = answers(&store, now);
        let of_dump = restored(store.records(), now)?;
        let of_taken = restored(taken.clone(), now)?;
        let dropped: Vec<_> = taken
            .iter()
            .flat_map(|record| match record {
                Record::Compacted { dropped, .. } => dropped.clone(),
                _ => Vec::new(),
            })
            .collect();
        taken.retain(|record| !matches!(
            record,
            Record::Change { revision, sub, .. } if dropped.contains(&(*revision, *sub))
        ));
        let of_rest = restored(taken, now)?;
        for mut other in [of_dump, of_taken, of_rest] {
            prop_assert_eq!(&answers(&other, now), &expected);
            // And it goes on as the original does.
            let mut original = restored(store.records(), now)?;
            let (mut one, mut two) = (now, now);
            for step in &after {
                prop_assert_eq!(
                    run(&mut original, &mut one, step),
                    run(&mut other, &mut two, step)
                );
            }
            prop_assert_eq!(&answers(&other, two), &answers(&original, one));
        }
        let (mut one, mut two) = (now, now);
        let mut other = restored(store.records(), now)?;
        for step in &after {
            prop_assert_eq!(run(&mut store, &mut one, step), run(&mut other, &mut two, step));
        }
        prop_assert_eq!(answers(&other, two), answers(&store, one));
    }
}

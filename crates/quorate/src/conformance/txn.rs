//! Transactions: conditions, branches and answers.

use super::Subject;
use crate::{
    Compare, CompareOp, CompareTarget, Delete, KeyRange, LeaseId, Op, OpResult, Put, Range,
    Revision, Txn, Value,
};

pub async fn a_transaction_takes_the_branch_that_its_condition_chooses(subject: &Subject) {
    let create = Txn::new()
        .when(Compare::absent(subject.key("k")))
        .then(Op::put(subject.key("k"), "new"))
        .or_else(Op::range(subject.key("k")));
    let done = subject.txn(create.clone()).await;
    assert!(done.succeeded);
    assert_eq!(done.results, [OpResult::Put { prev: None }]);
    let done = subject.txn(create).await;
    assert!(!done.succeeded);
    let [OpResult::Range(found)] = &*done.results else {
        panic!("one read, not {done:?}");
    };
    assert_eq!(found.kvs[0].value, "new");
}

pub async fn all_conditions_must_hold(subject: &Subject) {
    subject.put("a", "1").await;
    let both = |value| {
        Txn::new()
            .when(Compare::value(subject.key("a")).eq("1"))
            .when(Compare::value(subject.key("a")).eq(value))
    };
    assert!(subject.txn(both("1")).await.succeeded);
    assert!(!subject.txn(both("2")).await.succeeded);
    assert!(subject.txn(Txn::new()).await.succeeded, "none at all hold");
}

pub async fn every_target_is_compared_by_every_operator(subject: &Subject) {
    let lease = subject.lease(60).await;
    let made = subject.put("k", "1").await;
    subject.put("k", "2").await;
    let put = Put::new(subject.key("k"), "m").lease(lease);
    let changed = subject.apply(put).await.1.revision;
    let around = |revision: Revision| [revision.previous(), revision, revision.next()];
    let targets: Vec<[CompareTarget; 3]> = vec![
        around(made).map(CompareTarget::CreateRevision),
        around(changed).map(CompareTarget::ModRevision),
        [2, 3, 4].map(CompareTarget::Version),
        ["l", "m", "n"].map(|value| CompareTarget::Value(Value::from(value))),
        [-1, 0, 1].map(|by| CompareTarget::Lease(LeaseId::from_wire(lease.0.saturating_add(by)))),
    ];
    for [below, same, above] in targets {
        for (target, ordering) in [(below, 1), (same, 0), (above, -1)] {
            for (op, holds) in [
                (CompareOp::Equal, ordering == 0),
                (CompareOp::NotEqual, ordering != 0),
                (CompareOp::Greater, ordering > 0),
                (CompareOp::Less, ordering < 0),
            ] {
                let target = target.clone();
                if target == CompareTarget::Lease(Some(lease)) && ordering != 0 {
                    continue; // the largest id has none above
                }
                let keys = KeyRange::key(subject.key("k"));
                let compare = Compare { keys, op, target };
                let done = subject.txn(Txn::new().when(compare.clone())).await;
                assert_eq!(done.succeeded, holds, "{compare:?}");
            }
        }
    }
    subject.backend().revoke(lease).await.unwrap();
}

pub async fn a_missing_key_is_compared_as_zero_and_its_value_with_nothing(subject: &Subject) {
    let key = || subject.key("none");
    let hold = [
        Compare::create_revision(key()).eq(Revision::ZERO),
        Compare::mod_revision(key()).eq(Revision::ZERO),
        Compare::mod_revision(key()).lt(Revision(1)),
        Compare::version(key()).eq(0),
        Compare::version(key()).gt(-1),
        Compare::lease(key()).eq(None),
        Compare::absent(key()),
    ];
    for compare in hold {
        let done = subject.txn(Txn::new().when(compare.clone())).await;
        assert!(done.succeeded, "{compare:?}");
    }
    let fail = [
        Compare::value(key()).eq(""),
        Compare::value(key()).ne("v"),
        Compare::value(key()).lt("v"),
        Compare::value(key()).gt(""),
        Compare::version(key()).gt(0),
        Compare::present(key()),
    ];
    for compare in fail {
        let done = subject.txn(Txn::new().when(compare.clone())).await;
        assert!(!done.succeeded, "{compare:?}");
    }
}

pub async fn a_condition_on_a_range_must_hold_for_every_key_in_it(subject: &Subject) {
    subject.put("a", "1").await;
    let b = subject.put("b", "1").await;
    let all = || subject.all();
    let empty = || KeyRange::prefix(subject.key("c"));
    let expected = [
        (Compare::value(all()).eq("1"), true),
        (Compare::mod_revision(all()).lt(b.next()), true),
        (Compare::mod_revision(all()).lt(b), false),
        (Compare::mod_revision(all()).eq(b), false),
        (Compare::present(all()), true),
        (Compare::absent(all()), false),
        (Compare::absent(empty()), true),
        (Compare::version(empty()).eq(0), true),
        (Compare::value(empty()).ne("1"), false),
    ];
    for (compare, holds) in expected {
        let done = subject.txn(Txn::new().when(compare.clone())).await;
        assert_eq!(done.succeeded, holds, "{compare:?}");
    }
}

pub async fn operations_see_what_those_before_them_wrote(subject: &Subject) {
    subject.put("a", "1").await;
    let read = || Op::range(subject.all());
    let txn = Txn::new()
        .then(read())
        .then(Op::delete(subject.key("a")))
        .then(read())
        .then(Op::put(subject.key("b"), "1"))
        .then(read());
    let done = subject.txn(txn).await;
    let seen = |at: usize| match &done.results[at] {
        OpResult::Range(found) => subject.names(&found.kvs),
        other => panic!("a read, not {other:?}"),
    };
    assert_eq!(seen(0), ["a"]);
    assert!(seen(2).is_empty());
    assert_eq!(seen(4), ["b"]);
}

pub async fn all_writes_of_a_transaction_bear_one_revision(subject: &Subject) {
    let before = subject.put("gone", "v").await;
    let txn = Txn::new()
        .then(Op::put(subject.key("a"), "1"))
        .then(Op::delete(subject.key("gone")))
        .then(Op::put(subject.key("b"), "1"));
    let done = subject.txn(txn).await;
    assert!(done.header.revision > before);
    let found = subject.read(subject.all()).await;
    assert_eq!(subject.names(&found.kvs), ["a", "b"]);
    for kv in found.kvs {
        assert_eq!(kv.mod_revision, done.header.revision);
    }
}

pub async fn what_changes_nothing_makes_no_revision(subject: &Subject) {
    let before = subject.put("k", "v").await;
    let txn = Txn::new()
        .then(Op::range(subject.key("k")))
        .then(Op::delete(subject.key("none")));
    subject.txn(txn).await;
    subject.txn(Txn::new()).await;
    let after = subject.read(subject.key("k")).await.header.revision;
    assert_eq!(after, before);
}

pub async fn a_write_returns_what_stood_before_if_asked(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let (answer, _) = subject
        .apply(Put::new(subject.key("k"), "2").prev_kv())
        .await;
    let OpResult::Put { prev: Some(prev) } = answer else {
        panic!("the key as it stood, not {answer:?}");
    };
    assert_eq!(
        (prev.value, prev.mod_revision, prev.version),
        ("1".into(), first, 1)
    );
    let (answer, _) = subject.apply(Put::new(subject.key("k"), "3")).await;
    assert_eq!(answer, OpResult::Put { prev: None });
    let (answer, _) = subject
        .apply(Put::new(subject.key("new"), "1").prev_kv())
        .await;
    assert_eq!(answer, OpResult::Put { prev: None });
}

pub async fn a_deletion_tells_how_many_keys_and_which_if_asked(subject: &Subject) {
    for name in ["a", "b", "c"] {
        subject.put(name, name).await;
    }
    let (answer, _) = subject
        .apply(Delete::new(subject.between("a", "c")).prev_kv())
        .await;
    let OpResult::Delete { deleted: 2, prevs } = answer else {
        panic!("two keys, not {answer:?}");
    };
    assert_eq!(subject.names(&prevs), ["a", "b"]);
    assert_eq!(prevs[1].value, "b");
    let (answer, _) = subject.apply(Delete::new(subject.all())).await;
    assert_eq!(
        answer,
        OpResult::Delete {
            deleted: 1,
            prevs: vec![]
        }
    );
    let (answer, _) = subject.apply(Delete::new(subject.all()).prev_kv()).await;
    assert_eq!(
        answer,
        OpResult::Delete {
            deleted: 0,
            prevs: vec![]
        }
    );
}

pub async fn a_put_can_keep_the_value_or_the_lease(subject: &Subject) {
    let lease = subject.lease(60).await;
    subject.put("k", "v").await;
    subject
        .apply(Put::new(subject.key("k"), "").ignore_value().lease(lease))
        .await;
    let kv = subject.get("k").await.expect("it was put");
    assert_eq!(
        (kv.value, kv.lease, kv.version),
        ("v".into(), Some(lease), 2)
    );
    subject
        .apply(Put::new(subject.key("k"), "w").ignore_lease())
        .await;
    let kv = subject.get("k").await.expect("it was put");
    assert_eq!(
        (kv.value, kv.lease, kv.version),
        ("w".into(), Some(lease), 3)
    );
    subject.backend().revoke(lease).await.unwrap();
}

pub async fn inner_conditions_see_the_store_as_it_was_before_all(subject: &Subject) {
    let inner = Txn::new()
        .when(Compare::absent(subject.key("a")))
        .then(Op::put(subject.key("b"), "absent"))
        .or_else(Op::put(subject.key("b"), "present"));
    let txn = Txn::new().then(Op::put(subject.key("a"), "1")).then(inner);
    let first = subject.txn(txn.clone()).await;
    assert_eq!(subject.get("b").await.expect("it was put").value, "absent");
    let second = subject.txn(txn).await;
    assert_eq!(subject.get("b").await.expect("it was put").value, "present");
    let succeeded = |done: &crate::TxnResult| match &done.results[1] {
        OpResult::Txn(inner) => inner.succeeded,
        other => panic!("a transaction, not {other:?}"),
    };
    assert_eq!((succeeded(&first), succeeded(&second)), (true, false));
}

pub async fn transactions_nest_and_answer_in_the_same_shape(subject: &Subject) {
    let innermost = Txn::new()
        .then(Op::put(subject.key("c"), "3"))
        .then(Op::range(subject.all()));
    let inner = Txn::new()
        .then(Op::put(subject.key("b"), "2"))
        .then(innermost);
    let txn = Txn::new().then(Op::put(subject.key("a"), "1")).then(inner);
    let done = subject.txn(txn).await;
    let OpResult::Txn(inner) = &done.results[1] else {
        panic!("a transaction within: {done:?}");
    };
    let OpResult::Txn(innermost) = &inner.results[1] else {
        panic!("a transaction within that: {inner:?}");
    };
    let OpResult::Range(found) = &innermost.results[1] else {
        panic!("a read within that: {innermost:?}");
    };
    assert_eq!(subject.names(&found.kvs), ["a", "b", "c"]);
    let one = |kv: &crate::KeyValue| kv.mod_revision == done.header.revision;
    assert!(found.kvs.iter().all(one), "at one revision: {found:?}");
}

pub async fn a_read_within_can_look_back(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    let at = |revision| Range::new(subject.key("k")).revision(revision);
    let txn = Txn::new()
        .then(Op::put(subject.key("k"), "3"))
        .then(at(first))
        .then(at(second));
    let done = subject.txn(txn).await;
    for (result, value) in done.results[1..].iter().zip(["1", "2"]) {
        let OpResult::Range(found) = result else {
            panic!("a read, not {result:?}");
        };
        assert_eq!(found.kvs[0].value, value);
    }
}

pub async fn a_key_may_be_written_in_both_branches_and_deleted_twice(subject: &Subject) {
    let put = |name: &str| Op::put(subject.key(name), "v");
    subject
        .txn(Txn::new().then(put("a")).or_else(put("a")))
        .await;
    let inner = Txn::new().then(put("b")).or_else(put("b"));
    subject.txn(Txn::new().then(inner).or_else(put("b"))).await;
    let twice = Txn::new()
        .then(Op::delete(subject.all()))
        .then(Op::delete(subject.key("a")));
    let done = subject.txn(twice).await;
    let deleted = |at: usize| match done.results[at] {
        OpResult::Delete { deleted, .. } => deleted,
        _ => panic!("a deletion, not {:?}", done.results[at]),
    };
    assert_eq!((deleted(0), deleted(1)), (2, 0));
}

//! What is refused of transactions, and leaves the store as it was.

use super::{
    Subject,
    subject::{assert_refused, free_lease},
};
use crate::{Compare, ErrorKind, Op, Put, Range, Revision, Txn};

const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const NO_KEY: &str = "etcdserver: key is not provided";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";

pub async fn no_key_may_be_written_twice(subject: &Subject) {
    let put = |name: &str| Op::put(subject.key(name), "v");
    let refused = [
        Txn::new().then(put("a")).then(put("a")),
        Txn::new().then(put("a")).then(Op::delete(subject.key("a"))),
        Txn::new().then(Op::delete(subject.key("a"))).then(put("a")),
        Txn::new()
            .then(put("b"))
            .then(Op::delete(subject.between("a", "c"))),
        Txn::new().then(put("a")).then(Txn::new().then(put("a"))),
        Txn::new()
            .then(Txn::new().then(put("a")))
            .then(Txn::new().or_else(put("a"))),
        Txn::new()
            .then(Op::delete(subject.all()))
            .then(Txn::new().or_else(put("a"))),
        // In the branch that is not taken, too.
        Txn::new()
            .then(put("b"))
            .or_else(put("a"))
            .or_else(put("a")),
    ];
    for txn in refused {
        let answer = subject.backend().txn(txn).await;
        assert_refused(answer, ErrorKind::InvalidArgument, DUPLICATE);
    }
    assert_eq!(
        subject.read(subject.all()).await.count,
        0,
        "nothing was done"
    );
}

pub async fn a_list_holds_128_entries_and_no_more(subject: &Subject) {
    let puts = |count: usize| {
        (0..count).fold(Txn::new(), |txn, at| {
            txn.then(Op::put(subject.key(&format!("{at}")), "v"))
        })
    };
    assert_eq!(subject.txn(puts(128)).await.results.len(), 128);
    assert_eq!(subject.read(subject.all()).await.count, 128);
    let compares = (0..129).fold(Txn::new(), |txn, _| {
        txn.when(Compare::absent(subject.key("k")))
    });
    let elses = (0..129).fold(Txn::new(), |txn, _| {
        txn.or_else(Op::range(subject.key("k")))
    });
    // An inner one may hold what the outer one leaves.
    let inner = Txn::new().then(puts(128));
    for txn in [puts(129), compares, elses, inner] {
        let answer = subject.backend().txn(txn).await;
        assert_refused(answer, ErrorKind::InvalidArgument, TOO_MANY);
    }
    subject.txn(Txn::new().then(puts(127))).await;
}

pub async fn operations_without_a_key_are_refused_wherever_they_stand(subject: &Subject) {
    let refused = [
        Txn::new().when(Compare::absent("")),
        Txn::new().then(Op::put("", "v")),
        Txn::new().then(Op::delete("")),
        Txn::new().then(Op::range("")),
        Txn::new().or_else(Op::range("")),
        Txn::new().or_else(Txn::new().or_else(Op::put("", "v"))),
    ];
    for txn in refused {
        let answer = subject.backend().txn(txn).await;
        assert_refused(answer, ErrorKind::InvalidArgument, NO_KEY);
    }
}

pub async fn a_put_that_keeps_something_must_not_bring_it(subject: &Subject) {
    subject.put("k", "v").await;
    let mut put = Put::new(subject.key("k"), "").ignore_value();
    put.value = "w".into();
    let text = "etcdserver: value is provided";
    assert_refused(subject.attempt(put).await, ErrorKind::InvalidArgument, text);
    let lease = subject.lease(60).await;
    let put = Put::new(subject.key("k"), "w").ignore_lease().lease(lease);
    let text = "etcdserver: lease is provided";
    assert_refused(subject.attempt(put).await, ErrorKind::InvalidArgument, text);
    subject.backend().revoke(lease).await.unwrap();
}

pub async fn a_put_that_keeps_something_needs_the_key(subject: &Subject) {
    let text = "etcdserver: key not found";
    let keep_value = Put::new(subject.key("none"), "").ignore_value();
    assert_refused(subject.attempt(keep_value).await, ErrorKind::NotFound, text);
    let keep_lease = Put::new(subject.key("none"), "v").ignore_lease();
    assert_refused(subject.attempt(keep_lease).await, ErrorKind::NotFound, text);
}

pub async fn a_put_with_an_unknown_lease_is_refused(subject: &Subject) {
    let put = Put::new(subject.key("k"), "v").lease(free_lease());
    let text = "etcdserver: requested lease not found";
    assert_refused(subject.attempt(put).await, ErrorKind::NotFound, text);
    assert_eq!(subject.get("k").await, None);
}

pub async fn a_read_within_at_a_future_revision_is_refused(subject: &Subject) {
    let far = Range::new(subject.key("k")).revision(Revision(i64::MAX / 2));
    let txn = Txn::new().then(Op::put(subject.key("k"), "v")).then(far);
    let text = "etcdserver: mvcc: required revision is a future revision";
    let answer = subject.backend().txn(txn).await;
    assert_refused(answer, ErrorKind::InvalidArgument, text);
    assert_eq!(subject.get("k").await, None, "nothing was done");
}

pub async fn a_read_within_before_a_compaction_is_refused(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    subject.backend().compact(second, true).await.unwrap();
    let back = Range::new(subject.key("k")).revision(first);
    let txn = Txn::new().then(Op::put(subject.key("k"), "3")).then(back);
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(subject.backend().txn(txn).await, ErrorKind::Compacted, text);
    assert_eq!(subject.get("k").await.expect("it was put").value, "2");
}

pub async fn a_request_that_is_too_large_is_refused(subject: &Subject) {
    let put = Put::new(subject.key("k"), vec![b'v'; 1600 * 1024]);
    let text = "etcdserver: request is too large";
    assert_refused(subject.attempt(put).await, ErrorKind::InvalidArgument, text);
    let put = Put::new(subject.key("k"), vec![b'v'; 1400 * 1024]);
    subject.apply(put).await;
}

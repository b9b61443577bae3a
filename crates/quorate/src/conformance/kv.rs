//! Single keys, ranges, history and compaction.

use super::{Subject, subject::assert_refused};
use crate::{Delete, ErrorKind, Key, KeyRange, Order, Put, Range, Revision, SortBy, Value};

const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub async fn a_key_that_was_never_put_is_absent(subject: &Subject) {
    let found = subject.read(subject.key("k")).await;
    assert!(found.kvs.is_empty() && found.count == 0 && !found.more);
    assert!(found.header.revision >= Revision(1));
}

pub async fn a_put_makes_the_key_at_the_revision_of_its_answer(subject: &Subject) {
    let revision = subject.put("k", "v").await;
    let kv = subject.get("k").await.expect("it was put");
    assert_eq!(kv.key, subject.key("k"));
    assert_eq!(kv.value, "v");
    assert_eq!((kv.create_revision, kv.mod_revision), (revision, revision));
    assert_eq!((kv.version, kv.lease), (1, None));
}

pub async fn a_second_put_raises_the_version_and_keeps_the_create_revision(subject: &Subject) {
    let made = subject.put("k", "1").await;
    let changed = subject.put("k", "2").await;
    assert!(changed > made);
    let kv = subject.get("k").await.expect("it was put");
    assert_eq!((kv.create_revision, kv.mod_revision), (made, changed));
    assert_eq!((kv.version, kv.value), (2, Value::from("2")));
}

pub async fn a_put_of_the_same_value_is_a_change_too(subject: &Subject) {
    let first = subject.put("k", "v").await;
    assert!(subject.put("k", "v").await > first);
    assert_eq!(subject.get("k").await.expect("it was put").version, 2);
}

pub async fn a_key_that_is_put_after_its_deletion_is_made_anew(subject: &Subject) {
    subject.put("k", "1").await;
    let deleted = subject.delete("k").await;
    assert_eq!(subject.get("k").await, None);
    let made = subject.put("k", "2").await;
    assert!(made > deleted);
    let kv = subject.get("k").await.expect("it was put");
    assert_eq!((kv.create_revision, kv.version), (made, 1));
}

pub async fn keys_and_values_are_any_bytes(subject: &Subject) {
    let odd = |byte: u8| Key::from([&*subject.key("odd"), &[byte]].concat());
    let every: Vec<u8> = (0..=u8::MAX).collect();
    for (byte, value) in [(0, &b""[..]), (1, b"\0"), (0xff, &every)] {
        subject.apply(Put::new(odd(byte), value)).await;
    }
    let found = subject.read(subject.all()).await;
    let keys: Vec<_> = found.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(keys, [odd(0), odd(1), odd(0xff)]);
    let values: Vec<_> = found.kvs.into_iter().map(|kv| kv.value).collect();
    let expected: [Value; 3] = [b"".into(), b"\0".into(), every.into()];
    assert_eq!(values, expected);
}

pub async fn every_revision_reads_as_it_was(subject: &Subject) {
    let first = subject.put("a", "1").await;
    let second = subject.put("b", "1").await;
    let third = subject.put("a", "2").await;
    let fourth = subject.delete("b").await;
    let fifth = subject.put("c", "1").await;
    let expected: [(Revision, &[(&str, &str)]); 5] = [
        (first, &[("a", "1")]),
        (second, &[("a", "1"), ("b", "1")]),
        (third, &[("a", "2"), ("b", "1")]),
        (fourth, &[("a", "2")]),
        (fifth, &[("a", "2"), ("c", "1")]),
    ];
    for (revision, expected) in expected {
        let found = subject
            .read(Range::new(subject.all()).revision(revision))
            .await;
        let names = subject.names(&found.kvs);
        let values = found.kvs.iter().map(|kv| kv.value.to_string());
        let pairs: Vec<_> = names.into_iter().zip(values).collect();
        let expected = expected
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected.collect::<Vec<_>>(), "at {revision}");
        assert!(
            found.header.revision >= fifth,
            "the header tells the present"
        );
    }
}

pub async fn a_read_at_a_future_revision_is_refused(subject: &Subject) {
    subject.put("k", "v").await;
    let far = Range::new(subject.key("k")).revision(Revision(i64::MAX / 2));
    let answer = subject.backend().range(far).await;
    assert_refused(answer, ErrorKind::InvalidArgument, FUTURE);
}

pub async fn a_range_holds_its_first_key_and_not_its_end(subject: &Subject) {
    for name in ["a", "b", "ba", "c", "d"] {
        subject.put(name, "v").await;
    }
    let found = subject.read(subject.between("b", "d")).await;
    assert_eq!(subject.names(&found.kvs), ["b", "ba", "c"]);
    let found = subject.read(KeyRange::prefix(subject.key("b"))).await;
    assert_eq!(subject.names(&found.kvs), ["b", "ba"]);
}

pub async fn a_range_whose_end_is_not_above_its_start_is_empty(subject: &Subject) {
    subject.put("a", "v").await;
    subject.put("b", "v").await;
    for end in ["a", "b"] {
        let found = subject.read(subject.between("b", end)).await;
        assert_eq!((found.kvs.len(), found.count), (0, 0), "before {end}");
    }
}

pub async fn a_range_without_an_end_goes_on_to_the_last_key(subject: &Subject) {
    for name in ["a", "b", "c"] {
        subject.put(name, "v").await;
    }
    let found = subject.read(KeyRange::from(subject.key("b"))).await;
    let own = found
        .kvs
        .iter()
        .filter(|kv| subject.all().contains(&kv.key));
    assert_eq!(subject.names(own), ["b", "c"]);
    let found = subject.read(KeyRange::all()).await;
    let own = found
        .kvs
        .iter()
        .filter(|kv| subject.all().contains(&kv.key));
    assert_eq!(subject.names(own), ["a", "b", "c"]);
}

pub async fn a_limit_leaves_the_count_alone_and_tells_of_more(subject: &Subject) {
    for name in ["a", "b", "c"] {
        subject.put(name, "v").await;
    }
    for (limit, kept, more) in [
        (1, 1, true),
        (2, 2, true),
        (3, 3, false),
        (4, 3, false),
        (0, 3, false),
    ] {
        let found = subject.read(Range::new(subject.all()).limit(limit)).await;
        assert_eq!(
            (found.kvs.len(), found.more, found.count),
            (kept, more, 3),
            "limit {limit}"
        );
    }
}

pub async fn pages_by_limit_and_revision_make_up_the_whole(subject: &Subject) {
    for name in ["a", "b", "c", "d", "e"] {
        subject.put(name, "v").await;
    }
    let mut page = subject.read(Range::new(subject.all()).limit(2)).await;
    let at = page.header.revision;
    subject.delete("d").await;
    let mut names = subject.names(&page.kvs);
    while page.more {
        let last = page
            .kvs
            .last()
            .expect("a page that is not the last has keys");
        let next = Key::from([&*last.key, b"\0"].concat());
        let rest = KeyRange {
            start: next,
            end: subject.all().end,
        };
        page = subject.read(Range::new(rest).limit(2).revision(at)).await;
        names.extend(subject.names(&page.kvs));
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

pub async fn a_range_is_sorted_by_each_target_in_both_directions(subject: &Subject) {
    for (name, value) in [
        ("c", "2"),
        ("a", "3"),
        ("b", "1"),
        ("a", "3"),
        ("a", "3"),
        ("c", "2"),
    ] {
        subject.put(name, value).await;
    }
    let expected = [
        (SortBy::Key, ["a", "b", "c"]),
        (SortBy::CreateRevision, ["c", "a", "b"]),
        (SortBy::ModRevision, ["b", "a", "c"]),
        (SortBy::Value, ["b", "c", "a"]),
        (SortBy::Version, ["b", "c", "a"]),
    ];
    for (by, mut names) in expected {
        let found = subject
            .read(Range::new(subject.all()).order(by, Order::Ascending))
            .await;
        assert_eq!(subject.names(&found.kvs), names, "by {by:?}");
        names.reverse();
        let found = subject
            .read(Range::new(subject.all()).order(by, Order::Descending))
            .await;
        assert_eq!(subject.names(&found.kvs), names, "by {by:?}, descending");
    }
}

pub async fn a_sort_comes_before_the_limit(subject: &Subject) {
    for name in ["a", "c", "b"] {
        subject.put(name, "v").await;
    }
    let newest = Range::new(subject.all()).order(SortBy::ModRevision, Order::Descending);
    let found = subject.read(newest.limit(2)).await;
    assert_eq!(subject.names(&found.kvs), ["b", "c"]);
    assert!(found.more && found.count == 3);
}

pub async fn keys_only_leaves_the_values_out(subject: &Subject) {
    let revision = subject.put("k", "v").await;
    let found = subject.read(Range::new(subject.all()).keys_only()).await;
    let kv = &found.kvs[0];
    assert_eq!(
        (&kv.value, kv.mod_revision, kv.version),
        (&Value::default(), revision, 1)
    );
}

pub async fn count_only_returns_the_count_alone(subject: &Subject) {
    let first = subject.put("a", "v").await;
    subject.put("b", "v").await;
    let count = Range::new(subject.all()).count_only();
    let found = subject.read(count.clone().limit(1)).await;
    assert_eq!((found.kvs.len(), found.count, found.more), (0, 2, false));
    assert_eq!(subject.read(count.revision(first)).await.count, 1);
}

pub async fn revision_bounds_leave_keys_out_but_not_of_the_count(subject: &Subject) {
    let a = subject.put("a", "v").await;
    let b = subject.put("b", "v").await;
    let c = subject.put("c", "v").await;
    let a2 = subject.put("a", "w").await;
    let all = || Range::new(subject.all());
    let expected: [(Range, &[&str]); 7] = [
        (all().min_mod_revision(c), &["a", "c"]),
        (all().max_mod_revision(c), &["b", "c"]),
        (all().min_mod_revision(b).max_mod_revision(b), &["b"]),
        (all().min_create_revision(b), &["b", "c"]),
        (all().max_create_revision(b), &["a", "b"]),
        (all().max_create_revision(a).min_mod_revision(a2), &["a"]),
        (all().min_mod_revision(a2.next()), &[]),
    ];
    for (range, names) in expected {
        let found = subject.read(range.clone()).await;
        assert_eq!(subject.names(&found.kvs), names, "{range:?}");
        assert_eq!((found.count, found.more), (3, false), "{range:?}");
    }
}

pub async fn bounds_come_before_the_limit(subject: &Subject) {
    subject.put("a", "v").await;
    let b = subject.put("b", "v").await;
    subject.put("c", "v").await;
    let from_b = Range::new(subject.all()).min_mod_revision(b);
    let found = subject.read(from_b.clone().limit(2)).await;
    assert_eq!(
        (subject.names(&found.kvs), found.more),
        (vec!["b".into(), "c".into()], false)
    );
    let found = subject.read(from_b.limit(1)).await;
    assert_eq!(
        (subject.names(&found.kvs), found.more),
        (vec!["b".into()], true)
    );
}

pub async fn a_serializable_read_comes_to_see_what_was_written(subject: &Subject) {
    let revision = subject.put("k", "v").await;
    let read = Range::new(subject.key("k")).serializable();
    let mut found = subject.read(read.clone()).await;
    while found.header.revision < revision {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        found = subject.read(read.clone()).await;
    }
    assert_eq!(found.count, 1);
}

pub async fn no_key_at_all_is_refused(subject: &Subject) {
    let text = "etcdserver: key is not provided";
    let answer = subject.backend().range(Range::new("")).await;
    assert_refused(answer, ErrorKind::InvalidArgument, text);
    let answer = subject.attempt(Put::new("", "v")).await;
    assert_refused(answer, ErrorKind::InvalidArgument, text);
    let answer = subject.attempt(Delete::new("")).await;
    assert_refused(answer, ErrorKind::InvalidArgument, text);
}

pub async fn every_answer_names_the_cluster_the_member_and_a_term(subject: &Subject) {
    let (_, written) = subject.apply(Put::new(subject.key("k"), "v")).await;
    let read = subject.read(subject.key("k")).await.header;
    assert_eq!(written.cluster_id, read.cluster_id);
    assert!(read.cluster_id != 0 && read.member_id != 0 && read.raft_term > 0);
    assert!(read.revision >= written.revision);
}

pub async fn a_compaction_refuses_older_reads_and_no_others(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    let third = subject.put("k", "3").await;
    let header = subject.backend().compact(second, true).await.unwrap();
    assert_eq!(header.revision, third, "a compaction makes no revision");
    let at = |revision| {
        subject
            .backend()
            .range(Range::new(subject.key("k")).revision(revision))
    };
    assert_refused(at(first).await, ErrorKind::Compacted, COMPACTED);
    for (revision, value) in [(second, "2"), (third, "3"), (Revision::ZERO, "3")] {
        assert_eq!(at(revision).await.unwrap().kvs[0].value, value);
    }
}

pub async fn a_compaction_keeps_what_stood_at_its_revision(subject: &Subject) {
    subject.put("kept", "v").await;
    subject.put("gone", "v").await;
    let at = subject.delete("gone").await;
    subject.put("new", "v").await;
    subject.backend().compact(at, true).await.unwrap();
    let found = subject.read(Range::new(subject.all()).revision(at)).await;
    assert_eq!(subject.names(&found.kvs), ["kept"]);
    let found = subject.read(subject.all()).await;
    assert_eq!(subject.names(&found.kvs), ["kept", "new"]);
    assert_eq!(found.kvs[0].version, 1);
}

pub async fn a_compaction_goes_forward_and_not_beyond_the_present(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    let compact = |revision| subject.backend().compact(revision, false);
    compact(second).await.unwrap();
    assert_refused(compact(second).await, ErrorKind::Compacted, COMPACTED);
    assert_refused(compact(first).await, ErrorKind::Compacted, COMPACTED);
    let beyond = compact(second.next()).await;
    assert_refused(beyond, ErrorKind::InvalidArgument, FUTURE);
}

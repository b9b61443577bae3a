//! Watches: from where, of what, and in which order.

use std::{collections::HashSet, time::Duration};

use futures_util::StreamExt as _;

use super::{
    Subject,
    subject::{brief, soon},
};
use crate::{ErrorKind, Event, KeyRange, Op, Revision, Txn, WatchRequest};

pub async fn a_watch_tells_every_change_after_it_was_opened(subject: &Subject) {
    let before = subject.put("k", "1").await;
    let mut watched = subject.watch(subject.key("k")).await;
    assert!(
        watched.created.revision >= before,
        "created at the present revision"
    );
    let put = subject.put("k", "2").await;
    let deleted = subject.delete("k").await;
    let told = watched.events(2).await;
    let Event::Put { kv, prev: None } = &told[0] else {
        panic!("a put, not {:?}", told[0]);
    };
    assert_eq!(
        (&kv.key, kv.version, kv.mod_revision),
        (&subject.key("k"), 2, put)
    );
    assert_eq!(kv.value, "2");
    let expected = Event::Delete {
        key: subject.key("k"),
        revision: deleted,
        prev: None,
    };
    assert_eq!(told[1], expected);
}

pub async fn a_watch_from_the_past_replays_it_and_goes_on(subject: &Subject) {
    subject.put("k", "1").await;
    let start = subject.put("k", "2").await;
    subject.put("other", "v").await;
    subject.delete("k").await;
    let request = WatchRequest::new(subject.key("k")).start(start);
    let mut watched = subject.watch(request).await;
    let told = watched.events(2).await;
    assert_eq!(brief(subject, &told), ["+k", "-k"]);
    assert_eq!(told[0].revision(), start);
    let again = subject.put("k", "3").await;
    assert_eq!(watched.events(1).await[0].revision(), again);
}

pub async fn a_watch_from_the_future_begins_there(subject: &Subject) {
    let now = subject.put("k", "1").await;
    // Other cases may write meanwhile: the start only has to be above some of the next revisions.
    let start = Revision(now.0 + 3);
    let request = WatchRequest::new(subject.key("k")).start(start);
    let mut watched = subject.watch(request).await;
    let mut last = now;
    let mut due = Vec::new();
    while due.len() < 2 {
        last = subject.put("k", "v").await;
        due.extend((last >= start).then_some(last));
    }
    let told: Vec<_> = watched
        .events(2)
        .await
        .iter()
        .map(Event::revision)
        .collect();
    assert_eq!(told, due, "after {last}");
}

pub async fn a_watch_of_a_range_tells_of_its_keys_alone(subject: &Subject) {
    let start = subject.put("a", "v").await;
    let request = WatchRequest::new(subject.between("b", "d")).start(start);
    let mut watched = subject.watch(request).await;
    let mut rest = subject.watch(KeyRange::from(subject.key("c"))).await;
    for name in ["b", "d", "c", "bb"] {
        subject.put(name, "v").await;
    }
    assert_eq!(
        brief(subject, &watched.events(3).await),
        ["+b", "+c", "+bb"]
    );
    // A range without an end holds other cases' keys too.
    let mut own = Vec::new();
    while own.len() < 2 {
        let told = rest.batch().await;
        own.extend(
            told.into_iter()
                .filter(|event| subject.all().contains(event.key())),
        );
    }
    assert_eq!(brief(subject, &own), ["+d", "+c"]);
}

pub async fn a_watch_can_tell_what_stood_before(subject: &Subject) {
    let request = WatchRequest::new(subject.all()).prev_kv();
    let mut watched = subject.watch(request.clone()).await;
    let start = subject.put("k", "1").await;
    subject.put("k", "2").await;
    subject.delete("k").await;
    subject.put("k", "3").await;
    let values = |events: &[Event]| -> Vec<Option<String>> {
        let prev = |event: &Event| match event {
            Event::Put { prev, .. } | Event::Delete { prev, .. } => {
                prev.as_ref().map(|prev| prev.value.to_string())
            }
        };
        events.iter().map(prev).collect()
    };
    let expected = [None, Some("1".to_owned()), Some("2".to_owned()), None];
    assert_eq!(values(&watched.events(4).await), expected);
    let mut late = subject.watch(request.start(start)).await;
    assert_eq!(values(&late.events(4).await), expected);
}

pub async fn a_watch_can_leave_out_puts_or_deletions(subject: &Subject) {
    let all = || WatchRequest::new(subject.all());
    let mut puts = subject.watch(all().puts_only()).await;
    let mut deletes = subject.watch(all().deletes_only()).await;
    let start = subject.put("a", "v").await;
    subject.delete("a").await;
    subject.put("b", "v").await;
    subject.delete("b").await;
    assert_eq!(brief(subject, &puts.events(2).await), ["+a", "+b"]);
    assert_eq!(brief(subject, &deletes.events(2).await), ["-a", "-b"]);
    let mut late = subject.watch(all().start(start).deletes_only()).await;
    assert_eq!(brief(subject, &late.events(2).await), ["-a", "-b"]);
}

pub async fn the_events_of_a_transaction_come_together_and_in_order(subject: &Subject) {
    let start = subject.put("gone", "v").await.next();
    let mut watched = subject.watch(subject.all()).await;
    let txn = Txn::new()
        .then(Op::put(subject.key("b"), "v"))
        .then(Op::delete(subject.key("gone")))
        .then(Txn::new().then(Op::put(subject.key("c"), "v")))
        .then(Op::put(subject.key("a"), "v"));
    let revision = subject.txn(txn).await.header.revision;
    let expected = ["+b", "-gone", "+c", "+a"];
    let told = watched.batch().await;
    assert_eq!(brief(subject, &told), expected);
    assert!(told.iter().all(|event| event.revision() == revision));
    let request = WatchRequest::new(subject.all()).start(start);
    let replayed = subject.watch(request).await.batch().await;
    assert_eq!(brief(subject, &replayed), expected);
}

pub async fn a_transaction_of_many_writes_is_one_batch(subject: &Subject) {
    let mut watched = subject.watch(subject.all()).await;
    let txn = (0..128).fold(Txn::new(), |txn, at| {
        txn.then(Op::put(
            subject.key(&format!("{at:03}")),
            vec![b'v'; 8 * 1024],
        ))
    });
    subject.txn(txn).await;
    assert_eq!(watched.batch().await.len(), 128);
}

pub async fn events_come_in_the_order_of_their_revisions(subject: &Subject) {
    let start = subject.put("k", "0").await;
    let request = WatchRequest::new(subject.all()).start(start);
    let mut watched = subject.watch(request).await;
    for round in 0..50 {
        subject.put(&format!("k{}", round % 7), "v").await;
    }
    let told = watched.events(51).await;
    assert!(
        told.windows(2)
            .all(|pair| pair[0].revision() < pair[1].revision())
    );
}

pub async fn watches_do_not_disturb_each_other(subject: &Subject) {
    let mut kept = Vec::new();
    for at in 0..20 {
        kept.push(subject.watch(subject.key(&format!("{at}"))).await);
    }
    let dropped: Vec<_> = kept.drain(10..).collect();
    drop(dropped);
    for at in 0..20 {
        subject.put(&format!("{at}"), "v").await;
    }
    for (at, mut watched) in kept.into_iter().enumerate() {
        assert_eq!(brief(subject, &watched.events(1).await), [format!("+{at}")]);
    }
}

pub async fn a_request_for_progress_is_answered_without_events(subject: &Subject) {
    let opened = subject.put("k", "v").await;
    let mut watched = subject.watch(subject.key("k")).await;
    // etcd leaves a request unanswered that comes while a watch of the stream catches up.
    let answer = loop {
        watched.stream.request_progress();
        let patience = Duration::from_millis(500);
        match tokio::time::timeout(patience, watched.stream.next()).await {
            Ok(answer) => break answer.expect("the watch goes on").unwrap(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(answer.events.is_empty());
    assert!(answer.header.revision >= opened);
    subject.put("k", "w").await;
    assert_eq!(brief(subject, &watched.events(1).await), ["+k"]);
}

pub async fn a_watch_of_no_key_is_refused(subject: &Subject) {
    let error = subject
        .refused_watch(WatchRequest::new(subject.between("b", "a")))
        .await;
    assert!(!error.is_retryable(), "{error}");
}

pub async fn a_watch_from_before_a_compaction_tells_the_oldest_revision_kept(subject: &Subject) {
    let first = subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    subject.put("k", "3").await;
    let mut early = subject
        .watch(WatchRequest::new(subject.key("k")).start(first))
        .await;
    assert_eq!(early.events(3).await.len(), 3);
    subject.backend().compact(second, true).await.unwrap();

    let request = WatchRequest::new(subject.key("k")).start(first);
    let error = subject.refused_watch(request).await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (ErrorKind::Compacted, text)
    );
    assert_eq!(error.oldest_revision(), Some(second));

    let request = WatchRequest::new(subject.key("k")).start(second);
    let told = subject.watch(request).await.events(2).await;
    assert_eq!(told[0].revision(), second, "what is kept is told");
    subject.put("k", "4").await;
    assert_eq!(
        early.events(1).await.len(),
        1,
        "who had caught up misses nothing"
    );
}

pub async fn what_stood_before_is_left_out_where_it_is_compacted_away(subject: &Subject) {
    subject.put("k", "1").await;
    let second = subject.put("k", "2").await;
    subject.put("k", "3").await;
    subject.backend().compact(second, true).await.unwrap();
    let request = WatchRequest::new(subject.key("k")).start(second).prev_kv();
    let told = subject.watch(request).await.events(2).await;
    let prevs: HashSet<_> = told
        .iter()
        .map(|event| match event {
            Event::Put { prev, .. } => prev.as_ref().map(|kv| kv.value.to_string()),
            Event::Delete { .. } => panic!("nothing was deleted"),
        })
        .collect();
    assert_eq!(prevs, HashSet::from([None, Some("2".to_owned())]));
}

pub async fn a_dropped_watch_leaves_the_store_in_order(subject: &Subject) {
    let watched = subject.watch(subject.key("k")).await;
    drop(watched);
    let revision = subject.put("k", "v").await;
    let request = WatchRequest::new(subject.key("k")).start(revision);
    let mut watched = subject.watch(request).await;
    let told = soon(watched.events(1)).await;
    assert_eq!(brief(subject, &told), ["+k"]);
}

use futures_util::StreamExt;

use super::*;
use crate::backend::recorder::{Recorder, header, kv};

fn namespace(prefix: &[u8]) -> (Arc<Recorder>, Namespace) {
    let recorder = Recorder::new();
    let namespace = Namespace::new(Arc::new(Arc::clone(&recorder)), prefix);
    (recorder, namespace)
}

#[tokio::test]
async fn ranges_stay_under_the_prefix() {
    let (recorder, namespace) = namespace(b"p/");
    for (asked, sent) in [
        (KeyRange::key("a"), KeyRange::key("p/a")),
        (KeyRange::between("a", "c"), KeyRange::between("p/a", "p/c")),
        (KeyRange::prefix("a/"), KeyRange::prefix("p/a/")),
        (KeyRange::from("a"), KeyRange::between("p/a", "p0")),
        (KeyRange::all(), KeyRange::between(b"p/\0", "p0")),
        (KeyRange::key(""), KeyRange::key("")),
        (KeyRange::from(""), KeyRange::key("")),
    ] {
        let request = Range::new(asked).limit(7).serializable();
        namespace.range(request).await.unwrap();
        assert_eq!(
            recorder.lock().ranges.pop(),
            Some(Range::new(sent).limit(7).serializable())
        );
    }
}

#[tokio::test]
async fn a_prefix_without_a_successor_leaves_ranges_without_an_end() {
    let (recorder, namespace) = namespace(b"\xff\xff");
    namespace.range(Range::new(KeyRange::all())).await.unwrap();
    assert_eq!(
        recorder.lock().ranges[0].keys,
        KeyRange::from(b"\xff\xff\0")
    );
}

#[tokio::test]
async fn an_empty_prefix_changes_nothing() {
    let (recorder, namespace) = namespace(b"");
    recorder.lock().kvs = vec![kv("a")];
    let answer = namespace.range(Range::new(KeyRange::all())).await.unwrap();
    assert_eq!(answer.kvs, [kv("a")]);
    assert_eq!(recorder.lock().ranges[0].keys, KeyRange::all());
}

#[tokio::test]
async fn every_key_of_a_transaction_is_prefixed_and_stripped() {
    let (recorder, namespace) = namespace(b"p/");
    let txn = |prefix: &str| {
        let key = |name: &str| format!("{prefix}{name}");
        Txn::new()
            .when(Compare::absent(key("a")))
            .then(Op::put(key("b"), "1"))
            .then(
                Txn::new()
                    .when(Compare::value(KeyRange::prefix(key("c/"))).eq("v"))
                    .then(Op::delete(KeyRange::prefix(key("d/")))),
            )
            .or_else(Op::range(key("e")))
    };
    let result = |prefix: &str| {
        let kv = |name: &str| kv(format!("{prefix}{name}"));
        let nested = TxnResult {
            header: header(0),
            succeeded: true,
            results: vec![
                OpResult::Delete {
                    deleted: 1,
                    prevs: vec![kv("d/1")],
                },
                OpResult::Range(RangeResult {
                    kvs: vec![kv("e")],
                    ..RangeResult::default()
                }),
            ],
        };
        TxnResult {
            header: header(9),
            succeeded: true,
            results: vec![
                OpResult::Put {
                    prev: Some(kv("b")),
                },
                OpResult::Put { prev: None },
                OpResult::Txn(nested),
            ],
        }
    };
    recorder.lock().txn_result = result("p/");
    let answer = namespace.txn(txn("")).await.unwrap();
    assert_eq!(recorder.lock().txns, [txn("p/")]);
    assert_eq!(answer, result(""));
}

#[tokio::test]
async fn an_empty_key_is_left_for_the_store_to_refuse() {
    let (recorder, namespace) = namespace(b"p/");
    let txn = Txn::new()
        .when(Compare::present(""))
        .then(Op::put("", "1"))
        .then(Op::delete(""));
    namespace.txn(txn.clone()).await.unwrap();
    assert_eq!(recorder.lock().txns, [txn]);
}

#[tokio::test]
async fn a_watch_of_no_key_begins_at_the_smallest() {
    let (recorder, namespace) = namespace(b"p/");
    let request = WatchRequest::new(KeyRange::from("")).start(Revision(4));
    namespace.watch(request).await.unwrap();
    let sent = WatchRequest::new(KeyRange::between(b"p/\0", "p0")).start(Revision(4));
    assert_eq!(recorder.lock().watches, [sent]);
}

#[tokio::test]
async fn events_are_stripped() {
    let (recorder, namespace) = namespace(b"p/");
    let mut stream = namespace
        .watch(WatchRequest::new(KeyRange::prefix("a")))
        .await
        .unwrap()
        .stream;
    let batch = |prefix: &str| WatchBatch {
        header: header(12),
        events: vec![
            Event::Put {
                kv: kv(format!("{prefix}a1")),
                prev: Some(kv(format!("{prefix}a1"))),
            },
            Event::Delete {
                key: format!("{prefix}a2").into(),
                revision: Revision(12),
                prev: None,
            },
        ],
    };
    recorder.tell(batch("p/"));
    assert_eq!(stream.next().await.unwrap().unwrap(), batch(""));
    stream.request_progress();
    stream.distrust();
    let recorded = recorder.lock();
    assert_eq!((recorded.progress_requests, recorded.distrusted), (1, 1));
}

#[tokio::test]
async fn a_key_from_elsewhere_is_an_internal_error() {
    let (recorder, namespace) = namespace(b"p/");
    for outside in ["q/a", "p", "p/"] {
        recorder.lock().kvs = vec![kv(outside)];
        let error = namespace.range(Range::prefix("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    let watching = namespace.watch(WatchRequest::new("a")).await.unwrap();
    let mut stream = watching.stream;
    recorder.tell(WatchBatch {
        header: header(3),
        events: vec![Event::Put {
            kv: kv("q/a"),
            prev: None,
        }],
    });
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_lease_shows_the_keys_of_the_namespace_alone() {
    let (recorder, namespace) = namespace(b"p/");
    recorder.lock().lease_keys = vec!["p/a".into(), "q/b".into(), "p/".into(), "p/c".into()];
    let status = namespace.lease_status(LeaseId(1), true).await.unwrap();
    assert_eq!(status.keys, ["a", "c"]);
}

#[tokio::test]
async fn namespaces_nest() {
    let (recorder, outer) = namespace(b"p/");
    let inner = Namespace::new(Arc::new(outer), "q/");
    recorder.lock().kvs = vec![kv("p/q/a")];
    let answer = inner.range(Range::new(KeyRange::all())).await.unwrap();
    assert_eq!(answer.kvs, [kv("a")]);
    assert_eq!(
        recorder.lock().ranges[0].keys,
        KeyRange::between(b"p/q/\0", "p/q0")
    );
}

//! What clients send, good and bad, is answered as etcd answers it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::time::Duration;

use quorate_server::{Error, Server};
use quorate_wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest, MemberAddRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    request_op::Request, response_op::Response, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(20);

async fn channel(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(server.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// A stream of watches, and what it tells.
struct Watches {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watches {
    async fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(1 << 30);
        let answers = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    async fn send(&self, request: RequestUnion) {
        let request_union = Some(request);
        self.requests
            .send(WatchRequest { request_union })
            .await
            .unwrap();
    }

    async fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request)).await;
    }

    async fn cancel(&self, watch_id: i64) {
        let request = WatchCancelRequest { watch_id };
        self.send(RequestUnion::CancelRequest(request)).await;
    }

    async fn progress(&self) {
        let request = WatchProgressRequest {};
        self.send(RequestUnion::ProgressRequest(request)).await;
    }

    async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        next.expect("the stream is silent").unwrap().unwrap()
    }
}

fn watch(key: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        ..WatchCreateRequest::default()
    }
}

#[tokio::test]
async fn requests_that_cannot_be_served_get_etcd_s_codes_and_texts() {
    let server = Server::start().await.unwrap();
    let mut kv = KvClient::new(channel(&server).await);
    let empty = (Code::InvalidArgument, "etcdserver: key is not provided");
    let refused = kv.put(PutRequest::default()).await.unwrap_err();
    assert_eq!(told(&refused), empty);
    let refused = kv.range(RangeRequest::default()).await.unwrap_err();
    assert_eq!(told(&refused), empty);
    let request = DeleteRangeRequest::default();
    assert_eq!(told(&kv.delete_range(request).await.unwrap_err()), empty);

    let request = PutRequest {
        lease: 77,
        ignore_value: true,
        key: "absent".into(),
        ..PutRequest::default()
    };
    // The lease is looked for before the key.
    assert_eq!(
        told(&kv.put(request.clone()).await.unwrap_err()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let request = PutRequest {
        lease: 0,
        ..request
    };
    assert_eq!(
        told(&kv.put(request).await.unwrap_err()),
        (Code::InvalidArgument, "etcdserver: key not found")
    );

    let op = |request| RequestOp {
        request: Some(request),
    };
    let twice = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("k", "1"))),
            op(Request::RequestPut(put("k", "2"))),
        ],
        ..TxnRequest::default()
    };
    assert_eq!(
        told(&kv.txn(twice).await.unwrap_err()),
        (
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request"
        )
    );
    let nothing = TxnRequest {
        success: vec![RequestOp { request: None }],
        ..TxnRequest::default()
    };
    assert_eq!(
        kv.txn(nothing).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let future = CompactionRequest {
        revision: 9,
        physical: false,
    };
    assert_eq!(
        told(&kv.compact(future).await.unwrap_err()),
        (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision"
        )
    );
    let unsortable = RangeRequest {
        key: "k".into(),
        sort_target: 9,
        ..RangeRequest::default()
    };
    assert_eq!(
        kv.range(unsortable).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_in_etcd_s_words() {
    let server = Server::start().await.unwrap();
    let mut kv = KvClient::new(channel(&server).await);
    let refused = kv.put(put("k", &"v".repeat(1536 * 1024))).await;
    assert_eq!(
        told(&refused.unwrap_err()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let refused = kv.put(put("k", &"v".repeat(3 << 20))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let text = refused.message();
    assert!(
        text.starts_with("grpc: received message larger than max (3145"),
        "{text}"
    );
    kv.put(put("k", &"v".repeat(1535 * 1024))).await.unwrap();
}

#[tokio::test]
async fn inner_answers_bear_the_revision_of_their_turn() {
    let server = Server::start().await.unwrap();
    let mut kv = KvClient::new(channel(&server).await);
    kv.put(put("a", "1")).await.unwrap();
    let op = |request| RequestOp {
        request: Some(request),
    };
    let range = || RangeRequest {
        key: "a".into(),
        ..RangeRequest::default()
    };
    let absent = DeleteRangeRequest {
        key: "absent".into(),
        ..DeleteRangeRequest::default()
    };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestRange(range())),
            op(Request::RequestDeleteRange(absent)),
            op(Request::RequestPut(put("a", "2"))),
            op(Request::RequestRange(range())),
        ],
        ..TxnRequest::default()
    };
    let answer = kv.txn(txn).await.unwrap().into_inner();
    let revisions = answer.responses.into_iter().map(|response| {
        let header = match response.response.unwrap() {
            Response::ResponseRange(answer) => answer.header,
            Response::ResponseDeleteRange(answer) => answer.header,
            Response::ResponsePut(answer) => answer.header,
            Response::ResponseTxn(answer) => answer.header,
        };
        header.unwrap().revision
    });
    assert_eq!(revisions.collect::<Vec<_>>(), [2, 2, 3, 3]);
}

#[tokio::test]
async fn leases_have_at_least_a_second_and_unknown_ones_no_time() {
    let server = Server::start().await.unwrap();
    let mut lease = LeaseClient::new(channel(&server).await);
    let negative = LeaseGrantRequest { ttl: -5, id: 7 };
    let granted = lease.lease_grant(negative).await.unwrap().into_inner();
    assert_eq!((granted.id, granted.ttl), (7, 1));
    let endless = LeaseGrantRequest {
        ttl: i64::MAX,
        id: 0,
    };
    assert_eq!(
        told(&lease.lease_grant(endless).await.unwrap_err()),
        (Code::OutOfRange, "etcdserver: too large lease TTL")
    );
    let taken = LeaseGrantRequest { ttl: 60, id: 7 };
    assert_eq!(
        told(&lease.lease_grant(taken).await.unwrap_err()),
        (Code::FailedPrecondition, "etcdserver: lease already exists")
    );
    let unknown = LeaseTimeToLiveRequest { id: 8, keys: true };
    let left = lease.lease_time_to_live(unknown).await.unwrap();
    assert_eq!(left.into_inner().ttl, -1);
    let beats = tokio_stream::iter([8, 7].map(|id| LeaseKeepAliveRequest { id }));
    let mut answers = lease.lease_keep_alive(beats).await.unwrap().into_inner();
    for expected in [(8, 0), (7, 1)] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), expected);
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_lease_expires_with_its_keys_although_nobody_asks() {
    let server = Server::start().await.unwrap();
    let channel = channel(&server).await;
    let mut lease = LeaseClient::new(channel.clone());
    let granted = LeaseGrantRequest { ttl: 1, id: 7 };
    lease.lease_grant(granted).await.unwrap();
    let attached = PutRequest {
        lease: 7,
        ..put("k", "v")
    };
    KvClient::new(channel.clone()).put(attached).await.unwrap();
    let mut watches = Watches::open(&channel).await;
    watches.create(watch("k")).await;
    assert!(watches.next().await.created);
    let told = watches.next().await;
    assert_eq!((told.events.len(), told.events[0].r#type), (1, 1));
}

#[tokio::test]
async fn watches_get_ids_and_a_taken_one_is_refused() {
    let server = Server::start().await.unwrap();
    let mut watches = Watches::open(&channel(&server).await).await;
    for (asked, given) in [(0, 0), (2, 2), (0, 1), (0, 3)] {
        let request = WatchCreateRequest {
            watch_id: asked,
            ..watch("k")
        };
        watches.create(request).await;
        let created = watches.next().await;
        assert!(created.created && !created.canceled);
        assert_eq!(created.watch_id, given);
    }
    let taken = WatchCreateRequest {
        watch_id: 2,
        ..watch("k")
    };
    watches.create(taken).await;
    let refused = watches.next().await;
    assert_eq!(
        (refused.created, refused.canceled, refused.watch_id),
        (true, true, -1)
    );
    assert_eq!(
        refused.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    let backwards = WatchCreateRequest {
        range_end: "a".into(),
        ..watch("k")
    };
    watches.create(backwards).await;
    assert_eq!(
        watches.next().await.cancel_reason,
        "mvcc: watcher range is empty"
    );
}

#[tokio::test]
async fn a_cancelled_watch_ends_and_an_unknown_one_is_passed_over() {
    let server = Server::start().await.unwrap();
    let channel = channel(&server).await;
    let mut watches = Watches::open(&channel).await;
    watches.create(watch("k")).await;
    assert!(watches.next().await.created);
    watches.cancel(99).await;
    watches.cancel(0).await;
    let ended = watches.next().await;
    assert_eq!((ended.watch_id, ended.canceled), (0, true));
    KvClient::new(channel).put(put("k", "v")).await.unwrap();
    watches.progress().await;
    let progress = watches.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.unwrap().revision, 2);
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_created_and_then_cancelled() {
    let server = Server::start().await.unwrap();
    let channel = channel(&server).await;
    let mut kv = KvClient::new(channel.clone());
    for value in ["1", "2", "3"] {
        kv.put(put("k", value)).await.unwrap();
    }
    let compaction = CompactionRequest {
        revision: 4,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    let mut watches = Watches::open(&channel).await;
    let request = WatchCreateRequest {
        start_revision: 2,
        watch_id: 5,
        ..watch("k")
    };
    watches.create(request.clone()).await;
    let created = watches.next().await;
    assert!(created.created && !created.canceled);
    let ended = watches.next().await;
    assert_eq!(
        (ended.watch_id, ended.canceled, ended.compact_revision),
        (5, true, 4)
    );
    assert_eq!(ended.header.unwrap().revision, 0);

    // Until the client cancels it, the id stays taken.
    watches.create(request.clone()).await;
    let refused = watches.next().await;
    assert!(refused.cancel_reason.contains("duplicate"), "{refused:?}");
    watches.cancel(5).await;
    assert!(watches.next().await.canceled);

    let negative = WatchCreateRequest {
        start_revision: -3,
        ..request
    };
    watches.create(negative).await;
    let refused = watches.next().await;
    assert_eq!(
        (refused.created, refused.canceled, refused.watch_id),
        (true, true, -1)
    );
    assert_eq!(
        refused.cancel_reason,
        "etcdserver: mvcc: required revision has been compacted"
    );
}

#[tokio::test]
async fn a_quiet_watch_survives_the_compaction_of_what_does_not_concern_it() {
    let server = Server::start().await.unwrap();
    let channel = channel(&server).await;
    let mut watches = Watches::open(&channel).await;
    for key in ["k", "r/"] {
        let range_end = if key == "k" { "" } else { "r0" };
        let request = WatchCreateRequest {
            range_end: range_end.into(),
            ..watch(key)
        };
        watches.create(request).await;
        assert!(watches.next().await.created);
    }
    let mut kv = KvClient::new(channel);
    for _ in 0..5 {
        kv.put(put("other", "v")).await.unwrap();
    }
    let compaction = CompactionRequest {
        revision: 6,
        physical: false,
    };
    kv.compact(compaction).await.unwrap();
    for (id, key) in [(0, "k"), (1, "r/1")] {
        kv.put(put(key, "v")).await.unwrap();
        let told = watches.next().await;
        assert_eq!((told.watch_id, told.events.len()), (id, 1));
    }
}

#[tokio::test]
async fn a_large_revision_is_parted_for_who_wants_that_and_whole_for_others() {
    let server = Server::start().await.unwrap();
    let channel = channel(&server).await;
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(1 << 30);
    let big = "v".repeat(700 * 1024);
    for key in ["k/1", "k/2", "k/3", "k/4"] {
        kv.put(put(key, &big)).await.unwrap();
    }
    // One transaction that deletes them all makes events that carry all former values.
    let mut watches = Watches::open(&channel).await;
    for fragment in [true, false] {
        let request = WatchCreateRequest {
            range_end: "k0".into(),
            prev_kv: true,
            fragment,
            ..watch("k/")
        };
        watches.create(request).await;
        assert!(watches.next().await.created);
    }
    let all = DeleteRangeRequest {
        key: "k/".into(),
        range_end: "k0".into(),
        prev_kv: false,
    };
    kv.delete_range(all).await.unwrap();
    let mut pieces = Vec::new();
    let mut whole = 0;
    while pieces.iter().map(|&(events, _)| events).sum::<usize>() < 4 || whole < 4 {
        let told = watches.next().await;
        match told.watch_id {
            0 => pieces.push((told.events.len(), told.fragment)),
            _ => whole += told.events.len(),
        }
    }
    assert_eq!((pieces, whole), (vec![(2, true), (2, false)], 4));
}

#[tokio::test]
async fn a_quiet_watch_tells_its_progress_if_that_was_asked_for() {
    let builder = Server::builder().progress_interval(Duration::from_millis(50));
    let server = builder.start().await.unwrap();
    let channel = channel(&server).await;
    let mut watches = Watches::open(&channel).await;
    watches.create(watch("silent")).await;
    assert!(watches.next().await.created);
    let request = WatchCreateRequest {
        progress_notify: true,
        ..watch("k")
    };
    watches.create(request).await;
    assert!(watches.next().await.created);
    let mut kv = KvClient::new(channel);
    kv.put(put("other", "v")).await.unwrap();
    loop {
        let told = watches.next().await;
        assert_eq!((told.watch_id, told.events.len()), (1, 0));
        if told.header.unwrap().revision == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up_and_misses_nothing() {
    let server = Server::start().await.unwrap();
    let slow = channel(&server).await;
    let mut watches = Watches::open(&slow).await;
    watches.create(watch("k")).await;
    assert!(watches.next().await.created);
    let mut kv = KvClient::new(channel(&server).await);
    let value = "v".repeat(64 * 1024);
    for _ in 0..400 {
        kv.put(put("k", &value)).await.unwrap();
    }
    let mut expected = 2;
    while expected < 402 {
        for event in watches.next().await.events {
            assert_eq!(event.kv.unwrap().mod_revision, expected);
            expected += 1;
        }
    }
}

#[tokio::test]
async fn all_connections_and_streams_end_with_the_server_and_its_port_is_free() {
    let server = Server::start().await.unwrap();
    let address = server.addr().unwrap();
    let channel = channel(&server).await;
    let mut watches = Watches::open(&channel).await;
    watches.create(watch("k")).await;
    assert!(watches.next().await.created);
    // This one never says a word.
    let mut mute = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(PATIENCE, server.stop())
        .await
        .expect("the server does not stop");
    let end = tokio::time::timeout(PATIENCE, watches.answers.message()).await;
    assert!(end.expect("the stream goes on").is_err());
    let end = tokio::time::timeout(PATIENCE, mute.read(&mut [0; 8])).await;
    assert!(!matches!(end.expect("the connection stays"), Ok(1..)));
    let again = Server::builder().listen(address.to_string());
    assert_eq!(again.start().await.unwrap().addr(), Some(address));
}

#[tokio::test]
async fn several_servers_have_nothing_in_common() {
    let (one, two) = (
        Server::start().await.unwrap(),
        Server::start().await.unwrap(),
    );
    let mut kv = KvClient::new(channel(&one).await);
    kv.put(put("k", "v")).await.unwrap();
    let mut kv = KvClient::new(channel(&two).await);
    let request = RangeRequest {
        key: "k".into(),
        ..RangeRequest::default()
    };
    assert_eq!(kv.range(request).await.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn an_address_that_others_reach_has_to_be_allowed() {
    let open = Server::builder().listen("0.0.0.0:0");
    let refused = open.clone().start().await.unwrap_err();
    assert!(matches!(refused, Error::Remote { .. }));
    assert!(open.allow_remote().start().await.is_ok());
    let refused = Server::builder().listen("127.0.0.1").start().await;
    assert!(matches!(refused, Err(Error::Address { .. })));
    let server = Server::start().await.unwrap();
    let taken = Server::builder().listen(server.addr().unwrap().to_string());
    assert!(matches!(taken.start().await, Err(Error::Listen { .. })));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let server = Server::start().await.unwrap();
    let mut cluster = ClusterClient::new(channel(&server).await);
    let request = MemberAddRequest::default();
    let refused = cluster.member_add(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("only member"), "{refused}");
}

#[tokio::test]
async fn health_and_version_are_told_over_plain_http() {
    let server = Server::start().await.unwrap();
    for (path, expected) in [
        ("/health", r#"{"health":"true","reason":""}"#),
        (
            "/version",
            r#"{"etcdserver":"3.5.0","etcdcluster":"3.5.0"}"#,
        ),
    ] {
        let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(expected), "{answer}");
    }
}

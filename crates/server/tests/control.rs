//! Tests can make a server misbehave.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::time::{Duration, Instant};

use quorate_server::{Replies, Server};
use quorate_wire::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::mpsc::{self, Sender},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than a local call takes, and the time after which one counts as unanswered.
const A_WHILE: Duration = Duration::from_millis(300);

async fn server() -> (Server, Channel) {
    let server = Server::start().await.unwrap();
    let channel = connect(&server).await;
    (server, channel)
}

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

fn put(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..PutRequest::default()
    }
}

async fn exists(channel: &Channel, key: &str) -> bool {
    let request = RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    };
    let found = KvClient::new(channel.clone()).range(request).await;
    found.unwrap().into_inner().count > 0
}

async fn grant(channel: &Channel, id: i64, ttl: i64) {
    let request = LeaseGrantRequest { ttl, id };
    let mut leases = LeaseClient::new(channel.clone());
    leases.lease_grant(request).await.unwrap();
}

async fn time_to_live(channel: &Channel, id: i64) -> i64 {
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let mut leases = LeaseClient::new(channel.clone());
    let left = leases.lease_time_to_live(request).await.unwrap();
    left.into_inner().ttl
}

/// A watch of a key that was created.
async fn watch(channel: &Channel, key: &str) -> (Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (sender, receiver) = mpsc::channel(1);
    let request = WatchCreateRequest {
        key: key.to_owned().into(),
        ..WatchCreateRequest::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(request));
    sender.send(WatchRequest { request_union }).await.unwrap();
    let mut watches = WatchClient::new(channel.clone());
    let stream = watches.watch(ReceiverStream::new(receiver)).await.unwrap();
    let mut stream = stream.into_inner();
    assert!(stream.message().await.unwrap().unwrap().created);
    (sender, stream)
}

#[tokio::test]
async fn time_jumps_and_leases_that_are_due_have_ended() {
    let (server, channel) = server().await;
    grant(&channel, 1, 60).await;
    grant(&channel, 2, 600).await;
    server.control().advance(Duration::from_secs(100));
    assert_eq!(time_to_live(&channel, 1).await, -1);
    let left = time_to_live(&channel, 2).await;
    assert!((490..=500).contains(&left), "{left}");

    // The task that ends leases knows of the jump as well.
    let put = PutRequest {
        lease: 3,
        ..put("k")
    };
    grant(&channel, 3, 3600).await;
    KvClient::new(channel.clone()).put(put).await.unwrap();
    let (_requests, mut changes) = watch(&channel, "k").await;
    server.control().advance(Duration::from_millis(3_599_000));
    let deleted = timeout(PATIENCE, changes.message()).await;
    let deleted = deleted.expect("the lease goes on").unwrap().unwrap();
    assert_eq!(deleted.events.len(), 1);
}

#[tokio::test]
async fn a_lease_can_be_ended() {
    let (server, channel) = server().await;
    grant(&channel, 7, 600).await;
    assert!(server.control().expire(7));
    assert!(!server.control().expire(7));
    assert_eq!(time_to_live(&channel, 7).await, -1);
}

#[tokio::test]
async fn history_can_be_compacted() {
    let (server, channel) = server().await;
    let mut kv = KvClient::new(channel);
    for _ in 0..3 {
        kv.put(put("k")).await.unwrap();
    }
    assert!(server.control().compact(3));
    assert!(!server.control().compact(3));
    assert!(!server.control().compact(99));
    let request = RangeRequest {
        key: "k".into(),
        revision: 2,
        ..RangeRequest::default()
    };
    let refused = kv.range(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn streams_are_cut_and_their_connection_stays() {
    let (server, channel) = server().await;
    grant(&channel, 7, 600).await;
    let (_requests, mut changes) = watch(&channel, "k").await;
    let (beats, receiver) = mpsc::channel(1);
    beats.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let mut leases = LeaseClient::new(channel.clone());
    let kept = leases.lease_keep_alive(ReceiverStream::new(receiver)).await;
    let mut kept = kept.unwrap().into_inner();
    assert_eq!(kept.message().await.unwrap().unwrap().ttl, 600);

    server.control().cut_streams();
    let cut = timeout(PATIENCE, changes.message()).await;
    assert_eq!(
        cut.expect("it goes on").unwrap_err().code(),
        Code::Unavailable
    );
    let cut = timeout(PATIENCE, kept.message()).await;
    assert_eq!(
        cut.expect("it goes on").unwrap_err().code(),
        Code::Unavailable
    );
    let busy = timeout(A_WHILE, server.idle(Duration::ZERO)).await;
    assert!(busy.is_err(), "the connection was cut too");
    let (_requests, mut changes) = watch(&channel, "k").await;
    KvClient::new(channel).put(put("k")).await.unwrap();
    assert_eq!(changes.message().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn connections_are_cut_and_new_ones_are_accepted() {
    let (server, _) = server().await;
    let mut old = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    // It is served once another one has been, which came later.
    assert!(!exists(&connect(&server).await, "k").await);
    server.control().cut_connections();
    let end = timeout(PATIENCE, old.read(&mut [0; 64])).await;
    assert!(!matches!(end.expect("it stays"), Ok(1..)));
    assert!(!exists(&connect(&server).await, "k").await);
}

#[tokio::test]
async fn connections_are_refused_as_long_as_wanted() {
    let (server, channel) = server().await;
    assert!(!exists(&channel, "k").await);
    server.control().refuse_connections(true);
    let mut refused = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    let end = timeout(PATIENCE, refused.read(&mut [0; 64])).await;
    assert!(!matches!(end.expect("it was accepted"), Ok(1..)));
    // Those that are there stay.
    assert!(!exists(&channel, "k").await);
    server.control().refuse_connections(false);
    assert!(!exists(&connect(&server).await, "k").await);
}

#[tokio::test]
async fn answers_are_delayed() {
    let (server, channel) = server().await;
    let (_requests, mut changes) = watch(&channel, "k").await;
    let control = server.control();
    control.replies(Replies::Delayed(A_WHILE));
    let begin = Instant::now();
    let mut kv = KvClient::new(channel);
    kv.put(put("k")).await.unwrap();
    assert!(begin.elapsed() >= A_WHILE);
    let change = timeout(PATIENCE, changes.message()).await;
    assert_eq!(change.unwrap().unwrap().unwrap().events.len(), 1);

    control.replies(Replies::Normal);
    let normal = timeout(PATIENCE, kv.put(put("k"))).await;
    normal.unwrap().unwrap();
}

#[tokio::test]
async fn answers_are_lost_and_requests_are_not() {
    let (server, channel) = server().await;
    let control = server.control();
    let (_requests, mut changes) = watch(&channel, "k").await;
    control.replies(Replies::Lost);
    let mut kv = KvClient::new(channel.clone());
    assert!(timeout(A_WHILE, kv.put(put("k"))).await.is_err());
    assert!(timeout(A_WHILE, changes.message()).await.is_err());
    control.replies(Replies::Normal);
    assert!(exists(&channel, "k").await);

    control.replies(Replies::LostNext(2));
    assert!(timeout(A_WHILE, kv.put(put("l"))).await.is_err());
    assert!(timeout(A_WHILE, kv.put(put("l"))).await.is_err());
    assert!(exists(&channel, "l").await);
    // What the watch was not told stays untold.
    kv.put(put("k")).await.unwrap();
    let change = timeout(PATIENCE, changes.message()).await;
    let change = change.unwrap().unwrap().unwrap();
    assert_eq!(change.events[0].kv.as_ref().unwrap().version, 2);
}

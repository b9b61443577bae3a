//! Clients that behave badly harm themselves alone, and a server that ends lets its calls end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{net::SocketAddr, time::Duration};

use prost::Message;
use quorate_server::{Replies, Server};
use quorate_wire::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, kv_client::KvClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

const PATIENCE: Duration = Duration::from_secs(60);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PING: u8 = 6;
const GOAWAY: u8 = 7;

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

fn put(value: &str) -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn watch() -> WatchRequest {
    let request = WatchCreateRequest {
        key: "k".into(),
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    }
}

async fn is_served(server: &Server) {
    let mut kv = KvClient::new(connect(server).await);
    let served = timeout(PATIENCE, kv.put(put("v"))).await;
    served.expect("nobody is served").unwrap();
}

fn frame(kind: u8, flags: u8, stream: u16, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    let [high, low] = stream.to_be_bytes();
    frame.extend_from_slice(&[kind, flags, 0, 0, high, low]);
    frame.extend_from_slice(content);
    frame
}

/// The headers of a call.
fn call(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.extend_from_slice(&[0, u8::try_from(name.len()).unwrap()]);
        block.extend_from_slice(name.as_bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A client of HTTP/2 that takes whatever is sent to it, and reads nothing.
async fn greedy(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    let window = 0x7fff_ffff_u32.to_be_bytes();
    let settings = [&[0, 4][..], &window].concat();
    socket.write_all(&frame(4, 0, 0, &settings)).await.unwrap();
    let more = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
    socket.write_all(&frame(8, 0, 0, &more)).await.unwrap();
    socket
}

/// How much memory this process has, in bytes.
#[cfg(target_os = "linux")]
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_piles_up_for_a_client_that_does_not_read() {
    const STREAMS: u16 = 40;
    const PUTS: usize = 60;
    const BYTES: usize = 1 << 20;

    let server = Server::start().await.unwrap();
    let mut socket = greedy(server.addr().unwrap()).await;
    let request = watch().encode_to_vec();
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    let message = [&[0][..], &length, &request].concat();
    for stream in (1..).step_by(2).take(STREAMS.into()) {
        let headers = call("/etcdserverpb.Watch/Watch");
        socket
            .write_all(&frame(1, 4, stream, &headers))
            .await
            .unwrap();
        socket
            .write_all(&frame(0, 0, stream, &message))
            .await
            .unwrap();
    }
    let mut kv = KvClient::new(connect(&server).await);
    let before = memory();
    let value = "v".repeat(BYTES);
    for _ in 0..PUTS {
        let served = timeout(PATIENCE, kv.put(put(&value))).await;
        served.expect("others wait for it").unwrap();
    }
    // The store keeps what was put; each stream may hold a few messages.
    let grown = memory().saturating_sub(before);
    let allowed = PUTS * BYTES * 2 + usize::from(STREAMS) * 6 * BYTES;
    assert!(grown < allowed, "{grown} bytes of {allowed}");
    let unbounded = PUTS * BYTES * usize::from(STREAMS);
    assert!(allowed * 4 < unbounded);
}

#[tokio::test]
async fn clients_that_say_nothing_hold_nobody_up() {
    let server = Server::start().await.unwrap();
    let mut mute = Vec::new();
    for _ in 0..300 {
        let socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        mute.push(socket);
    }
    is_served(&server).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_do_not_greet_are_sent_away() {
    let server = Server::start().await.unwrap();
    for greeting in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        socket.write_all(greeting).await.unwrap();
        let end = timeout(PATIENCE, socket.read(&mut [0; 64])).await;
        assert!(!matches!(end.expect("it may stay"), Ok(1..)));
    }
    // Those that have greeted may be silent for long, and are then asked for a sign of life.
    let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut all = Vec::new();
    let end = timeout(PATIENCE * 3, socket.read_to_end(&mut all)).await;
    let _ = end.expect("it may stay for ever");
}

#[tokio::test]
async fn ten_thousand_streams_are_served() {
    let server = Server::start().await.unwrap();
    let mut socket = greedy(server.addr().unwrap()).await;
    let headers = call("/etcdserverpb.Watch/Watch");
    for stream in (1..).step_by(2).take(10_000) {
        socket
            .write_all(&frame(1, 4, stream, &headers))
            .await
            .unwrap();
    }
    is_served(&server).await;
    let stopped = timeout(PATIENCE, server.stop()).await;
    stopped.expect("it waits for them");
}

#[tokio::test]
async fn headers_beyond_measure_are_refused() {
    let server = Server::start().await.unwrap();
    for parts in [2, 3, 10, 100] {
        let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        socket.write_all(PREFACE).await.unwrap();
        socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        let mut block = call("/version");
        while block.len() < parts * 16_000 {
            block.extend_from_slice(&[0, 1, b'x', 100]);
            block.extend_from_slice(&[b'v'; 100]);
        }
        let mut blocks = block.chunks(16_000).peekable();
        let mut kind = 1;
        while let Some(block) = blocks.next() {
            let flags = if blocks.peek().is_none() { 4 } else { 0 };
            // It may be sent away before it has said all.
            let _ = socket.write_all(&frame(kind, flags, 1, block)).await;
            kind = 9;
        }
        is_served(&server).await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let server = Server::start().await.unwrap();
    let mut kv = KvClient::new(connect(&server).await);
    let refused = kv.put(put(&"v".repeat(3 << 20))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    is_served(&server).await;
}

/// Reads frames up to one of a kind, and answers pings.
async fn read_to(kind: u8, socket: &mut TcpStream) -> [u8; 9] {
    loop {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, socket.read_exact(&mut head)).await;
        read.expect("the server is silent").unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut content).await.unwrap();
        if head[3] == kind {
            return head;
        }
        if head[3] == PING && head[4] == 0 {
            socket
                .write_all(&frame(PING, 1, 0, &content))
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_answers_first_and_ends_its_streams() {
    let server = Server::start().await.unwrap();
    let address = server.addr().unwrap();
    let request = futures_util::stream::iter([watch()]);
    let changes = WatchClient::new(connect(&server).await)
        .watch(request)
        .await;
    let mut changes = changes.unwrap().into_inner();
    assert!(changes.message().await.unwrap().unwrap().created);
    let _mute = TcpStream::connect(address).await.unwrap();

    // A call whose request has not come to its end.
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let headers = call("/etcdserverpb.KV/Put");
    socket.write_all(&frame(1, 4, 1, &headers)).await.unwrap();
    socket.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    while read_to(PING, &mut socket).await[4] == 0 {}

    let shutdown = tokio::spawn(server.shutdown(PATIENCE * 10));
    let end = changes.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    read_to(GOAWAY, &mut socket).await;
    let refused = TcpStream::connect(address).await;
    assert!(refused.is_err(), "it still listens");
    let request = put("v").encode_to_vec();
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    let message = [&[0][..], &length, &request].concat();
    socket.write_all(&frame(0, 1, 1, &message)).await.unwrap();
    // The headers and the trailers of the answer.
    while read_to(1, &mut socket).await[4] & 1 == 0 {}
    let stopped = timeout(PATIENCE, shutdown).await;
    stopped.expect("it waits for nobody").unwrap();
}

#[tokio::test]
async fn a_server_that_shuts_down_waits_no_longer_than_it_is_told() {
    let server = Server::start().await.unwrap();
    let mut kv = KvClient::new(connect(&server).await);
    kv.put(put("v")).await.unwrap();
    server.control().replies(Replies::Lost);
    let call = tokio::spawn(async move { kv.put(put("v")).await });
    let lost = server.shutdown(Duration::from_millis(100));
    timeout(PATIENCE, lost).await.expect("it waits for ever");
    assert!(call.await.unwrap().is_err());
}

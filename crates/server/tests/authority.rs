//! Clients are served whatever they call the server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{env, time::Duration};

use quorate_server::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

/// How long etcdctl may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// What etcdctl can ask of a server under any of its names, and what it prints then.
const QUESTIONS: [(&[&str], &str); 8] = [
    (&["put", "k", "v"], "OK\n"),
    (&["get", "k"], "k\nv\n"),
    (&["endpoint", "status"], "3.5.0"),
    (&["endpoint", "hashkv"], ", "),
    (&["endpoint", "health"], ""),
    (&["defrag"], "Finished defragmenting"),
    (&["member", "list", "-w", "fields"], "ClientURL"),
    (&["lease", "grant", "60"], "granted"),
];

async fn ask_all(endpoints: &str) {
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    for (args, expected) in QUESTIONS {
        let mut command = Command::new(&program);
        command
            .env("ETCDCTL_API", "3")
            .env_remove("ETCDCTL_BIN") // it complains of what it does not know
            .env("ETCDCTL_ENDPOINTS", endpoints)
            .args(args)
            .kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.expect("etcdctl hangs").unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{endpoints} {args:?}: {errors}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{endpoints} {args:?}: {text}");
    }
}

#[tokio::test]
async fn etcdctl_may_call_the_server_by_its_url() {
    let server = Server::start().await.unwrap();
    ask_all(server.url()).await;
    ask_all(&format!("{},{}", server.url(), server.url())).await;
}

#[tokio::test]
async fn etcdctl_may_call_the_server_by_its_address() {
    let server = Server::start().await.unwrap();
    ask_all(&server.addr().unwrap().to_string()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn etcdctl_may_call_the_server_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let address = format!("unix:{}", path.display());
    let server = Server::builder().listen(address).start().await.unwrap();
    ask_all(server.url()).await;
}

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(content);
    frame
}

/// A request of `GET /version` whose authority is put into the dynamic table, or named from there.
fn version(authority: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 8];
    block.extend_from_slice(b"/version");
    match authority {
        Some(authority) => {
            block.extend_from_slice(&[0x41, u8::try_from(authority.len()).unwrap()]);
            block.extend_from_slice(authority.as_bytes());
        }
        None => block.push(0x80 | 62),
    }
    block
}

/// Reads until a stream has ended, and returns its kinds of frames.
async fn frames_of(stream: u8, socket: &mut TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, socket.read_exact(&mut head)).await;
        read.expect("no answer").unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut content).await.unwrap();
        if head[8] != stream {
            continue;
        }
        kinds.push(head[3]);
        if head[3] == 3 || head[4] & 1 != 0 {
            return kinds;
        }
    }
}

#[tokio::test]
async fn what_is_in_the_table_is_found_there_after_a_repair() {
    let server = Server::start().await.unwrap();
    let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let requests = [
        Some("#initially=[a;b]"),
        None,
        Some("good:1"),
        None,
        Some("/x"),
        None,
    ];
    for (request, stream) in requests.into_iter().zip((1..).step_by(2)) {
        let request = frame(1, 5, stream, &version(request));
        for byte in request {
            socket.write_all(&[byte]).await.unwrap();
        }
        // Headers and data, and no reset.
        let kinds = frames_of(stream, &mut socket).await;
        assert!(kinds.starts_with(&[1]) && !kinds.contains(&3), "{kinds:?}");
    }
}

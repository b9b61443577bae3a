//! Servers on Unix sockets: a real etcd behind one, and what is told where there is none.
#![cfg(all(feature = "etcd", unix))]
#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use quorate::{Client, ErrorKind, KeyRange, WatchRequest, backend::Status};
use support::{etcd, until};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::JoinHandle,
};

/// A socket that leads to a server on a port, as long as this lives.
struct Bridge {
    accepting: JoinHandle<()>,
}

impl Bridge {
    fn open(socket: &Path, url: &str) -> Self {
        let hosts = url.strip_prefix("http://").unwrap().to_owned();
        let listener = UnixListener::bind(socket).unwrap();
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&hosts).await.unwrap();
                open.spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        });
        Self { accepting }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where a socket may be.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("etcd")
    }

    /// A client with a namespace of its own.
    async fn client(&self) -> Client {
        let socket = self.socket();
        let name = self.folder.path().file_name().unwrap().to_str().unwrap();
        let url = format!("unix:{}?namespace={name}&timeout=3s", socket.display());
        Client::connect(url).await.unwrap()
    }

    /// What a call fails with.
    async fn failure(&self) -> String {
        let error = self.client().await.get("k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error.to_string()
    }
}

#[tokio::test]
async fn whatever_works_with_a_host_works_over_a_socket() {
    let place = Place::new();
    let _bridge = Bridge::open(&place.socket(), &etcd::shared());
    let client = place.client().await;
    let written = client.put("k", "v").await.unwrap();
    let changes = WatchRequest::new(KeyRange::key("k")).start(written);
    let mut watch = client.watch(changes);
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
    assert!(watch.next().await.unwrap().is_ok());
    let guard = client.lock("l").acquire().await.unwrap();
    assert!(guard.is_held());
    let endpoint = format!("unix://{}", place.socket().display());
    assert_eq!(client.endpoints(), [endpoint.as_str()]);
    let Status { version, .. } = client.status_of(&endpoint).await.unwrap();
    assert!(version.starts_with("3."), "{version}");
    guard.release().await.unwrap();
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_client_comes_back_to_a_socket_that_is_there_again() {
    let place = Place::new();
    let bridge = Bridge::open(&place.socket(), &etcd::shared());
    let client = place.client().await;
    let guard = client.lock("l").acquire().await.unwrap();
    drop(bridge);
    fs::remove_file(place.socket()).unwrap();
    until("calls fail", async || client.get("k").await.is_err()).await;
    let _bridge = Bridge::open(&place.socket(), &etcd::shared());
    until("calls succeed", async || client.get("k").await.is_ok()).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_socket_is_told() {
    let place = Place::new();
    let message = place.failure().await;
    assert!(message.contains("there is no such socket"), "{message}");
    assert!(
        message.contains(&*place.socket().to_string_lossy()),
        "{message}"
    );
    drop(UnixListener::bind(place.socket()).unwrap());
    let message = place.failure().await;
    assert!(message.contains("nobody listens"), "{message}");
    fs::remove_file(place.socket()).unwrap();

    let _silent = UnixListener::bind(place.socket()).unwrap();
    let message = place.failure().await;
    assert!(message.contains("no connection within 1s"), "{message}");
    // The superuser may do everything.
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(place.socket(), Permissions::from_mode(0o000)).unwrap();
        let message = place.failure().await;
        assert!(message.contains("permission denied"), "{message}");
    }
}

#[tokio::test]
async fn a_socket_that_hangs_holds_no_call_up() {
    let place = Place::new();
    let _silent = UnixListener::bind(place.socket()).unwrap();
    let client = place.client().await;
    let call = tokio::time::timeout(Duration::from_secs(5), client.get("k"));
    assert!(call.await.expect("it ends").is_err());
}

//! A server can listen on a Unix socket, which is its owner's alone.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
    time::Duration,
};

use quorate_server::{Error, Result, Server};
use quorate_wire::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, MemberListRequest, cluster_client::ClusterClient,
    lease_client::LeaseClient,
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::UnixStream};
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(20);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn listen(path: &Path) -> Result<Server> {
    let address = format!("unix:{}", path.display());
    Server::builder().listen(address).start().await
}

/// Why a server cannot listen there.
async fn refusal(path: &Path) -> String {
    let error = listen(path).await.unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn only_the_owner_may_use_the_socket() {
    let directory = directory();
    let path = directory.path().join("store");
    let server = listen(&path).await.unwrap();
    assert_eq!(server.url(), format!("unix://{}", path.display()));
    assert_eq!(server.addr(), None);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_file_goes_with_theserver() {
    let directory = directory();
    let path = directory.path().join("store");
    let server = listen(&path).await.unwrap();
    let mut idle = UnixStream::connect(&path).await.unwrap();
    server.stop().await;
    assert!(!path.exists());
    let mut byte = [0];
    let end = idle.read(&mut byte).await;
    assert!(!matches!(end, Ok(1..)));

    drop(listen(&path).await.unwrap());
    let gone = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("it stays");
}

#[tokio::test]
async fn a_deadserver_s_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("store");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = listen(&path).await.unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(server);
}

#[tokio::test]
async fn a_livingserver_keeps_its_socket() {
    let directory = directory();
    let path = directory.path().join("store");
    let server = listen(&path).await.unwrap();
    let refused = refusal(&path).await;
    assert!(
        refused.contains("another server listens there"),
        "{refused}"
    );
    assert!(UnixStream::connect(&path).await.is_ok());
    server.stop().await;
    assert!(listen(&path).await.is_ok());
}

#[tokio::test]
async fn ofservers_that_start_at_once_one_gets_the_socket() {
    let directory = directory();
    let path = directory.path().join("store");
    drop(UnixListener::bind(&path).unwrap());
    let starts = (0..8).map(|_| listen(&path));
    let started = futures_util::future::join_all(starts).await;
    let servers: Vec<_> = started.into_iter().flatten().collect();
    assert_eq!(servers.len(), 1);
    assert!(UnixStream::connect(&path).await.is_ok());
}

#[tokio::test]
async fn other_files_are_left_alone() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let refused = refusal(&file).await;
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(refusal(&link).await.contains("no socket"));
    assert!(link.is_symlink());
    assert!(refusal(directory.path()).await.contains("no socket"));
}

#[tokio::test]
async fn a_file_that_has_replaced_the_socket_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("store");
    let server = listen(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    server.stop().await;
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn what_is_no_path_for_a_socket_is_explained() {
    let directory = directory();
    let long = directory.path().join("x".repeat(120));
    assert!(refusal(&long).await.contains("name a shorter one"));
    let nowhere = directory.path().join("absent/store");
    assert!(refusal(&nowhere).await.contains("does not exist"));
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refusal(&file.join("store")).await.contains("is a file"));
    for address in ["unix:", "unix://host/path", "unix:/tmp/"] {
        let refused = Server::builder().listen(address).start().await;
        assert!(matches!(refused, Err(Error::Address { .. })), "{address}");
    }
}

#[tokio::test]
async fn clients_are_told_what_is_advertised() {
    let advertised = "http://store.example:2379";
    let server = Server::builder().advertise(advertised);
    let server = server.start().await.unwrap();
    let told = members(&server).await;
    assert_eq!(told, [advertised]);
    let server = Server::start().await.unwrap();
    assert_eq!(members(&server).await, [server.url()]);
    let everywhere = Server::builder().listen("0.0.0.0:0").allow_remote();
    let everywhere = everywhere.start().await.unwrap();
    assert!(everywhere.url().starts_with("http://127.0.0.1:"));
    assert!(!members(&everywhere).await[0].contains("0.0.0.0"));
    let refused = Server::builder().advertise("store").start().await;
    assert!(matches!(refused, Err(Error::Advertise { .. })));
}

async fn members(server: &Server) -> Vec<String> {
    let channel = Endpoint::from_shared(server.url().to_owned()).unwrap();
    let mut cluster = ClusterClient::new(channel.connect().await.unwrap());
    let listed = cluster.member_list(MemberListRequest::default()).await;
    let mut members = listed.unwrap().into_inner().members;
    members.remove(0).client_ur_ls
}

#[tokio::test]
async fn aserver_is_idle_without_connections_and_leases() {
    const AFTER: Duration = Duration::from_millis(50);

    let server = Server::start().await.unwrap();
    tokio::time::timeout(PATIENCE, server.idle(AFTER))
        .await
        .expect("nobody is there");

    let channel = Endpoint::from_shared(server.url().to_owned()).unwrap();
    let mut leases = LeaseClient::new(channel.connect().await.unwrap());
    let request = LeaseGrantRequest { ttl: 1, id: 7 };
    leases.lease_grant(request).await.unwrap();
    let busy = tokio::time::timeout(AFTER * 4, server.idle(AFTER)).await;
    assert!(busy.is_err(), "a client is connected");
    drop(leases);
    tokio::time::timeout(PATIENCE, server.idle(AFTER))
        .await
        .expect("the client and its lease are gone");
    let mut leases = LeaseClient::new(channel.connect().await.unwrap());
    let left = leases.lease_leases(LeaseLeasesRequest {}).await.unwrap();
    assert!(left.into_inner().leases.is_empty());
}

//! The library's own client proves who it is, and proves it anew when its token has ended.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use quorate::{
    Client, ConnectOptions, ErrorKind, Key, KeyRange, WatchRequest,
    backend::{
        AuthRequest as Ask, AuthResponse, Permission, PermissionKind,
        etcd::{Identity, Tls},
    },
};
use quorate_server::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{PATIENCE, support::certificates::Certificates, tokens::pass};

/// A server that asks for a user, and the clients of `root` and of `ada`, who may read and write
/// `a/` and what lies under it.
async fn prepared() -> (Server, Client, Client) {
    let server = Server::start().await.unwrap();
    let open = Client::connect(server.url()).await.unwrap();
    prepare(&open).await;
    let refused = open.get("a/1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    let as_user = async |name: &str| {
        let host = server.url().trim_start_matches("http://");
        Client::connect(format!("etcd://{name}:{name}'s@{host}")).await
    };
    let (root, ada) = (as_user("root").await, as_user("ada").await);
    (server, root.unwrap(), ada.unwrap())
}

/// Adds the users, and has the server ask for one.
async fn prepare(open: &Client) {
    let name = String::from;
    let user = |user: &str| Ask::UserAdd {
        name: user.into(),
        password: Some(format!("{user}'s")),
    };
    let give = |user: &str, role: &str| Ask::UserGrantRole {
        name: user.into(),
        role: role.into(),
    };
    let permission = Permission {
        kind: PermissionKind::ReadWrite,
        keys: KeyRange::prefix("a/"),
    };
    for request in [
        user("root"),
        give("root", "root"),
        user("ada"),
        Ask::RoleAdd { name: name("r") },
        Ask::RoleGrant {
            name: name("r"),
            permission,
        },
        give("ada", "r"),
        Ask::Enable,
    ] {
        open.auth(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_with_a_user_may_what_the_user_may() {
    let (server, root, ada) = prepared().await;
    ada.put("a/1", "one").await.unwrap();
    let refused = ada.put("b", "one").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(!refused.is_indefinite(), "{refused}");
    let guard = ada.lock("a/lock").acquire().await.unwrap();
    guard.release().await.unwrap();
    let refused = ada.auth(Ask::UserList).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let users = root.auth(Ask::UserList).await.unwrap();
    let expected = ["ada", "root"].map(str::to_owned).to_vec();
    assert_eq!(users, AuthResponse::Names(expected));

    let host = server.url().trim_start_matches("http://");
    let wrong = Client::connect(format!("etcd://ada:wrong@{host}")).await;
    let refused = match wrong {
        Ok(wrong) => wrong.get("a/1").await.unwrap_err(),
        Err(refused) => refused,
    };
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_client_whose_token_has_ended_authenticates_anew() {
    let (_server, root, ada) = prepared().await;
    ada.put("a/1", "one").await.unwrap();
    pass(Duration::from_secs(301)).await;
    ada.put("a/1", "two").await.unwrap();
    let password = "ada's".to_owned();
    let change = Ask::UserChangePassword {
        name: "ada".to_owned(),
        password,
    };
    root.auth(change).await.unwrap();
    let found = ada.get("a/1").await.unwrap().unwrap();
    assert_eq!(found.value, "two");
    let from = WatchRequest::new("a/1").start(found.mod_revision.next());
    let mut watch = ada.watch(from);
    pass(Duration::from_secs(301)).await;
    ada.put("a/1", "three").await.unwrap();
    let next = tokio::time::timeout(PATIENCE, watch.next()).await;
    let batch = next.unwrap().unwrap().unwrap();
    assert_eq!(batch.events[0].key(), &Key::from("a/1"));
}

#[tokio::test]
async fn a_client_proves_who_it_is_over_tls() {
    let Certificates { ca, server, client } = Certificates::new();
    let tls = quorate_server::Tls::from_pem(&server.certificate, &server.key).unwrap();
    let secure = Server::builder().tls(tls.client_ca(&ca)).start().await;
    let secure = secure.unwrap();
    let identity = Identity {
        certificate: client.certificate.into_bytes(),
        key: client.key.into_bytes(),
    };
    let anonymous = Tls {
        ca: Some(ca.into_bytes()),
        ..Tls::default()
    };
    let known = Tls {
        identity: Some(identity),
        ..anonymous.clone()
    };
    let options = || ConnectOptions::parse(secure.url()).unwrap();
    let open = Client::connect(options().tls(known.clone())).await.unwrap();
    prepare(&open).await;
    let with = async |name: &str, tls: &Tls| {
        let options = options().tls(tls.clone());
        Client::connect(options.user(name, format!("{name}'s"))).await
    };
    let ada = with("ada", &known).await.unwrap();
    ada.put("a/1", "one").await.unwrap();
    let guard = ada.lock("a/lock").acquire().await.unwrap();
    guard.release().await.unwrap();
    let refused = ada.put("b", "one").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);

    // A certificate in the name of a user stands for a password.
    let refused = open.get("a/1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let root = with("root", &known).await.unwrap();
    let add = Ask::UserAdd {
        name: "client".to_owned(),
        password: None,
    };
    root.auth(add).await.unwrap();
    let give = Ask::UserGrantRole {
        name: "client".to_owned(),
        role: "r".to_owned(),
    };
    root.auth(give).await.unwrap();
    assert_eq!(open.get("a/1").await.unwrap().unwrap().value, "one");
    let refused = open.get("b").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    // A connection that is refused may be open for a moment.
    let stranger = match with("ada", &anonymous).await {
        Ok(stranger) => stranger.get("a/1").await.map(drop),
        Err(refused) => Err(refused),
    };
    assert!(stranger.is_err(), "a stranger was let in");
}

/// Whom a certificate names is no user of the gateway, which passes requests on.
#[tokio::test]
async fn a_certificate_proves_nothing_to_the_gateway() {
    let Certificates { ca, server, client } = Certificates::new();
    let tls = quorate_server::Tls::from_pem(&server.certificate, &server.key).unwrap();
    let secure = Server::builder().tls(tls.client_ca(&ca)).start().await;
    let secure = secure.unwrap();
    let known = Tls {
        ca: Some(ca.clone().into_bytes()),
        identity: Some(Identity {
            certificate: client.certificate.clone().into_bytes(),
            key: client.key.clone().into_bytes(),
        }),
        ..Tls::default()
    };
    let options = ConnectOptions::parse(secure.url()).unwrap();
    let open = Client::connect(options.tls(known)).await.unwrap();
    let add = Ask::UserAdd {
        name: "client".to_owned(),
        password: None,
    };
    open.auth(add).await.unwrap();
    let give = |role: &str| Ask::UserGrantRole {
        name: "client".to_owned(),
        role: role.to_owned(),
    };
    open.auth(give("root")).await.unwrap();
    prepare(&open).await;
    assert!(open.get("k").await.unwrap().is_none(), "it is root");

    let mut trusted = RootCertStore::empty();
    trusted
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let socket = TcpStream::connect(secure.addr().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut socket = connector.connect(name, socket).await.unwrap();
    let body = r#"{"key":"aw=="}"#;
    let request = format!(
        "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    // How a connection of TLS ends is no matter.
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("etcdserver: user name is empty"),
        "{answer}"
    );
}

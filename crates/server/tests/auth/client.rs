//! The library's own client proves who it is, and proves it anew when its token has ended.

use std::time::Duration;

use futures_util::StreamExt;
use quorate::{
    Client, ErrorKind, Key, KeyRange, WatchRequest,
    backend::{AuthRequest as Ask, AuthResponse, Permission, PermissionKind},
};
use quorate_server::Server;

use crate::{PATIENCE, tokens::pass};

/// A server that asks for a user, and the clients of `root` and of `ada`, who may read and write
/// `a/` and what lies under it.
async fn prepared() -> (Server, Client, Client) {
    let server = Server::start().await.unwrap();
    let open = Client::connect(server.url()).await.unwrap();
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
    let refused = open.get("a/1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    let as_user = async |name: &str| {
        let host = server.url().trim_start_matches("http://");
        Client::connect(format!("etcd://{name}:{name}'s@{host}")).await
    };
    let (root, ada) = (as_user("root").await, as_user("ada").await);
    (server, root.unwrap(), ada.unwrap())
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

//! What a server with a data directory leaves to the next one, and which directories it refuses.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{fs, path::Path, time::Duration};

use futures_util::StreamExt;
use quorate::{
    Client, ErrorKind, Event, KeyRange, Put, Range, Revision, WatchRequest,
    backend::{AuthRequest, AuthResponse, Permission, PermissionKind},
};
use quorate_server::{Error, Server};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// The file in a data directory.
const FILE: &str = "store.redb";

async fn serve(directory: &Path) -> (Server, Client) {
    let server = Server::builder().data_dir(directory).start();
    let server = server.await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    (server, client)
}

async fn stop((server, client): (Server, Client)) {
    client.close().await.unwrap();
    timeout(PATIENCE, server.stop()).await.unwrap();
}

async fn refusal(directory: &Path) -> Error {
    let start = Server::builder().data_dir(directory).start();
    timeout(PATIENCE, start).await.unwrap().unwrap_err()
}

/// A directory with a store in it that is stopped.
async fn used() -> TempDir {
    let directory = TempDir::new().unwrap();
    let served = serve(directory.path()).await;
    served.1.put("k", "v").await.unwrap();
    stop(served).await;
    directory
}

async fn events(client: &Client, from: Revision) -> quorate::Result<Vec<Event>> {
    let request = WatchRequest::new(KeyRange::all()).start(from).prev_kv();
    let batch = timeout(PATIENCE, client.watch(request).next()).await;
    Ok(batch.unwrap().unwrap()?.events)
}

#[tokio::test]
async fn the_next_server_has_the_whole_store() {
    let directory = TempDir::new().unwrap();
    let served = serve(directory.path()).await;
    let client = &served.1;
    for n in 0..10 {
        client
            .put(format!("k{}", n % 3), n.to_string())
            .await
            .unwrap();
    }
    client.delete("k0").await.unwrap();
    let lease = client
        .grant_lease(Duration::from_secs(60))
        .await
        .unwrap()
        .id;
    let put = Put::new("leased", "v").lease(lease);
    let revision = client.put_with(put).await.unwrap().revision;
    client.compact(Revision(6), false).await.unwrap();
    let before = client.range(KeyRange::all()).await.unwrap();
    let seen = events(client, Revision(6)).await.unwrap();
    stop(served).await;

    let served = serve(directory.path()).await;
    let client = &served.1;
    let after = client.range(KeyRange::all()).await.unwrap();
    assert_eq!(after, before, "the ids in the header too");
    assert_eq!(events(client, Revision(6)).await.unwrap(), seen);
    assert_eq!(
        events(client, Revision(5)).await.unwrap_err().kind(),
        ErrorKind::Compacted
    );
    let past = Range::new(KeyRange::all());
    for (at, count) in [
        (6, Ok(3)),
        (revision.0, Ok(3)),
        (5, Err(ErrorKind::Compacted)),
    ] {
        let found = client.range(past.clone().revision(Revision(at))).await;
        assert_eq!(
            found.map(|found| found.count).map_err(|it| it.kind()),
            count
        );
    }
    assert_eq!(client.put("k1", "new").await.unwrap(), revision.next());

    let status = client.lease_status(lease).await.unwrap();
    assert_eq!(status.granted, Duration::from_secs(60));
    assert!(status.remaining > Some(Duration::from_secs(50)));
    assert_eq!(status.keys, ["leased"]);
    client.revoke_lease(lease).await.unwrap();
    assert_eq!(client.get("leased").await.unwrap(), None);
    stop(served).await;

    let served = serve(directory.path()).await;
    assert!(served.1.leases().await.unwrap().is_empty());
    assert_eq!(served.1.get("leased").await.unwrap(), None);
    stop(served).await;
}

#[tokio::test]
async fn users_and_roles_are_kept() {
    let directory = TempDir::new().unwrap();
    let name = || "reader".to_owned();
    let served = serve(directory.path()).await;
    let permission = Permission {
        kind: PermissionKind::Read,
        keys: KeyRange::prefix("a/"),
    };
    for request in [
        AuthRequest::RoleAdd { name: name() },
        AuthRequest::RoleGrant {
            name: name(),
            permission: permission.clone(),
        },
        AuthRequest::UserAdd {
            name: "u".to_owned(),
            password: Some("p".to_owned()),
        },
        AuthRequest::UserGrantRole {
            name: "u".to_owned(),
            role: name(),
        },
    ] {
        served.1.auth(request).await.unwrap();
    }
    let status = served.1.auth(AuthRequest::Status).await.unwrap();
    stop(served).await;

    let served = serve(directory.path()).await;
    assert_eq!(served.1.auth(AuthRequest::Status).await.unwrap(), status);
    let roles = AuthRequest::UserRoles {
        name: "u".to_owned(),
    };
    let roles = served.1.auth(roles).await.unwrap();
    assert_eq!(roles, AuthResponse::Names(vec![name()]));
    let permissions = AuthRequest::RolePermissions { name: name() };
    let permissions = served.1.auth(permissions).await.unwrap();
    assert_eq!(permissions, AuthResponse::Permissions(vec![permission]));
    stop(served).await;
}

#[tokio::test]
async fn a_lease_that_ran_out_stays_ended() {
    let directory = TempDir::new().unwrap();
    let served = serve(directory.path()).await;
    let client = &served.1;
    let lease = client.grant_lease(Duration::from_secs(1)).await.unwrap().id;
    let put = Put::new("leased", "v").lease(lease);
    let revision = client.put_with(put).await.unwrap().revision;
    let ended = events(client, revision.next()).await.unwrap();
    assert!(matches!(ended[..], [Event::Delete { .. }]));
    stop(served).await;
    let served = serve(directory.path()).await;
    assert!(served.1.leases().await.unwrap().is_empty());
    assert_eq!(events(&served.1, revision.next()).await.unwrap(), ended);
    stop(served).await;
}

#[tokio::test]
async fn a_server_that_was_dropped_leaves_its_directory_to_the_next() {
    let directory = TempDir::new().unwrap();
    let (server, client) = serve(directory.path()).await;
    client.put("k", "v").await.unwrap();
    drop(server);
    let next = timeout(PATIENCE, async {
        loop {
            match Server::builder().data_dir(directory.path()).start().await {
                Ok(server) => break server,
                Err(Error::DataDirInUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let next = next.await.unwrap();
    let client = Client::connect(next.url()).await.unwrap();
    assert!(client.get("k").await.unwrap().is_some());
    next.stop().await;
}

#[tokio::test]
async fn a_directory_serves_one_server_at_a_time() {
    let directory = TempDir::new().unwrap();
    let served = serve(directory.path()).await;
    let refused = refusal(directory.path()).await;
    assert!(matches!(refused, Error::DataDirInUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another server uses it"));
    // The refused one does no harm.
    served.1.put("k", "v").await.unwrap();
    stop(served).await;
    let served = serve(directory.path()).await;
    assert!(served.1.get("k").await.unwrap().is_some());
    stop(served).await;
}

#[tokio::test]
async fn a_directory_that_is_none_of_ours_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("notes.txt");
    fs::write(&file, "mine").unwrap();
    for (path, expected) in [
        (
            directory.path(),
            "it holds other things (notes.txt) and no store",
        ),
        (&file, "it is a file; give a directory"),
        (&file.join("below"), "Not a directory"),
    ] {
        let refused = refusal(path).await;
        assert!(matches!(refused, Error::DataDir { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_damaged_store_is_refused() {
    let damages: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |_| b"garbage".to_vec(),
        |_| vec![b'x'; 100_000],
        |file| file[..300].to_vec(),
        |file| file[..file.len() / 2].to_vec(),
        |mut file| {
            file[4096..].fill(0xaa);
            file
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let directory = used().await;
        let file = directory.path().join(FILE);
        let damaged = damage(fs::read(&file).unwrap());
        fs::write(&file, &damaged).unwrap();
        let refused = refusal(directory.path()).await;
        assert!(matches!(refused, Error::DataDir { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("is damaged: "), "{number}: {text}");
        assert!(text.contains("move it away"), "{number}: {text}");
    }
}

#[tokio::test]
async fn a_creation_that_was_cut_off_begins_anew() {
    for cut in [0, 5, 4096, 1_000_000] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(FILE), vec![0; cut]).unwrap();
        let served = serve(directory.path()).await;
        served.1.put("k", "v").await.unwrap();
        stop(served).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("a/b");
    stop(serve(&directory).await).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join(FILE)), 0o600);
}

//! When a token ends, and what becomes of who had it.

use std::time::Duration;

use quorate_wire::{
    authpb::permission::Type::{Read, Readwrite},
    etcdserverpb::{
        self as pb, auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    PATIENCE,
    subject::{Caller, Subject, on_both, refusal, told},
    support::subject::has_etcd_3_5,
};

/// A store that asks for a user: `root`, or `u` who may read and write `a`..`c`.
async fn prepared(subject: &Subject) -> (Caller, Caller) {
    let nobody = subject.nobody().await;
    nobody.add_role("r", &[(Readwrite, b"a", b"c")]).await;
    nobody.add_user("root", &["root"]).await;
    nobody.add_user("u", &["r"]).await;
    nobody.enable().await;
    (subject.user("root").await, subject.user("u").await)
}

async fn get(caller: &Caller, key: &str) -> String {
    let mut kv = KvClient::new(caller.channel.clone());
    let request = pb::RangeRequest {
        key: key.to_owned().into(),
        ..pb::RangeRequest::default()
    };
    told(kv.range(caller.request(request)).await)
}

async fn put(caller: &Caller, key: &str) -> String {
    let mut kv = KvClient::new(caller.channel.clone());
    let request = pb::PutRequest {
        key: key.to_owned().into(),
        ..pb::PutRequest::default()
    };
    told(kv.put(caller.request(request)).await)
}

async fn change_password(caller: &Caller, name: &str) {
    let mut auth = AuthClient::new(caller.channel.clone());
    let request = pb::AuthUserChangePasswordRequest {
        name: name.to_owned(),
        password: name.to_owned(),
        ..pb::AuthUserChangePasswordRequest::default()
    };
    let request = caller.request(request);
    auth.user_change_password(request).await.unwrap();
}

async fn disable(caller: &Caller) {
    let mut auth = AuthClient::new(caller.channel.clone());
    let request = caller.request(pb::AuthDisableRequest {});
    auth.auth_disable(request).await.unwrap();
}

#[tokio::test]
async fn what_changes_a_user_or_a_role_ends_tokens_as_in_etcd() {
    let (ours, etcd) = on_both(async |subject| {
        let (root, user) = prepared(&subject).await;
        let mut told = vec![get(&user, "a").await, get(&user, "x").await];
        root.grant("r", Read, b"x", b"").await.unwrap();
        told.push(get(&user, "x").await);
        root.forbid("r", b"x", b"").await.unwrap();
        told.push(get(&user, "x").await);
        root.add_user("v", &["r"]).await;
        told.push(get(&user, "a").await);
        change_password(&root, "v").await;
        told.push(get(&user, "a").await);

        let second = subject.user("u").await;
        change_password(&root, "u").await;
        told.push(get(&user, "a").await);
        told.push(get(&second, "a").await);
        let user = subject.user("u").await;
        told.push(get(&user, "a").await);

        // The same name is another user.
        let mut auth = AuthClient::new(root.channel.clone());
        let request = pb::AuthUserDeleteRequest {
            name: "u".to_owned(),
        };
        auth.user_delete(root.request(request)).await.unwrap();
        root.add_user("u", &["r"]).await;
        told.push(get(&user, "a").await);

        let user = subject.user("u").await;
        disable(&root).await;
        told.push(get(&user, "x").await);
        told.push(get(&user.with_token("nonsense"), "x").await);
        let nobody = subject.nobody().await;
        told.push(get(&nobody, "x").await);
        told.push(
            nobody
                .authenticate("u", "u")
                .await
                .map_or_else(|it| refusal(&it), drop_text),
        );
        nobody.enable().await;
        told.push(get(&user, "a").await);
        told
    })
    .await;
    if has_etcd_3_5() {
        assert_eq!(ours, etcd);
    }
    let refused = ours.iter().filter(|it| it.starts_with("Unauthenticated"));
    assert_eq!(refused.count(), 4);
}

fn drop_text(_: String) -> String {
    "a token".to_owned()
}

#[tokio::test]
async fn a_watch_goes_on_whatever_becomes_of_its_user_as_in_etcd() {
    let (ours, etcd) = on_both(async |subject| {
        let nobody = subject.nobody().await;
        let mut before = Watch::open(&nobody, "a").await;
        let (root, user) = prepared(&subject).await;
        let mut watch = Watch::open(&user, "a").await;
        let mut told = Vec::new();
        root.forbid("r", b"a", b"c").await.unwrap();
        put(&root, "a").await;
        told.extend([before.next().await, watch.next().await]);
        // Another one on the same stream is asked for its rights as they are.
        watch.create("a").await;
        told.push(watch.next().await);
        root.grant("r", Read, b"a", b"").await.unwrap();
        watch.create("a").await;
        told.push(watch.next().await);
        change_password(&root, "u").await;
        put(&root, "a").await;
        told.extend([before.next().await, watch.next().await, watch.next().await]);
        watch.create("a").await;
        told.push(watch.next().await);
        before.create("a").await;
        told.push(before.next().await);
        told
    })
    .await;
    assert_eq!(ours, etcd);
    assert!(ours[2].contains("PermissionDenied"), "{ours:?}");
}

#[tokio::test]
async fn a_lease_is_kept_alive_only_while_its_keeper_may_as_in_etcd() {
    let (ours, etcd) = on_both(async |subject| {
        let (root, user) = prepared(&subject).await;
        let mut leases = LeaseClient::new(user.channel.clone());
        let request = pb::LeaseGrantRequest { id: 7, ttl: 600 };
        leases.lease_grant(user.request(request)).await.unwrap();
        let (beats, receiver) = tokio::sync::mpsc::channel(8);
        let beat = pb::LeaseKeepAliveRequest { id: 7 };
        beats.send(beat).await.unwrap();
        let requests = user.request(ReceiverStream::new(receiver));
        let mut answers = leases
            .lease_keep_alive(requests)
            .await
            .unwrap()
            .into_inner();
        let mut next = async || match answers.message().await {
            Ok(answer) => answer.map_or(-1, |it| it.ttl).to_string(),
            Err(status) => refusal(&status),
        };
        let mut told = vec![next().await];
        beats.send(beat).await.unwrap();
        told.push(next().await);
        change_password(&root, "u").await;
        beats.send(beat).await.unwrap();
        told.push(next().await);
        told
    })
    .await;
    if has_etcd_3_5() {
        assert_eq!(ours, etcd);
    }
    assert!(ours[2].starts_with("Unauthenticated"), "{ours:?}");
}

#[tokio::test]
async fn a_token_that_is_not_used_for_five_minutes_ends() {
    let subject = Subject::ours().await;
    let (_, user) = prepared(&subject).await;
    for _ in 0..2 {
        pass(Duration::from_secs(299)).await;
        assert_eq!(get(&user, "a").await, "ok");
    }
    pass(Duration::from_secs(301)).await;
    let ended = "Unauthenticated: etcdserver: invalid auth token";
    assert_eq!(get(&user, "a").await, ended);
    let user = subject.user("u").await;
    assert_eq!(get(&user, "a").await, "ok");
}

/// Lets time pass.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A stream of watches.
struct Watch {
    requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
    answers: tonic::Streaming<pb::WatchResponse>,
}

impl Watch {
    /// Watches a key.
    async fn open(caller: &Caller, key: &str) -> Self {
        let (requests, receiver) = tokio::sync::mpsc::channel(8);
        let create = create(key);
        requests.send(create).await.unwrap();
        let mut client = WatchClient::new(caller.channel.clone());
        let receiver = caller.request(ReceiverStream::new(receiver));
        let answers = client.watch(receiver).await.unwrap().into_inner();
        let mut watch = Self { requests, answers };
        assert!(watch.next().await.starts_with("created"));
        watch
    }

    async fn create(&self, key: &str) {
        self.requests.send(create(key)).await.unwrap();
    }

    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        match next.expect("the stream is silent") {
            Ok(Some(it)) if it.created => format!("created {}", it.cancel_reason),
            Ok(Some(it)) => format!("{} events {}", it.events.len(), it.cancel_reason),
            Ok(None) => "the end".to_owned(),
            Err(status) => refusal(&status),
        }
    }
}

fn create(key: &str) -> pb::WatchRequest {
    let request = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    }
}

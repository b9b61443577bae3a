//! Locks and elections are served as etcd serves them, and better where it errs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_server::Server;
use quorate_wire::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, RangeRequest,
        kv_client::KvClient, lease_client::LeaseClient,
    },
    mvccpb::KeyValue,
    v3electionpb::{
        CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use support::{
    etcd::{Cluster, server_35},
    http::Http,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client of all that the tests need.
#[derive(Clone)]
struct Client {
    kv: KvClient<Channel>,
    leases: LeaseClient<Channel>,
    locks: LockClient<Channel>,
    elections: ElectionClient<Channel>,
}

impl Client {
    async fn connect(url: &str) -> Self {
        let endpoint = Channel::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()),
            leases: LeaseClient::new(channel.clone()),
            locks: LockClient::new(channel.clone()),
            elections: ElectionClient::new(channel),
        }
    }

    async fn grant(&self, id: i64, ttl: i64) {
        let request = LeaseGrantRequest { id, ttl };
        self.leases.clone().lease_grant(request).await.unwrap();
    }

    async fn revoke(&self, id: i64) {
        let request = LeaseRevokeRequest { id };
        self.leases.clone().lease_revoke(request).await.unwrap();
    }

    async fn leases(&self) -> usize {
        let all = LeaseLeasesRequest {};
        let found = self.leases.clone().lease_leases(all).await.unwrap();
        found.into_inner().leases.len()
    }

    /// What is under a name, the oldest first, and at which revision.
    async fn queue(&self, name: &str) -> (i64, Vec<KeyValue>) {
        let request = RangeRequest {
            key: format!("{name}/").into(),
            range_end: format!("{name}0").into(),
            sort_order: 1,
            sort_target: 2,
            ..RangeRequest::default()
        };
        let found = self.kv.clone().range(request).await.unwrap().into_inner();
        (found.header.unwrap().revision, found.kvs)
    }

    async fn until_queued(&self, name: &str, count: usize) {
        let waited = async {
            while self.queue(name).await.1.len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waited).await;
        assert!(
            waited.is_ok(),
            "{count} keys are awaited: {:?}",
            self.queue(name).await
        );
    }

    async fn lock(&self, name: &str, lease: i64) -> Result<(i64, String), Status> {
        let name = name.to_owned().into();
        let locked = self.locks.clone().lock(LockRequest { name, lease }).await?;
        let locked = locked.into_inner();
        Ok((locked.header.unwrap().revision, text(&locked.key)))
    }

    async fn unlock(&self, key: &str) -> Result<i64, Status> {
        let key = key.to_owned().into();
        let unlocked = self.locks.clone().unlock(UnlockRequest { key }).await?;
        Ok(unlocked.into_inner().header.unwrap().revision)
    }

    async fn campaign(
        &self,
        name: &str,
        lease: i64,
        value: &str,
    ) -> Result<(i64, LeaderKey), Status> {
        let request = CampaignRequest {
            name: name.to_owned().into(),
            lease,
            value: value.to_owned().into(),
        };
        let won = self.elections.clone().campaign(request).await?.into_inner();
        Ok((won.header.unwrap().revision, won.leader.unwrap()))
    }

    async fn proclaim(&self, leader: Option<LeaderKey>, value: &str) -> Result<i64, Status> {
        let value = value.to_owned().into();
        let request = ProclaimRequest { leader, value };
        let told = self.elections.clone().proclaim(request).await?;
        Ok(told.into_inner().header.unwrap().revision)
    }

    async fn resign(&self, leader: Option<LeaderKey>) -> Result<i64, Status> {
        let request = ResignRequest { leader };
        let resigned = self.elections.clone().resign(request).await?;
        Ok(resigned.into_inner().header.unwrap().revision)
    }

    async fn leader(&self, name: &str) -> Result<(i64, String), Status> {
        let name = name.to_owned().into();
        let found = self
            .elections
            .clone()
            .leader(LeaderRequest { name })
            .await?;
        let found = found.into_inner();
        Ok((
            found.header.unwrap().revision,
            text(&found.kv.unwrap().value),
        ))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A refusal, of which these services give etcd's text and no code.
fn told<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.expect_err("it is refused");
    assert_eq!(status.code(), Code::Unknown, "{status}");
    status.message().to_owned()
}

fn spawn<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(call)
}

async fn end<T>(task: JoinHandle<T>) -> T {
    timeout(PATIENCE, task).await.expect("it hangs").unwrap()
}

/// Runs a test on this server, and on a real etcd of each version.
async fn everywhere<F: Future<Output = ()>>(test: impl Fn(Client) -> F) {
    let server = Server::start().await.unwrap();
    test(Client::connect(server.url()).await).await;
    let etcd = Cluster::builder().start();
    test(Client::connect(&etcd.endpoint(0)).await).await;
    if let Some(program) = server_35() {
        let etcd = Cluster::builder().program(program).start();
        test(Client::connect(&etcd.endpoint(0)).await).await;
    }
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_goes_to_the_next_in_line() {
    everywhere(async |client: Client| {
        for id in 1..=3 {
            client.grant(id, 60).await;
        }
        assert_eq!(client.lock("l", 1).await.unwrap(), (2, "l/1".into()));
        assert_eq!(
            client.lock("l", 1).await.unwrap(),
            (2, "l/1".into()),
            "again"
        );
        let mut waiting = Vec::new();
        for id in [3, 2] {
            let other = client.clone();
            waiting.push(spawn(async move { other.lock("l", id).await }));
            client.until_queued("l", waiting.len() + 1).await;
        }
        assert_eq!(client.unlock("l/1").await.unwrap(), 5);
        let third = end(waiting.remove(0)).await.unwrap();
        assert_eq!(third, (5, "l/3".into()));
        assert!(!waiting[0].is_finished());
        client.revoke(3).await;
        assert_eq!(end(waiting.remove(0)).await.unwrap(), (6, "l/2".into()));
        assert_eq!(client.unlock("l/1").await.unwrap(), 6, "nothing is deleted");
        let key = client.queue("l").await.1.remove(0);
        assert_eq!((key.lease, key.create_revision, key.value.len()), (2, 4, 0));
        assert_eq!(
            told(client.unlock("").await),
            "etcdserver: key is not provided"
        );
        let refused = told(client.lock("l", 77).await);
        assert_eq!(refused, "etcdserver: requested lease not found");
    })
    .await;
}

#[tokio::test]
async fn whoever_brings_no_lease_gets_one_that_lasts_a_minute() {
    everywhere(async |client: Client| {
        let (_, key) = client.lock("l", 0).await.unwrap();
        let held = client.queue("l").await.1.remove(0);
        assert_eq!(key, format!("l/{:x}", held.lease));
        let request = quorate_wire::etcdserverpb::LeaseTimeToLiveRequest {
            id: held.lease,
            keys: true,
        };
        let lease = client
            .leases
            .clone()
            .lease_time_to_live(request)
            .await
            .unwrap();
        let lease = lease.into_inner();
        assert_eq!((lease.granted_ttl, text(&lease.keys[0])), (60, key));
    })
    .await;
}

#[tokio::test]
async fn whoever_goes_away_while_waiting_leaves_the_line() {
    everywhere(async |client: Client| {
        for id in 1..=3 {
            client.grant(id, 60).await;
        }
        client.lock("l", 1).await.unwrap();
        let other = client.clone();
        let second = spawn(async move { other.lock("l", 2).await });
        client.until_queued("l", 2).await;
        let other = client.clone();
        let third = spawn(async move { other.lock("l", 3).await });
        client.until_queued("l", 3).await;
        second.abort();
        client.until_queued("l", 2).await;
        client.unlock("l/1").await.unwrap();
        assert_eq!(end(third).await.unwrap().1, "l/3");
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_was_granted_for_a_wait_goes_with_it() {
    let server = Server::start().await.unwrap();
    let client = Client::connect(server.url()).await;
    client.grant(1, 60).await;
    client.lock("l", 1).await.unwrap();
    let http = Http::new(server.url());
    let body = r#"{"name":"bA=="}"#;
    let wait = [("Grpc-Timeout", "200m")];
    let answer = http.ask("POST", "/v3/lock/lock", &wait, body).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    client.until_queued("l", 1).await;
    assert_eq!(client.leases().await, 1);
    let streams = "etcd_debugging_mvcc_watch_stream_total 0";
    assert!(http.get("/metrics").await.body.contains(streams));

    // So does that of a proclamation that comes to nothing, and of a client that hangs up.
    let leader = LeaderKey {
        key: "absent".into(),
        rev: 5,
        ..LeaderKey::default()
    };
    let refused = told(client.proclaim(Some(leader), "v").await);
    assert_eq!(refused, "election: not leader");
    let headers = [("Content-Length", "15")];
    let waiting = http.start("/v3/lock/lock", &headers, body).await;
    client.until_queued("l", 2).await;
    drop(waiting);
    client.until_queued("l", 1).await;
    assert_eq!(client.leases().await, 1);
}

#[tokio::test]
async fn a_lock_is_not_given_to_whose_lease_has_ended() {
    let server = Server::start().await.unwrap();
    let client = Client::connect(server.url()).await;
    for id in 1..=3 {
        client.grant(id, 60).await;
    }
    client.lock("l", 1).await.unwrap();
    let (first, second) = (client.clone(), client.clone());
    let first = spawn(async move { first.lock("l", 2).await });
    let second = spawn(async move { second.campaign("l", 3, "").await });
    client.until_queued("l", 3).await;
    client.revoke(2).await;
    client.revoke(3).await;
    assert_eq!(told(end(first).await), "mutex: session is expired");
    assert_eq!(told(end(second).await), "election: not leader");
}

#[tokio::test]
async fn calls_that_share_a_lease_share_its_place() {
    let server = Server::start().await.unwrap();
    let client = Client::connect(server.url()).await;
    client.grant(1, 60).await;
    client.grant(2, 60).await;
    client.lock("l", 1).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..3 {
        let other = client.clone();
        calls.push(spawn(async move { other.lock("l", 2).await }));
        client.until_queued("l", 2).await;
    }
    // The others wait on, whichever goes.
    calls.remove(0).abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.queue("l").await.1.len(), 2);
    client.unlock("l/1").await.unwrap();
    for call in calls {
        assert_eq!(end(call).await.unwrap().1, "l/2");
    }
    assert_eq!(client.queue("l").await.1.len(), 1);
}

#[tokio::test]
async fn an_election_has_one_leader_who_tells_a_value() {
    everywhere(async |client: Client| {
        client.grant(1, 60).await;
        client.grant(2, 60).await;
        assert_eq!(told(client.leader("e").await), "election: no leader");
        let (revision, leader) = client.campaign("e", 1, "a").await.unwrap();
        let expected = LeaderKey {
            name: "e".into(),
            key: "e/1".into(),
            rev: 2,
            lease: 1,
        };
        assert_eq!((revision, &leader), (2, &expected));
        let (revision, _) = client.campaign("e", 1, "b").await.unwrap();
        assert_eq!(
            (revision, client.leader("e").await.unwrap()),
            (2, (3, "b".into()))
        );

        let other = client.clone();
        let next = spawn(async move { other.campaign("e", 2, "c").await });
        client.until_queued("e", 2).await;
        assert_eq!(client.proclaim(Some(leader.clone()), "d").await.unwrap(), 5);
        assert_eq!(client.leader("e").await.unwrap(), (5, "d".into()));
        let wrong = LeaderKey {
            rev: 9,
            ..leader.clone()
        };
        let refused = told(client.proclaim(Some(wrong.clone()), "x").await);
        assert_eq!(refused, "election: not leader");
        let lost = LeaderKey {
            lease: 77,
            ..leader.clone()
        };
        let refused = told(client.proclaim(Some(lost), "x").await);
        assert_eq!(refused, "etcdserver: requested lease not found");
        assert_eq!(
            client.resign(Some(wrong)).await.unwrap(),
            5,
            "nobody resigns"
        );

        assert_eq!(client.resign(Some(leader.clone())).await.unwrap(), 6);
        let (revision, won) = end(next).await.unwrap();
        assert_eq!((revision, won.rev, &won.key[..]), (4, 4, &b"e/2"[..]));
        assert_eq!(client.leader("e").await.unwrap(), (6, "c".into()));
        assert_eq!(client.resign(Some(leader)).await.unwrap(), 6);
        let missing = "\"leader\" field must be provided";
        assert_eq!(told(client.proclaim(None, "x").await), missing);
        assert_eq!(told(client.resign(None).await), missing);
        let empty = Some(LeaderKey::default());
        let refused = told(client.resign(empty).await);
        assert_eq!(refused, "etcdserver: key is not provided");
    })
    .await;
}

#[tokio::test]
async fn an_observer_is_told_every_leader_and_value() {
    everywhere(async |client: Client| {
        client.grant(1, 60).await;
        client.grant(2, 60).await;
        // etcd answers when there is a leader, this server at once.
        let mut elections = client.elections.clone();
        let observe = spawn(async move {
            let name = "e".into();
            elections.observe(LeaderRequest { name }).await
        });
        let (_, first) = client.campaign("e", 1, "a").await.unwrap();
        let mut told = end(observe).await.unwrap().into_inner();
        let mut next = async || {
            let next = timeout(PATIENCE, told.message()).await;
            let leader = next.expect("it is silent").unwrap().unwrap();
            let (header, kv) = (leader.header.unwrap(), leader.kv.unwrap());
            (header.revision, text(&kv.key), text(&kv.value))
        };
        assert_eq!(next().await, (2, "e/1".into(), "a".into()));
        client.proclaim(Some(first.clone()), "b").await.unwrap();
        assert_eq!(next().await, (3, "e/1".into(), "b".into()));
        let other = client.clone();
        let campaign = spawn(async move { other.campaign("e", 2, "c").await });
        client.until_queued("e", 2).await;
        client.resign(Some(first)).await.unwrap();
        assert_eq!(next().await, (5, "e/2".into(), "c".into()));
        let (_, second) = end(campaign).await.unwrap();
        client.resign(Some(second)).await.unwrap();
        client.campaign("e", 1, "d").await.unwrap();
        assert_eq!(next().await, (7, "e/1".into(), "d".into()));
    })
    .await;
}

/// Twenty that lock, some of whom give up, and some of whose leases end.
#[tokio::test]
async fn whatever_happens_one_holds_at_a_time_and_in_order() {
    let server = Server::start().await.unwrap();
    let client = Client::connect(server.url()).await;
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(0x5eed);
    println!("SEED={seed}");
    for round in 0..4 {
        schedule(&client, fastrand::Rng::with_seed(seed + round), round).await;
    }
    assert_eq!(client.leases().await, 0);
    let metrics = Http::new(server.url()).get("/metrics").await.body;
    assert!(metrics.contains("etcd_debugging_mvcc_watch_stream_total 0"));
}

async fn schedule(client: &Client, mut random: fastrand::Rng, round: u64) {
    /// When each hold began, by the create revision of its key.
    #[derive(Default)]
    struct Holds {
        holder: Option<i64>,
        order: Vec<i64>,
    }
    let holds = Arc::new(Mutex::new(Holds::default()));
    let name = format!("round-{round}");
    let mut tasks = Vec::new();
    for locker in 0..20 {
        let id = 1000 + locker;
        let (client, name, holds) = (client.clone(), name.clone(), Arc::clone(&holds));
        let mut random = random.fork();
        tasks.push(spawn(async move {
            for _ in 0..6 {
                client.grant(id, 60).await;
                let give_up = Duration::from_micros(random.u64(0..30_000));
                let ends = random.u8(0..4) == 0;
                let lock = async {
                    if !ends {
                        return client.lock(&name, id).await;
                    }
                    let end = async {
                        tokio::time::sleep(give_up).await;
                        client.revoke(id).await;
                    };
                    tokio::join!(client.lock(&name, id), end).0
                };
                // One whose lease has ended before may be told so, or hold no more.
                let outcome = match random.u8(0..3) {
                    0 if !ends => timeout(give_up, lock).await.ok(),
                    _ => Some(timeout(PATIENCE, lock).await.expect("a wake-up is lost")),
                };
                if let (Some(Ok((_, key))), false) = (&outcome, ends) {
                    let found = client.queue(&name).await.1;
                    let first = found.first().expect("the holder's key is there");
                    assert_eq!(text(&first.key), *key, "somebody older is passed over");
                    {
                        let mut holds = holds.lock().unwrap();
                        assert_eq!(holds.holder, None, "two hold");
                        holds.holder = Some(id);
                        holds.order.push(first.create_revision);
                    }
                    tokio::time::sleep(Duration::from_micros(random.u64(0..2000))).await;
                    holds.lock().unwrap().holder = None;
                    client.unlock(key).await.unwrap();
                }
                if !ends {
                    client.revoke(id).await;
                }
            }
        }));
    }
    for task in tasks {
        timeout(PATIENCE * 3, task)
            .await
            .expect("it hangs")
            .unwrap();
    }
    let order = &holds.lock().unwrap().order;
    assert!(order.is_sorted() && order.len() > 20, "{order:?}");
    assert!(client.queue(&name).await.1.is_empty());
}

#[tokio::test]
async fn a_place_is_only_for_who_may_write_its_key() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"r"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("role/add", r#"{"name":"a"}"#),
        // a/ to a0
        (
            "role/grant",
            r#"{"name":"a","perm":{"permType":"READWRITE","key":"YS8=","range_end":"YTA="}}"#,
        ),
        ("user/add", r#"{"name":"u","password":"p"}"#),
        ("user/grant", r#"{"user":"u","role":"a"}"#),
        ("enable", "{}"),
    ] {
        http.json(&format!("/v3/auth/{path}"), body).await;
    }
    let user = r#"{"name":"u","password":"p"}"#;
    let token = http.json("/v3/auth/authenticate", user).await["token"].clone();
    let token = [("Authorization", token.as_str().unwrap())];
    let ask = async |path: &str, token: &[(&str, &str)], body: &str| {
        let answer = http.ask("POST", path, token, body).await;
        (
            answer.status,
            answer.json()["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let denied = (500, "etcdserver: permission denied".to_owned());
    let nobody = (500, "etcdserver: user name is empty".to_owned());
    // a/l and a/e
    for (path, name) in [("lock/lock", "YS9s"), ("election/campaign", "YS9l")] {
        let path = format!("/v3/{path}");
        let allowed = format!(r#"{{"name":"{name}"}}"#);
        assert_eq!(ask(&path, &token, &allowed).await.0, 200);
        assert_eq!(ask(&path, &token, r#"{"name":"Yg=="}"#).await, denied);
        assert_eq!(ask(&path, &[], &allowed).await, nobody);
    }
    assert_eq!(
        ask("/v3/lock/unlock", &token, r#"{"key":"Yi8x"}"#).await,
        denied
    );
    assert_eq!(
        ask("/v3/election/leader", &token, r#"{"name":"Yg=="}"#).await,
        denied
    );
    assert_eq!(
        ask("/v3/election/observe", &token, r#"{"name":"Yg=="}"#).await,
        denied
    );
}

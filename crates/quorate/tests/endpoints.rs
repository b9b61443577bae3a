//! A client goes on while members die, hang, come back or drop off the network, and while its token
//! expires; and its connections can be secured.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use quorate::{
    ErrorKind, Key, LeaseId, Op, Range, Result, Txn, WatchRequest,
    backend::{
        AuthRequest, Backend, BeatStream, Permission, PermissionKind, Status, WatchStream,
        etcd::{Etcd, EtcdOptions, Identity, Tls, User},
    },
};
use support::{
    certificates::Certificates,
    etcd::Cluster,
    proxy::{Network, Proxy},
    until,
};

/// How long one attempt at a member may take in these tests.
const ATTEMPT: Duration = Duration::from_millis(700);

/// The longest that a call may be held up by one bad member, and a stream until it is open again: an
/// attempt, an election, and what a machine under load adds.
const HELD_UP: Duration = Duration::from_millis(4000);

const LEASE: LeaseId = LeaseId(0x5eed);

fn options(endpoints: Vec<String>) -> EtcdOptions {
    EtcdOptions {
        endpoints,
        attempt_timeout: ATTEMPT,
        ..EtcdOptions::default()
    }
}

async fn put(etcd: &Etcd, value: &str) -> Result<()> {
    put_to(etcd, "k", value).await
}

async fn put_to(etcd: &Etcd, key: &str, value: &str) -> Result<()> {
    let put = Txn::new().then(Op::put(key, value));
    etcd.txn(put).await.map(drop)
}

/// A client that does, all the time, what every recipe does: write, watch and keep a lease alive. It
/// handles errors as a recipe must, and remembers the longest time without success of each.
struct Worker<'a> {
    etcd: &'a Etcd,
    /// Its own; nobody else writes it.
    key: String,
    watch: Option<Box<dyn WatchStream>>,
    beats: Option<Box<dyn BeatStream>>,
    longest: [(&'static str, Duration); 3],
    written: u64,
    indefinite: u64,
}

impl<'a> Worker<'a> {
    fn new(etcd: &'a Etcd, key: impl std::fmt::Display) -> Self {
        let longest = ["put", "event", "beat"].map(|what| (what, Duration::ZERO));
        Self {
            etcd,
            key: format!("worker/{key}"),
            watch: None,
            beats: None,
            longest,
            written: 0,
            indefinite: 0,
        }
    }

    /// Works for that long.
    async fn work(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step().await;
        }
    }

    /// Gets one put, its event and one beat through.
    async fn step(&mut self) {
        if self.watch.is_none() {
            self.watch().await;
        }
        let value = (self.written + 1).to_string();
        let begun = Instant::now();
        while let Err(error) = put_to(self.etcd, &self.key, &value).await {
            assert!(error.is_retryable(), "{error}");
            self.indefinite += u64::from(error.is_indefinite());
            assert!(begun.elapsed() < HELD_UP * 3, "{error}");
        }
        self.written += 1;
        self.note(0, begun);
        let begun = Instant::now();
        self.see(&value).await;
        self.note(1, begun);
        let begun = Instant::now();
        self.beat().await;
        self.note(2, begun);
    }

    fn note(&mut self, what: usize, begun: Instant) {
        let longest = &mut self.longest[what].1;
        *longest = begun.elapsed().max(*longest);
    }

    async fn watch(&mut self) {
        let begun = Instant::now();
        loop {
            match self.etcd.watch(WatchRequest::new(&self.key)).await {
                Ok(watching) => return self.watch = Some(watching.stream),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            assert!(begun.elapsed() < HELD_UP * 3, "no watch opens");
        }
    }

    /// Waits for an event, or reads the value once the stream had to be replaced.
    async fn see(&mut self, value: &str) {
        loop {
            let Some(stream) = &mut self.watch else {
                self.watch().await;
                let read = self.etcd.range(Range::new(&self.key)).await;
                if read.is_ok_and(|read| read.kvs[0].value == value) {
                    return;
                }
                continue;
            };
            match tokio::time::timeout(ATTEMPT, stream.next()).await {
                Ok(Some(Ok(batch))) => {
                    if batch.events.iter().any(|event| is_put_of(event, value)) {
                        return;
                    }
                }
                Ok(Some(Err(error))) => {
                    assert!(error.is_retryable(), "{error}");
                    self.watch = None;
                }
                Ok(None) => panic!("an error comes before the end"),
                // An event is overdue, as only the caller can know.
                Err(_) => {
                    stream.distrust();
                    self.watch = None;
                }
            }
        }
    }

    async fn beat(&mut self) {
        loop {
            let Some(stream) = &mut self.beats else {
                match self.etcd.keep_alive().await {
                    Ok(stream) => self.beats = Some(stream),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
                continue;
            };
            let sent = stream.send(LEASE);
            match tokio::time::timeout(ATTEMPT, stream.next()).await {
                Ok(Some(Ok(beat))) => {
                    assert!(sent.is_ok());
                    assert!(!beat.ttl.is_zero(), "the lease is lost");
                    return;
                }
                Ok(Some(Err(error))) => {
                    assert!(error.is_retryable(), "{error}");
                    self.beats = None;
                }
                Ok(None) => panic!("an error comes before the end"),
                Err(_) => {
                    stream.distrust();
                    self.beats = None;
                }
            }
        }
    }

    /// Prints what was measured, and fails the test if anything was held up for too long.
    fn finish(&self, case: &str) {
        let Self {
            longest,
            written,
            indefinite,
            ..
        } = self;
        println!("{case}: {written} puts, {indefinite} indefinite, longest {longest:?}");
        for (what, time) in longest {
            assert!(*time < HELD_UP, "{case}: a {what} took {time:?}");
        }
    }
}

fn is_put_of(event: &quorate::Event, value: &str) -> bool {
    matches!(event, quorate::Event::Put { kv, .. } if kv.value == value)
}

/// A cluster of three, and clients that each begin with a different member.
async fn three() -> (Cluster, Vec<Etcd>) {
    let cluster = Cluster::builder().members(3).fast().start();
    let mut clients: Vec<(u64, Etcd)> = Vec::new();
    while clients.len() < 3 {
        let client = Etcd::new(options(cluster.endpoints())).unwrap();
        let member = client
            .range(Range::new("k"))
            .await
            .unwrap()
            .header
            .member_id;
        if clients.iter().all(|(taken, _)| *taken != member) {
            clients.push((member, client));
        }
    }
    clients[0]
        .1
        .grant(LEASE, Duration::from_secs(60))
        .await
        .unwrap();
    (
        cluster,
        clients.into_iter().map(|(_, client)| client).collect(),
    )
}

/// Runs three workers, one that begins with each member, while `disturb` does harm.
async fn under(case: &str, cluster: &Cluster, clients: &[Etcd], disturb: impl AsyncFn(&Cluster)) {
    let mut workers: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(n, etcd)| Worker::new(etcd, n))
        .collect();
    for worker in &mut workers {
        worker.step().await;
    }
    let working = workers.iter_mut().map(async |worker| {
        worker.work(Duration::from_secs(6)).await;
    });
    let disturbing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        disturb(cluster).await;
    };
    tokio::join!(futures_util::future::join_all(working), disturbing);
    for (index, worker) in workers.iter().enumerate() {
        worker.finish(&format!("{case}, client {index}"));
    }
}

#[tokio::test]
async fn clients_go_on_while_a_follower_is_dead() {
    let (cluster, clients) = three().await;
    let follower = (cluster.leader().unwrap() + 1) % 3;
    under("follower killed", &cluster, &clients, async |cluster| {
        cluster.kill(follower)
    })
    .await;
}

#[tokio::test]
async fn clients_go_on_while_the_leader_is_dead() {
    let (cluster, clients) = three().await;
    let leader = cluster.leader().unwrap();
    under("leader killed", &cluster, &clients, async |cluster| {
        cluster.kill(leader)
    })
    .await;
}

#[tokio::test]
async fn clients_go_on_while_a_member_hangs() {
    let (cluster, clients) = three().await;
    let follower = (cluster.leader().unwrap() + 1) % 3;
    under("follower stopped", &cluster, &clients, async |cluster| {
        cluster.stop(follower)
    })
    .await;
    cluster.cont(follower);
    until("the member is well", async || cluster.is_healthy(follower)).await;
    let leader = cluster.leader().unwrap();
    under("leader stopped", &cluster, &clients, async |cluster| {
        cluster.stop(leader)
    })
    .await;
}

#[tokio::test]
async fn clients_go_on_while_every_member_is_restarted_in_turn() {
    let (cluster, clients) = three().await;
    let restart = async |cluster: &Cluster| {
        for index in 0..3 {
            cluster.restart(index);
            until("the member is back", async || cluster.is_healthy(index)).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    under("each restarted", &cluster, &clients, restart).await;
}

#[tokio::test]
async fn a_client_goes_on_while_its_member_is_black_holed_muted_or_reset() {
    let cluster = Cluster::builder().members(3).fast().start();
    let mut proxies = Vec::new();
    for endpoint in cluster.endpoints() {
        proxies.push(Proxy::before(&endpoint).await);
    }
    let urls: Vec<_> = proxies.iter().map(Proxy::url).collect();
    let etcd = Etcd::new(options(urls)).unwrap();
    etcd.grant(LEASE, Duration::from_secs(60)).await.unwrap();
    let members = etcd.members().await.unwrap();
    for network in [Network::BlackHole, Network::Mute, Network::Reset] {
        let mut worker = Worker::new(&etcd, format!("{network:?}"));
        worker.step().await;
        // The member that serves the client now.
        let id = etcd.range(Range::new("k")).await.unwrap().header.member_id;
        let url = &members
            .iter()
            .find(|member| member.id == id)
            .unwrap()
            .client_urls[0];
        let index = cluster
            .endpoints()
            .iter()
            .position(|endpoint| endpoint == url)
            .unwrap();
        proxies[index].set(network);
        worker.work(Duration::from_secs(3)).await;
        worker.finish(&format!("{network:?}"));
        proxies[index].set(Network::Pass);
    }
}

#[tokio::test]
async fn a_watch_on_a_dead_connection_ends_soon_after_a_call_has_failed_there() {
    let cluster = Cluster::builder().start();
    let proxy = Proxy::before(&cluster.endpoint(0)).await;
    let etcd = Etcd::new(EtcdOptions {
        call_timeout: ATTEMPT,
        ..options(vec![proxy.url()])
    })
    .unwrap();
    let mut watch = etcd.watch(WatchRequest::new("k")).await.unwrap();
    proxy.set(Network::BlackHole);
    let error = etcd.range(Range::new("k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let begun = Instant::now();
    let end = tokio::time::timeout(ATTEMPT * 3, watch.stream.next()).await;
    assert!(end.unwrap().unwrap().unwrap_err().is_retryable());
    println!(
        "watch on a dead connection: ended {:?} after the call",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_write_that_stays_unanswered_is_indefinite_and_made_once() {
    let cluster = Cluster::builder().start();
    let proxy = Proxy::before(&cluster.endpoint(0)).await;
    let etcd = Etcd::new(EtcdOptions {
        call_timeout: ATTEMPT,
        ..options(vec![proxy.url()])
    })
    .unwrap();
    put(&etcd, "1").await.unwrap();
    proxy.set(Network::Mute);
    let error = put(&etcd, "2").await.unwrap_err();
    assert!(error.is_indefinite() && error.is_retryable(), "{error}");
    assert!(error.to_string().starts_with(&proxy.url()), "{error}");
    proxy.set(Network::Pass);
    let read = etcd.range(Range::new("k")).await.unwrap();
    assert_eq!((&read.kvs[0].value, read.kvs[0].version), (&"2".into(), 2));
}

#[tokio::test]
async fn a_member_cut_off_from_its_leader_is_left() {
    let cluster = Cluster::builder().members(3).fast().start();
    // Two of three are gone for the member that is left: it has no leader.
    let lonely = Etcd::new(options(vec![cluster.endpoint(0)])).unwrap();
    put(&lonely, "1").await.unwrap();
    let mut watch = lonely.watch(WatchRequest::new("k")).await.unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let begun = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(20), watch.stream.next()).await;
    let error = end.unwrap().unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    println!(
        "watch without a leader: ended after {:?}: {error}",
        begun.elapsed()
    );
    let error = put(&lonely, "2").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let read = lonely.range(Range::new("k").serializable()).await.unwrap();
    assert_eq!(read.kvs[0].value, "1");
}

/// A cluster with users: `root`, and `user` with the password `secret` and the keys below `mine/`.
async fn with_users() -> Cluster {
    let cluster = Cluster::builder().flag("--auth-token-ttl=1").start();
    let etcd = Etcd::new(options(cluster.endpoints())).unwrap();
    let name = |name: &str| name.to_owned();
    let add = |user: &str, password: &str| AuthRequest::UserAdd {
        name: name(user),
        password: Some(name(password)),
    };
    let grant = |user: &str, role: &str| AuthRequest::UserGrantRole {
        name: name(user),
        role: name(role),
    };
    let permission = Permission {
        kind: PermissionKind::ReadWrite,
        keys: quorate::KeyRange::prefix("mine/"),
    };
    for request in [
        add("root", "toor"),
        add("user", "secret"),
        AuthRequest::RoleAdd { name: name("role") },
        AuthRequest::RoleGrant {
            name: name("role"),
            permission,
        },
        grant("root", "root"),
        grant("user", "role"),
        AuthRequest::Enable,
    ] {
        etcd.auth(request).await.unwrap();
    }
    cluster
}

fn user(name: &str, password: &str) -> Option<User> {
    Some(User {
        name: name.into(),
        password: password.into(),
    })
}

/// Waits until the tokens that were issued have expired: etcd drops them once a second. Asking whether
/// they have would prolong them.
async fn expire() {
    tokio::time::sleep(Duration::from_millis(2500)).await;
}

#[tokio::test]
async fn calls_watches_and_beats_survive_the_end_of_their_token() {
    let cluster = with_users().await;
    let etcd = Etcd::new(EtcdOptions {
        user: user("user", "secret"),
        ..options(cluster.endpoints())
    })
    .unwrap();
    let key = Key::from("mine/k");
    etcd.grant(LEASE, Duration::from_secs(60)).await.unwrap();
    let mut old = etcd.watch(WatchRequest::new(&key)).await.unwrap().stream;
    let mut beats = etcd.keep_alive().await.unwrap();
    beats.send(LEASE).unwrap();
    beats.next().await.unwrap().unwrap();
    expire().await;
    // A watch on the stream whose token has expired.
    let mut new = etcd.watch(WatchRequest::new(&key)).await.unwrap().stream;
    expire().await;
    // A call.
    etcd.txn(Txn::new().then(Op::put(&key, "v"))).await.unwrap();
    for stream in [&mut old, &mut new] {
        let batch = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
        assert_eq!(batch.unwrap().unwrap().unwrap().events.len(), 1);
    }
    // A stream of beats goes on, or ends so that it may be replaced at once.
    beats.send(LEASE).unwrap();
    match beats.next().await.unwrap() {
        Ok(beat) => assert!(!beat.ttl.is_zero()),
        Err(error) => {
            println!("beats with an expired token: {error}");
            assert!(error.is_retryable(), "{error}");
        }
    }
    expire().await;
    // A stream that begins with an expired token.
    let begun = Instant::now();
    loop {
        let mut beats = etcd.keep_alive().await.unwrap();
        beats.send(LEASE).unwrap();
        match beats.next().await.unwrap() {
            Ok(beat) => break assert!(!beat.ttl.is_zero()),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        assert!(begun.elapsed() < HELD_UP);
    }
    // Many calls at once, all with an expired token.
    expire().await;
    let calls = (0..50).map(|_| etcd.range(Range::new(&key)));
    for read in futures_util::future::join_all(calls).await {
        assert_eq!(read.unwrap().count, 1);
    }
}

#[tokio::test]
async fn a_change_of_users_makes_old_tokens_new() {
    let cluster = with_users().await;
    let client = |user| {
        let options = EtcdOptions {
            user,
            ..options(cluster.endpoints())
        };
        Etcd::new(options).unwrap()
    };
    let (root, etcd) = (client(user("root", "toor")), client(user("user", "secret")));
    etcd.range(Range::new("mine/k")).await.unwrap();
    let watch = etcd.watch(WatchRequest::new("mine/k")).await.unwrap();
    for n in 0..3 {
        root.auth(AuthRequest::RoleAdd {
            name: format!("other{n}"),
        })
        .await
        .unwrap();
        etcd.range(Range::new("mine/k")).await.unwrap();
        etcd.watch(WatchRequest::new("mine/k")).await.unwrap();
    }
    drop(watch);
}

#[tokio::test]
async fn what_a_user_may_not_do_is_denied_and_who_is_unknown_is_told() {
    let cluster = with_users().await;
    let client = |user| {
        let options = EtcdOptions {
            user,
            ..options(cluster.endpoints())
        };
        Etcd::new(options).unwrap()
    };
    let etcd = client(user("user", "secret"));
    let error = etcd.range(Range::new("others/k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = etcd
        .watch(WatchRequest::new("others/k"))
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    for stranger in [user("user", "wrong"), user("nobody", "x"), None] {
        let stranger = client(stranger);
        let error = stranger.range(Range::new("mine/k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        let error = stranger
            .watch(WatchRequest::new("mine/k"))
            .await
            .map(drop)
            .unwrap_err();
        println!("a stranger's watch: {error}");
        assert!(!error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn a_user_is_no_obstacle_where_none_is_asked_for() {
    let cluster = Cluster::builder().start();
    let etcd = Etcd::new(EtcdOptions {
        user: user("user", "secret"),
        ..options(cluster.endpoints())
    })
    .unwrap();
    put(&etcd, "v").await.unwrap();
}

async fn status(endpoints: Vec<String>, tls: Tls) -> Result<Status> {
    let options = EtcdOptions {
        tls: Some(tls),
        ..options(endpoints)
    };
    let etcd = Etcd::new(options)?;
    put(&etcd, "v").await?;
    etcd.watch(WatchRequest::new("k")).await?;
    etcd.status(etcd.endpoints().pop()).await
}

#[tokio::test]
async fn members_are_verified_over_tls() {
    let certificates = Certificates::new();
    let ca = Some(certificates.ca.clone().into_bytes());
    let cluster = Cluster::builder().tls(certificates, false).start();
    let trusted = Tls {
        ca: ca.clone(),
        ..Tls::default()
    };
    status(cluster.endpoints(), trusted.clone()).await.unwrap();
    let strange = Tls {
        ca: Some(Certificates::new().ca.into_bytes()),
        ..Tls::default()
    };
    let error = status(cluster.endpoints(), strange).await.unwrap_err();
    println!("a strange authority: {error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.is_indefinite());
    let misnamed = Tls {
        server_name: Some("elsewhere".into()),
        ..trusted.clone()
    };
    let error = status(cluster.endpoints(), misnamed).await.unwrap_err();
    println!("another name: {error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let named = Tls {
        server_name: Some("localhost".into()),
        ..trusted
    };
    status(cluster.endpoints(), named).await.unwrap();
}

#[tokio::test]
async fn a_client_proves_itself_by_its_certificate() {
    let certificates = Certificates::new();
    let anonymous = Tls {
        ca: Some(certificates.ca.clone().into_bytes()),
        ..Tls::default()
    };
    let identity = Identity {
        certificate: certificates.client.certificate.clone().into_bytes(),
        key: certificates.client.key.clone().into_bytes(),
    };
    let cluster = Cluster::builder().tls(certificates, true).start();
    let known = Tls {
        identity: Some(identity),
        ..anonymous.clone()
    };
    status(cluster.endpoints(), known).await.unwrap();
    let error = status(cluster.endpoints(), anonymous).await.unwrap_err();
    println!("without a certificate: {error}");
    assert!(
        error.to_string().contains("want a client certificate"),
        "{error}"
    );
    assert!(!error.is_indefinite(), "{error}");
}

//! What is done with a store, one program for each recipe.
//!
//! The results hardly matter: anything may fail. What counts is that every call ends, and that what is
//! held can be given back.

use std::{fmt::Debug, future::Future, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use quorate::{
    Client, Compare, Instance, KeyRange, KeyValue, Layout, LeaseId, Op, Put, Range, Revision,
    Session, Strategy, Swap, WatchRequest, WhenDown, backend::AuthRequest,
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

/// How long a call may take: far more than its deadline, for those that make several calls.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long something that may never come is waited for.
const A_WHILE: Duration = Duration::from_secs(40);

/// How many items of a stream are looked at.
const MAX_ITEMS: usize = 64;

/// What is done with the store.
pub(crate) type Program = for<'a> fn(&'a Client) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(crate) const PROGRAMS: &[Program] = &[
    |client| Box::pin(keys(client)),
    |client| Box::pin(lock(client)),
    |client| Box::pin(contended(client)),
    |client| Box::pin(session(client)),
    |client| Box::pin(election(client)),
    |client| Box::pin(elector(client)),
    |client| Box::pin(watch(client)),
    |client| Box::pin(observer(client)),
    |client| Box::pin(ephemeral(client)),
    |client| Box::pin(registry(client)),
    |client| Box::pin(tracker(client)),
    |client| Box::pin(config(client)),
    |client| Box::pin(fields(client)),
    |client| Box::pin(health(client)),
    |client| Box::pin(detached(client)),
    |client| Box::pin(leases(client)),
    |client| Box::pin(administration(client)),
    |client| Box::pin(history(client)),
];

/// Makes a call, which ends.
pub(crate) async fn call<T>(what: &str, call: impl Future<Output = T>) -> T {
    let ended = timeout(PATIENCE, call).await;
    ended.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Waits for what may never come.
async fn wait<T>(waiting: impl Future<Output = T>) -> Option<T> {
    timeout(A_WHILE, waiting).await.ok()
}

/// Looks at what a stream tells, which tells nothing after an error.
async fn read<T: Debug, E: Debug>(mut stream: impl Stream<Item = Result<T, E>> + Unpin) {
    for _ in 0..MAX_ITEMS {
        let Some(Some(item)) = wait(stream.next()).await else {
            return;
        };
        if item.is_err() {
            let more = wait(stream.next()).await;
            assert!(matches!(more, Some(None)), "{more:?} after an error");
            return;
        }
    }
}

async fn keys(client: &Client) {
    let _ = call("put", client.put("a", "1")).await;
    if let Ok(Some(kv)) = call("get", client.get("a")).await {
        assert_eq!(kv.key, "a", "the answer is of another key");
    }
    let _ = call("get at", client.get_at("a", Revision(2))).await;
    let _ = call("list", client.list("")).await;
    let small = Range::new(KeyRange::prefix("seed/")).limit(2);
    for page in call("pages", client.pages(small).collect::<Vec<_>>()).await {
        let Ok(page) = page else { break };
        let within = |kv: &KeyValue| kv.key.starts_with(b"seed/");
        assert!(page.kvs.iter().all(within), "keys that were not asked for");
    }
    let _ = call("count", client.count(KeyRange::all())).await;
    let _ = call("put_with", client.put_with(Put::new("a", "2").prev_kv())).await;
    let _ = call("create", client.put_if_absent("b", "1")).await;
    let swap = client.put_if_revision("b", Revision(3), "2");
    if let Ok(Swap::Refused(Some(kv))) = call("put_if_revision", swap).await {
        assert_eq!(kv.key, "b", "the answer is of another key");
    }
    let _ = call("test_and_set", client.test_and_set("b", Some("1"), "3")).await;
    let increment = |kv: Option<&KeyValue>| Some(kv.map_or(0, |kv| kv.value.len()).to_string());
    let _ = call("update", client.update("n", increment)).await;
    let txn = client
        .txn()
        .when(Compare::absent("c"))
        .then(Op::put("c", "1"))
        .then(Op::range("a"))
        .then(Op::delete("b"))
        .or_else(Op::range(KeyRange::all()));
    if let Ok(done) = call("txn", txn.commit()).await {
        let wanted = if done.succeeded { 3 } else { 1 };
        assert_eq!(done.results.len(), wanted, "answers to other operations");
    }
    let _ = call("delete", client.delete(KeyRange::prefix("seed/"))).await;
    let kept = client.put_with_ttl("ttl", "1", Duration::from_secs(5));
    if let Ok(kept) = call("put_with_ttl", kept).await {
        let _ = call("refresh", kept.refresh()).await;
        let _ = call("set", kept.set("2")).await;
        let _ = call("delete", kept.delete()).await;
    }
    let _ = call("compact", client.compact(Revision(2), true)).await;
}

async fn lock(client: &Client) {
    let lock = client.lock("lock");
    if let Some(Ok(guard)) = wait(lock.acquire()).await {
        assert!(guard.key().starts_with(b"lock/"));
        assert!(guard.token() > Revision::ZERO);
        let write = client
            .txn()
            .when(guard.fence())
            .then(Op::put("fenced", "1"));
        let _ = call("fenced write", write.commit()).await;
        let value = guard.fenced("value");
        let _ = call("fenced get", value.get()).await;
        let _ = call("fenced set", value.set("1")).await;
        let _ = call("fenced update", value.update(|_| "2")).await;
        let _ = wait(guard.lost()).await;
        let _ = call("protect", guard.protect(sleep(Duration::from_secs(1)))).await;
        let _ = (guard.is_held(), guard.loss());
        let _ = call("release", guard.release()).await;
    }
    if let Ok(Some(guard)) = call("try", lock.try_acquire()).await {
        drop(guard);
    }
    let limited = lock
        .clone()
        .ttl(Duration::from_secs(3))
        .max_hold(A_WHILE / 4);
    if let Some(Ok(guard)) = wait(limited.acquire()).await {
        // The longest hold ends it at the latest.
        call("the end of the longest hold", guard.lost()).await;
    }
    if let Ok(contenders) = call("contenders", lock.contenders()).await {
        for contender in contenders {
            let _ = call("break", lock.break_hold(contender.token)).await;
        }
    }
}

async fn contended(client: &Client) {
    let lock = client.lock("lock").holder("first");
    let first = wait(lock.acquire()).await;
    let second = wait(lock.acquire()).await;
    drop(first);
    let third = wait(lock.acquire()).await;
    for guard in [second, third].into_iter().flatten().flatten() {
        let _ = call("release", guard.release()).await;
    }
    let run = lock.run(async |guard| guard.is_held());
    let _ = wait(run).await;
}

async fn session(client: &Client) {
    if let Ok(session) = call("session", client.session()).await {
        live(&session).await;
    }
    for ttl in [1, 5, 3600] {
        let own = client.session_with_ttl(Duration::from_secs(ttl));
        if let Ok(session) = call("own session", own).await {
            live(&session).await;
            if let Some(Ok(guard)) = wait(client.lock("lock").session(&session).acquire()).await {
                let _ = call("close", session.close()).await;
                call("loss", guard.lost()).await;
                assert!(!guard.is_held(), "held under a session that is closed");
            }
        }
    }
}

async fn live(session: &Session) {
    let _ = wait(session.state_changed(session.state())).await;
    let _ = wait(session.deadline_changed(session.deadline())).await;
    let _ = wait(session.lost()).await;
    if session.is_lost() {
        sleep(A_WHILE).await;
        assert!(session.is_lost(), "a lost session lives again");
        assert!(session.remaining().is_zero());
    }
}

async fn election(client: &Client) {
    let election = client.election("election").value("me");
    let mut leaders = Box::pin(election.observe());
    let _ = wait(leaders.next()).await;
    if let Some(Ok(mut leading)) = wait(election.campaign()).await {
        assert!(leading.key().starts_with(b"election/"));
        let _ = call("proclaim", leading.proclaim("again")).await;
        let _ = call("set", leading.fenced("value").set("1")).await;
        let _ = wait(leading.lost()).await;
        let _ = call("resign", leading.resign()).await;
    }
    read(leaders).await;
    let _ = call("leader", election.leader()).await;
    let _ = call("candidates", election.candidates()).await;
}

async fn elector(client: &Client) {
    let election = client.election("election").ttl(Duration::from_secs(3));
    let mut elector = election.elector();
    let _ = wait(elector.leading()).await;
    let _ = elector.term().map(|term| term.is_held());
    for _ in 0..4 {
        if !matches!(wait(elector.changed()).await, Some(Ok(_))) {
            break;
        }
    }
    let _ = call("stop", elector.stop()).await;
    let work = async |_| sleep(Duration::from_secs(1)).await;
    let _ = wait(election.run(work)).await;
}

async fn watch(client: &Client) {
    let from = WatchRequest::new(KeyRange::prefix("seed/")).start(Revision(2));
    let all = client.watch(WatchRequest::new(KeyRange::all()).prev_kv());
    let writes = async {
        for step in 0..8 {
            let _ = client.put(format!("seed/{step}"), "new").await;
            sleep(Duration::from_secs(3)).await;
        }
    };
    tokio::join!(read(client.watch(from)), read(all), writes);
}

async fn observer(client: &Client) {
    let seeds = || client.observe(KeyRange::prefix("seed/"));
    let writes = async {
        for step in 0..8 {
            let _ = client.put(format!("seed/{step}"), "new").await;
            let _ = client.delete(format!("seed/{}", step + 1)).await;
            sleep(Duration::from_secs(3)).await;
        }
    };
    tokio::join!(
        read(seeds().prev_kv()),
        read(seeds().from_oldest()),
        read(seeds().from(Revision(2))),
        read(client.observe("seed/3").until_deleted()),
        async { drop(wait(seeds().wait_for(|present| present.is_empty())).await) },
        async { drop(wait(seeds().next_change()).await) },
        writes,
    );
}

async fn ephemeral(client: &Client) {
    let key = client.ephemeral("here").create("1");
    let own = client
        .ephemeral("own")
        .ttl(Duration::from_secs(2))
        .take_over()
        .create("1");
    let (key, own) = tokio::join!(wait(key), wait(own));
    for key in [key, own].into_iter().flatten() {
        let Ok(mut key) = key else { continue };
        let _ = wait(key.set("2")).await;
        for _ in 0..4 {
            if wait(key.changed()).await.is_none() {
                break;
            }
        }
        let _ = (key.token(), key.fence(), key.is_held(), key.error());
        // Somebody deletes it.
        let _ = call("delete", client.delete("here")).await;
        let _ = wait(key.changed()).await;
        let _ = call("release", key.release()).await;
    }
}

async fn registry(client: &Client) {
    for layout in [Layout::Quorate, Layout::Grpc, Layout::Raw] {
        let service = client.service("api").layout(layout);
        let instance = Instance::new("10.0.0.7:80").meta("zone", "b");
        if let Some(Ok(mut registered)) = wait(service.register("1", instance)).await {
            let _ = wait(registered.drain()).await;
            let _ = wait(registered.undrain()).await;
            let _ = wait(registered.changed()).await;
            let _ = call("release", registered.release()).await;
        }
        let _ = call("instances", service.instances()).await;
    }
    let _ = call("services", client.services()).await;
}

async fn tracker(client: &Client) {
    let service = client.service("api");
    let Some(Ok(mut tracker)) = wait(service.track()).await else {
        return;
    };
    let strategies = [
        Strategy::LeastRecentlyFailed,
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::Weighted,
    ];
    let pickers = strategies.map(|strategy| tracker.picker(strategy));
    for step in 0..8 {
        let key = format!("services/api/{}", step % 3);
        let value = format!(r#"{{"address":"h:{step}","weight":{step}}}"#);
        let _ = call("put", client.put(key, value)).await;
        let _ = timeout(Duration::from_secs(3), tracker.next()).await;
        for picker in &pickers {
            if let Some(pick) = picker.pick() {
                pick.failed();
            }
            let _ = picker.pick().map(|pick| pick.succeeded());
        }
        let _ = (tracker.snapshot(), tracker.is_stale());
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Limits {
    #[serde(default)]
    rps: u32,
    #[serde(default)]
    name: String,
}

async fn config(client: &Client) {
    let limits = client
        .config::<Limits>("limits.json")
        .validate(|limits| {
            if limits.rps < 100 {
                Ok(())
            } else {
                Err("too many")
            }
        })
        .default_value(Limits::default());
    let _ = call("get", limits.get()).await;
    let _ = call("set", limits.set(&Limits::default())).await;
    if let Some(Ok(mut watch)) = wait(limits.watch()).await {
        for rps in [1, 1000, 2] {
            let _ = call(
                "put",
                client.put("limits.json", format!(r#"{{"rps":{rps}}}"#)),
            )
            .await;
            let _ = wait(watch.next()).await;
            assert!(
                watch.current().rps < 100,
                "a value that was refused is current"
            );
        }
    }
    let _ = call("update", limits.update(|limits| limits.rps += 1)).await;
    let _ = call(
        "rollback",
        client.config_rollback("limits.json", Revision(4)),
    )
    .await;
}

async fn fields(client: &Client) {
    let limits = client
        .config_prefix::<Limits>("limits/")
        .default_value(Limits::default())
        .debounce(Duration::from_secs(1))
        .when_down(WhenDown::Wait);
    if let Some(Ok(mut watch)) = wait(limits.watch()).await {
        for (key, value) in [
            ("limits/rps", "7"),
            ("limits/name", "x"),
            ("limits/rps/1", "7"),
        ] {
            let _ = call("put", client.put(key, value)).await;
            let _ = wait(watch.next()).await;
        }
    }
    let _ = call("get", limits.get()).await;
}

async fn health(client: &Client) {
    let report = call("check", client.health().check()).await;
    let _ = (report.leader(), format!("{report:?}"));
    let mut monitor = client.health().every(Duration::from_secs(2)).monitor();
    for _ in 0..3 {
        let _ = wait(monitor.changed()).await;
    }
}

async fn detached(client: &Client) {
    let ttl = Duration::from_secs(5);
    let lock = client.lock("lock");
    let Some(Ok(mut hold)) = wait(lock.acquire_detached(ttl)).await else {
        return;
    };
    assert!(hold.key().starts_with(b"lock/"));
    let _ = call("renew", hold.renew(ttl)).await;
    let _ = call("renew for longer", hold.renew(ttl * 2)).await;
    let _ = hold.remaining();
    if let Ok(found) = call("find", lock.find_detached(hold.token())).await {
        assert_eq!(found.token(), hold.token());
    }
    let _ = call("release", hold.release()).await;
}

async fn leases(client: &Client) {
    let granted = call("grant", client.grant_lease(Duration::from_secs(5))).await;
    let lease = granted.map_or(LeaseId(7), |granted| granted.id);
    let _ = call("put", client.put_with(Put::new("leased", "1").lease(lease))).await;
    let _ = call("status", client.lease_status(lease)).await;
    let _ = call("leases", client.leases()).await;
    let _ = call("revoke", client.revoke_lease(lease)).await;
}

async fn administration(client: &Client) {
    let _ = call("members", client.members()).await;
    let _ = call("status", client.status()).await;
    let _ = call("status of", client.status_of("http://other:2379")).await;
    let _ = call("leader", client.cluster_leader()).await;
    let _ = call("alarms", client.alarms()).await;
    let (name, role) = ("alice".to_owned(), "reader".to_owned());
    for request in [
        AuthRequest::Status,
        AuthRequest::UserAdd {
            name: name.clone(),
            password: None,
        },
        AuthRequest::RoleAdd { name: role.clone() },
        AuthRequest::UserGrantRole {
            name: name.clone(),
            role: role.clone(),
        },
        AuthRequest::UserRoles { name: name.clone() },
        AuthRequest::UserList,
        AuthRequest::RolePermissions { name: role.clone() },
        AuthRequest::RoleList,
        AuthRequest::RoleRevoke {
            name: role,
            keys: KeyRange::all(),
        },
        AuthRequest::UserDelete { name },
    ] {
        let _ = call("auth", client.auth(request)).await;
    }
}

async fn history(client: &Client) {
    for step in 0..4 {
        let _ = call("put", client.put("doc", step.to_string())).await;
    }
    if let Ok(history) = call("history", client.config_history("doc")).await {
        let _ = format!("{history:?}");
    }
}

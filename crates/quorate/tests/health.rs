//! The health of clusters: real ones whose members hang, die and run out of space, and a store in
//! memory behind faults.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quorate::{
    Client, ConnectOptions, ErrorKind, Health, HealthMonitor, HealthReport, Op, Problem,
    backend::fault::{CallKind, Fate, Partition},
};
use support::{
    etcd::{Cluster, server, server_35},
    until,
};

const INTERVAL: Duration = Duration::from_millis(50);

/// How long a call may take in these tests.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// A client that is impatient with single members.
async fn connect(endpoints: &[String]) -> Client {
    let url = endpoints.join(",").replace("http://", "");
    let url = format!("etcd://{url}?timeout=1500ms&attempt_timeout=500ms&connect_timeout=500ms");
    Client::connect(url).await.unwrap()
}

fn three() -> Cluster {
    Cluster::builder().members(3).fast().start()
}

/// Waits for a report that is as it should be.
async fn until_report(
    monitor: &mut HealthMonitor,
    what: &str,
    mut is_it: impl FnMut(&HealthReport) -> bool,
) -> Arc<HealthReport> {
    let mut last = None;
    let wait = async {
        loop {
            let report = monitor.changed().await.unwrap();
            last = Some(Arc::clone(&report));
            if is_it(&report) {
                return report;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: {last:#?}"))
}

fn is_up(report: &HealthReport) -> bool {
    report.health == Health::Up
}

/// Whether exactly this is wrong.
fn is_only(report: &HealthReport, problem: Problem, member: &str) -> bool {
    matches!(&*report.reasons, [reason]
        if reason.problem == problem && reason.member.as_deref() == Some(member))
}

scenarios! {
    async fn a_store_that_serves_is_up_and_has_one_member(world: World) {
        let report = world.observer().health().check().await;
        assert_eq!((report.health, &*report.reasons), (Health::Up, &[][..]), "{report:?}");
        let [member] = &*report.members else {
            panic!("{report:?}");
        };
        assert!(member.is_reachable() && member.is_leader && !member.is_learner);
        assert!(member.lag.is_some_and(|lag| lag < 1000));
        assert!(member.status.as_ref().unwrap().db_size > 0 || world.is_virtual());
    }

    async fn a_monitor_tells_changes_and_nothing_else(world: World) {
        let ours = world.join();
        let mut monitor = ours.client.health().every(INTERVAL).monitor();
        assert!(monitor.current().is_none());
        assert!(is_up(&monitor.changed().await.unwrap()));
        let looks = ours.faults.count(CallKind::Range);
        tokio::select! {
            report = monitor.changed() => panic!("nothing changed: {report:?}"),
            // One look more than are counted has ended.
            () = ours.faults.reached(CallKind::Range, looks + 11) => {}
        }
        ours.faults.partition(Partition::Refuse);
        let report = monitor.changed().await.unwrap();
        assert_eq!(report.health, Health::Down);
        assert!(report.has(Problem::NoRead) && report.has(Problem::Unreachable), "{report:?}");
        let looks = ours.faults.count(CallKind::Range);
        tokio::select! {
            report = monitor.changed() => panic!("nothing changed: {report:?}"),
            () = ours.faults.reached(CallKind::Range, looks + 11) => {}
        }
        ours.faults.heal();
        assert!(is_up(&monitor.changed().await.unwrap()));
        assert!(is_up(&monitor.current().unwrap()));
    }

    async fn what_comes_and_goes_between_two_calls_is_skipped(world: World) {
        let ours = world.join();
        let mut monitor = ours.client.health().every(INTERVAL).monitor();
        monitor.changed().await.unwrap();
        ours.faults.partition(Partition::Refuse);
        until("it is down", async || monitor.current().unwrap().health == Health::Down).await;
        ours.faults.heal();
        until("it is up", async || is_up(&monitor.current().unwrap())).await;
        let looks = ours.faults.count(CallKind::Range);
        tokio::select! {
            report = monitor.changed() => panic!("all is as before: {report:?}"),
            () = ours.faults.reached(CallKind::Range, looks + 3) => {}
        }
    }

    async fn a_dropped_monitor_leaves_no_task(world: World) {
        let ours = world.join();
        let before = Arc::strong_count(ours.client.backend());
        let mut monitor = ours.client.health().every(Duration::from_secs(3600)).monitor();
        monitor.changed().await.unwrap();
        drop(monitor);
        until("the task between two looks is gone", async || {
            Arc::strong_count(ours.client.backend()) == before
        })
        .await;
        ours.faults.partition(Partition::Hang);
        let monitor = ours.client.health().monitor();
        ours.faults.reached(CallKind::Range, 2).await;
        drop(monitor);
        until("the task within a look is gone", async || {
            Arc::strong_count(ours.client.backend()) == before
        })
        .await;
    }

    async fn a_look_at_a_store_that_hangs_ends_in_time(world: World) {
        let ours = world.join_with(ConnectOptions::memory().timeout(Duration::from_millis(300)));
        ours.faults.partition(Partition::Hang);
        let check = ours.client.health();
        let report = tokio::time::timeout(Duration::from_secs(5), check.check()).await.unwrap();
        assert_eq!(report.health, Health::Down);
        assert!(report.reasons.iter().all(|reason| reason.detail.contains("no answer in 300ms")));
        ours.faults.heal();
        assert!(is_up(&check.check().await));
    }

    async fn the_last_list_of_members_serves_while_there_is_no_other(world: World) {
        let ours = world.join();
        let check = ours.client.health();
        let whole = check.check().await;
        ours.faults.every(CallKind::Members, Fate::Refuse(ErrorKind::Unavailable));
        let report = check.check().await;
        assert!(is_up(&report));
        assert_eq!(report.members[0].label, whole.members[0].label);
        // Who never saw it calls the member by where it is.
        let report = ours.client.health().check().await;
        assert!(is_up(&report));
        assert_eq!(Some(&report.members[0].label), report.members[0].endpoint.as_ref());
    }

    async fn a_member_that_hangs_is_told_though_the_cluster_serves(world: World) {
        let ours = world.join_with(ConnectOptions::memory().timeout(Duration::from_millis(300)));
        ours.faults.every(CallKind::Status, Fate::HangRequest);
        let report = ours.client.health().check().await;
        assert_eq!(report.health, Health::Degraded);
        assert!(is_only(&report, Problem::Unreachable, &report.members[0].label), "{report:?}");
        // A missing permission is told by a quorum.
        ours.faults.heal();
        ours.faults.every(CallKind::Range, Fate::Refuse(ErrorKind::PermissionDenied));
        assert!(is_up(&ours.client.health().check().await));
    }
}

#[tokio::test]
async fn a_member_that_hangs_dies_and_returns_is_told_each_time() {
    let cluster = three();
    let client = connect(&cluster.endpoints()).await;
    let mut monitor = client.health().every(INTERVAL).monitor();
    let report = until_report(&mut monitor, "all are well", is_up).await;
    let labels: Vec<_> = report.members.iter().map(|member| &*member.label).collect();
    assert_eq!(labels.len(), 3);
    assert!(
        ["m0", "m1", "m2"].iter().all(|name| labels.contains(name)),
        "{labels:?}"
    );
    let leader = &report.leader().unwrap().label;
    let index = (0..3).find(|index| *leader != format!("m{index}")).unwrap();
    let name = format!("m{index}");

    cluster.stop(index);
    let is_missed = |report: &HealthReport| is_only(report, Problem::Unreachable, &name);
    let report = until_report(&mut monitor, "it hangs", is_missed).await;
    assert_eq!(report.health, Health::Degraded);
    let mut others = report.members.iter().filter(|member| member.label != name);
    assert!(others.all(|member| member.is_reachable()), "{report:?}");
    cluster.cont(index);
    until_report(&mut monitor, "it goes on", is_up).await;

    cluster.kill(index);
    until_report(&mut monitor, "it is dead", is_missed).await;
    cluster.restart(index);
    until_report(&mut monitor, "it is back", is_up).await;
}

#[tokio::test]
async fn a_cluster_without_a_quorum_is_down_and_the_members_left_see_no_leader() {
    let cluster = three();
    let client = connect(&cluster.endpoints()).await;
    let mut monitor = client.health().every(INTERVAL).monitor();
    until_report(&mut monitor, "all are well", is_up).await;
    cluster.kill(0);
    cluster.kill(1);
    let report = until_report(&mut monitor, "m2 sees no leader", |report| {
        report.has(Problem::NoLeader)
    })
    .await;
    assert_eq!(report.health, Health::Down);
    let wrong = |problem, member: &str| {
        let mut reasons = report.reasons.iter();
        let member = Some(member.to_owned());
        reasons.any(|reason| reason.problem == problem && reason.member == member)
    };
    assert!(wrong(Problem::Unreachable, "m0") && wrong(Problem::Unreachable, "m1"));
    assert!(
        wrong(Problem::NoLeader, "m2") && report.has(Problem::NoRead),
        "{report:?}"
    );
    // Who comes now has no list, and tells the same with the endpoints.
    let report = client.health().check().await;
    assert_eq!((report.health, report.members.len()), (Health::Down, 3));
    cluster.restart(0);
    cluster.restart(1);
    until_report(&mut monitor, "all are back", is_up).await;
}

#[tokio::test]
async fn a_cluster_that_hangs_holds_up_nobody_beyond_the_timeout() {
    let cluster = three();
    let client = connect(&cluster.endpoints()).await;
    let check = client.health();
    assert!(is_up(&check.check().await));
    (0..3).for_each(|index| cluster.stop(index));
    // A member may finish an answer that it was giving.
    until("nobody answers", async || {
        let report = check.check().await;
        report.members.iter().all(|member| member.error.is_some())
    })
    .await;
    for check in [&check, &client.health()] {
        let begun = Instant::now();
        let report = check.check().await;
        assert_eq!(report.health, Health::Down, "{report:?}");
        assert!(report.members.iter().all(|member| member.error.is_some()));
        assert!(begun.elapsed() < TIMEOUT * 2, "{:?}", begun.elapsed());
    }
    (0..3).for_each(|index| cluster.cont(index));
    until("all are back", async || is_up(&check.check().await)).await;
}

#[tokio::test]
async fn members_beyond_the_endpoints_are_asked_where_they_say() {
    let cluster = three();
    let endpoint = cluster.endpoint(0);
    let client = connect(&[endpoint]).await;
    let report = client.health().check().await;
    assert!(is_up(&report), "{report:?}");
    assert!(
        report.members.iter().all(|member| member.is_reachable()),
        "{report:?}"
    );
    cluster.kill(1);
    until("m1 is missed", async || {
        let report = client.health().check().await;
        report.health == Health::Degraded && is_only(&report, Problem::Unreachable, "m1")
    })
    .await;
    let report = client.health().only_endpoints().check().await;
    assert!(is_up(&report), "{report:?}");
    let asked: Vec<_> = report
        .members
        .iter()
        .filter(|member| member.is_reachable())
        .collect();
    assert!(
        matches!(asked[..], [member] if member.label == "m0"),
        "{report:?}"
    );
    assert!(report.members.iter().all(|member| member.error.is_none()));
}

/// Fills a member's database until writes are refused.
async fn fill(client: &Client) {
    for key in 0_u32.. {
        let put = Op::put(key.to_string(), vec![7; 40_000]);
        let written = client.txn().then(put).commit().await;
        if let Err(error) = written {
            assert!(error.to_string().contains("space"), "{error}");
            return;
        }
    }
}

#[tokio::test]
async fn a_member_out_of_space_is_told_by_name_and_until_the_alarm_is_disarmed() {
    let of_35 = server_35();
    for program in [Some(server()), of_35].into_iter().flatten() {
        let builder = Cluster::builder().program(program).fast();
        let cluster = builder.flag("--quota-backend-bytes=200000").start();
        let client = connect(&cluster.endpoints()).await;
        assert!(is_up(&client.health().check().await));
        fill(&client).await;
        let report = client.health().check().await;
        assert!(is_only(&report, Problem::NoSpace, "m0"), "{report:?}");
        assert_eq!(report.health, Health::Degraded);
        let report = client.health().quota(200_000).check().await;
        assert!(report.has(Problem::NearQuota), "{report:?}");
        cluster.etcdctl(&["alarm", "disarm"]);
        assert!(is_up(&client.health().check().await));
    }
}

#[tokio::test]
async fn a_learner_that_has_not_started_is_told_as_such() {
    let cluster = Cluster::builder().fast().start();
    let client = connect(&cluster.endpoints()).await;
    let peer = "--peer-urls=http://127.0.0.1:9";
    cluster.etcdctl(&["member", "add", "late", "--learner", peer]);
    let report = client.health().check().await;
    assert_eq!(report.health, Health::Degraded);
    let [reason] = &*report.reasons else {
        panic!("{report:?}");
    };
    assert_eq!(reason.detail, "it has not started yet");
    let learner = report
        .members
        .iter()
        .find(|member| member.is_learner)
        .unwrap();
    assert_eq!(reason.member.as_deref(), Some(&*learner.label));
}

#[tokio::test]
async fn users_see_the_health_whatever_rights_they_have() {
    for program in [Some(server()), server_35()].into_iter().flatten() {
        let builder = Cluster::builder().program(program).fast();
        let cluster = builder.flag("--quota-backend-bytes=200000").start();
        for arguments in [
            &["user", "add", "root:root"][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", "guest:guest"],
            &["auth", "enable"],
        ] {
            cluster.etcdctl(arguments);
        }
        let host = cluster.endpoint(0).replace("http://", "");
        let connect = async |user: &str| {
            let url = format!("etcd://{user}:{user}@{host}");
            Client::connect(url).await.unwrap()
        };
        let (root, guest) = (connect("root").await, connect("guest").await);
        // It has no token yet.
        let report = root.health().check().await;
        assert!(report.leader().is_some(), "{report:?}");
        let denied = guest.get("health").await.unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
        for client in [&root, &guest] {
            let report = client.health().check().await;
            assert!(is_up(&report), "{report:?}");
            assert_eq!(report.members[0].label, "m0");
            assert!(report.members[0].is_reachable());
        }
        fill(&root).await;
        for client in [&root, &guest] {
            let report = client.health().check().await;
            assert!(is_only(&report, Problem::NoSpace, "m0"), "{report:?}");
        }
        let stranger = Client::connect(format!("etcd://{host}")).await.unwrap();
        let report = stranger.health().check().await;
        assert_eq!(report.health, Health::Down);
        assert!(
            report.has(Problem::NoRead) && !report.has(Problem::Unreachable),
            "{report:?}"
        );
    }
}

//! `quorate health`, through the real program and with members that hang, die and run out of space.
#![allow(clippy::unwrap_used)] // in what the tests share

mod support;

use std::{
    io::{BufRead, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use support::{Ran, etcd::Cluster, quorate};

const PATIENCE: Duration = Duration::from_secs(30);

/// `quorate health` with every member of the cluster.
fn health(cluster: &Cluster, arguments: &[&str]) -> Command {
    let hosts = cluster.endpoints().join(",").replace("http://", "");
    let url = format!("etcd://{hosts}?attempt_timeout=500ms&connect_timeout=500ms");
    let mut command = quorate();
    command.args(["--url", &url, "--timeout", "1500ms", "health"]);
    command.args(arguments);
    command
}

/// Runs it once; returns the exit status, the members' lines, and the cluster's fields.
fn look(cluster: &Cluster) -> (i32, Vec<String>, Vec<String>) {
    let ran = Ran::of(health(cluster, &[]), b"");
    assert_eq!(ran.stderr, "");
    let printed = String::from_utf8(ran.stdout).unwrap();
    let mut lines: Vec<_> = printed.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap();
    let fields: Vec<_> = last.split('\t').map(str::to_owned).collect();
    assert_eq!(
        (fields.len(), fields[0].as_str()),
        (5, "cluster"),
        "{printed}"
    );
    (ran.code.unwrap(), lines, fields)
}

/// As JSON: the members, and the cluster.
fn look_json(cluster: &Cluster) -> (Option<i32>, Vec<Json>, Json) {
    let ran = Ran::of(health(cluster, &["-o", "json"]), b"");
    let printed = String::from_utf8(ran.stdout).unwrap();
    let lines = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Json> = lines.collect();
    let cluster = lines.pop().unwrap();
    (ran.code, lines, cluster)
}

/// A run with `--watch`, whose lines come with a bound on the wait.
struct Watch {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn begin(cluster: &Cluster) -> Self {
        let mut process = health(cluster, &["--watch", "--interval", "50ms"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Lines<BufReader<ChildStdout>> =
            BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::sync_channel(100);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            process,
            lines: receiver,
        }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_member_that_hangs_is_named_and_the_exit_status_tells() {
    let cluster = Cluster::builder().members(3).fast().start();
    let (code, members, fields) = look(&cluster);
    assert_eq!(
        (code, &*fields[1], &*fields[4]),
        (0, "up", ""),
        "{fields:?}"
    );
    assert_eq!(members.len(), 3);
    let leader = fields[2].clone();
    let lead = format!("{leader}\thttp://127.0.0.1:");
    let line = members.iter().find(|line| line.starts_with(&lead)).unwrap();
    assert!(line.contains("\tleader\t3."), "{line}");
    let index = (0..3).find(|index| leader != format!("m{index}")).unwrap();
    let watch = Watch::begin(&cluster);
    assert_eq!(
        watch.line(),
        format!("cluster\tup\t{leader}\t{}\t", fields[3])
    );

    cluster.stop(index);
    let begun = Instant::now();
    let (code, members, fields) = look(&cluster);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((code, &*fields[1]), (1, "degraded"), "{fields:?}");
    let reason = format!("m{index} is unreachable: {}", cluster.endpoint(index));
    assert!(
        fields[4].starts_with(&reason) && !fields[4].contains("; m"),
        "{fields:?}"
    );
    let silent = format!("m{index}\t{}\tunreachable\t\t\t", cluster.endpoint(index));
    assert!(members.contains(&silent), "{members:?}");
    assert!(
        watch
            .line()
            .starts_with(&format!("cluster\tdegraded\t{leader}\t"))
    );

    let (code, members, whole) = look_json(&cluster);
    assert_eq!((code, &whole["health"]), (Some(1), &json!("degraded")));
    let [reason] = &whole["reasons"].as_array().unwrap()[..] else {
        panic!("{whole}");
    };
    assert_eq!(reason["problem"], "unreachable");
    assert_eq!(reason["member"], format!("m{index}"));
    let states: Vec<_> = members.iter().map(|member| &member["state"]).collect();
    assert_eq!(
        states
            .iter()
            .filter(|state| **state == "unreachable")
            .count(),
        1
    );

    cluster.cont(index);
    // Who was away may call an election first; each line tells something else all the same.
    let mut before = String::new();
    while !before.starts_with("cluster\tup\t") {
        let line = watch.line();
        assert_ne!(line, before);
        before = line;
    }
}

#[test]
fn a_cluster_without_a_quorum_is_down_and_tells_who_is_missing() {
    let cluster = Cluster::builder().members(3).fast().start();
    cluster.kill(0);
    cluster.kill(2);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, _, fields) = look(&cluster);
        assert_eq!((code, &*fields[1]), (9, "down"), "{fields:?}");
        let told = |text: &str| fields[4].contains(text);
        assert!(
            told("the cluster serves no linearizable read"),
            "{fields:?}"
        );
        for index in [0, 2] {
            let missing = format!("is unreachable: {}", cluster.endpoint(index));
            assert!(told(&missing), "{fields:?}");
        }
        // It takes an election's time until the last one sees it. By then there is no list of members
        // to take its name from.
        let label = if told("m0 is") {
            "m1".to_owned()
        } else {
            cluster.endpoint(1)
        };
        if told(&format!("{label} sees no leader")) {
            return;
        }
        assert!(Instant::now() < deadline, "{fields:?}");
    }
}

#[test]
fn a_member_out_of_space_is_named() {
    let builder = Cluster::builder()
        .fast()
        .flag("--quota-backend-bytes=200000");
    let cluster = builder.start();
    let value = "v".repeat(40_000);
    let servers = cluster.endpoint(0);
    let refused = (0..100).find(|key| {
        let mut set = quorate();
        set.args(["-s", &servers, "set", &key.to_string(), &value]);
        Ran::of(set, b"").code != Some(0)
    });
    assert!(refused.is_some(), "the quota is never exhausted");
    let (code, members, fields) = look(&cluster);
    assert_eq!((code, members.len(), &*fields[1]), (1, 1, "degraded"));
    assert!(fields[4].starts_with("m0 raised NOSPACE: "), "{fields:?}");
    let near = Ran::of(health(&cluster, &["--quota", "200000"]), b"");
    let near = String::from_utf8(near.stdout).unwrap();
    assert!(near.contains("; m0 is near its quota: "), "{near}");
}

#[test]
fn a_cluster_that_nobody_answers_for_is_down_with_a_report() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = quorate();
    command.args(["-s", &dead, "health"]);
    let ran = Ran::of(command, b"");
    assert_eq!((ran.code, &*ran.stderr), (Some(9), ""));
    let printed = String::from_utf8(ran.stdout).unwrap();
    let member = format!("http://{dead}\thttp://{dead}\tunreachable\t\t\t\ncluster\tdown\t\t");
    assert!(printed.starts_with(&member), "{printed}");
}

#[test]
fn the_memory_store_is_up() {
    let run = |arguments: &[&str]| {
        let mut command = quorate();
        command.args(["--url", "mem:", "health"]).args(arguments);
        Ran::of(command, b"")
    };
    let printed = run(&[]).ok();
    assert!(printed.starts_with("mem\tmem:\tleader\t"), "{printed}");
    assert!(
        printed.ends_with("\ncluster\tup\tmem\tmem\t\n"),
        "{printed}"
    );
    for arguments in [
        &["--interval", "1s"][..],
        &["--quota", "many"],
        &["--watch", "--interval", "x"],
    ] {
        run(arguments).failure(2);
    }
}

//! `register`, `services` and `discover`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // in what the tests share

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use running::{Running, etcd, is_dead, pid, quorate, run, until};
use support::Place;

mod running;
mod support;

const TTL: Duration = Duration::from_secs(2);

/// Serves until it is told to end, and says so.
const SERVER: &str = "trap 'echo asked; exit 7' TERM; echo $$; while :; do sleep 0.01; done";

fn register(url: &str, service: &str, more: &[&str], script: &str) -> Running {
    let register = ["register", service, "a", "h:1", "-t", "2s"];
    quorate(
        url,
        &[&register, more, &["--", "sh", "-c", script]].concat(),
    )
}

/// Prints what becomes of a service; it has begun when this returns.
fn watch(url: &str, service: &str) -> Running {
    let other = quorate(url, &["register", service, "z", "h:9"]);
    other.line();
    let watch = quorate(url, &["discover", service, "--watch"]);
    assert_eq!(watch.line(), "joined\tz\th:9\t1\t\t{}");
    drop(other);
    watch
}

fn lines(watch: &Running, id: &str) -> impl Iterator<Item = String> {
    std::iter::repeat_with(|| watch.line()).filter(move |line| line.split('\t').nth(1) == Some(id))
}

fn ids(url: &str, service: &str) -> Vec<String> {
    let printed = run(url, &["discover", service]).stdout;
    printed
        .lines()
        .filter_map(|line| Some(line.split_once('\t')?.0.to_owned()))
        .collect()
}

#[test]
fn what_is_registered_is_found_as_text_and_json() {
    let place = Place::new("discovery-found");
    let url = place.url();
    let none = run(url, &["discover", "api"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""));
    let meta = [
        "--meta",
        "zone=b",
        "--meta",
        "url=http://x?a=b",
        "--weight",
        "3",
    ];
    let mut a = quorate(url, &[&["register", "api", "a", "h:1"], &meta[..]].concat());
    let line = a.line();
    let (key, token) = line.split_once('\t').unwrap();
    assert_eq!(
        (key, token.parse::<i64>().is_ok()),
        ("services/api/a", true)
    );
    let b = quorate(url, &["register", "api", "b", "h:2"]);
    b.line();
    let c = quorate(url, &["register", "db", "c", "h:3"]);
    c.line();

    let printed = place.ok(&["discover", "api"]);
    let a_line = "a\th:1\t3\t\t{\"url\":\"http://x?a=b\",\"zone\":\"b\"}";
    assert_eq!(printed, format!("{a_line}\nb\th:2\t1\t\t{{}}\n"));
    let json = place.json(&["discover", "api"]);
    assert_eq!(json[0]["metadata"]["zone"], "b");
    assert_eq!(
        (&json[1]["id"], &json[1]["weight"]),
        (&"b".into(), &1.into())
    );
    assert_eq!(place.ok(&["services"]), "api\t2\ndb\t1\n");
    assert_eq!(place.json(&["services"])[1]["service"], "db");

    assert_eq!(a.interrupt(), Some(0));
    assert_eq!(ids(url, "api"), ["b"]);
}

#[test]
fn what_others_wrote_is_found_and_what_is_malformed_is_told() {
    let place = Place::new("discovery-layouts");
    place.ok(&[
        "set",
        "grpc/api/h:1",
        r#"{"Op":0,"Addr":"h:1","Metadata":"x"}"#,
    ]);
    let found = place.ok(&["discover", "grpc/api", "--layout", "grpc"]);
    assert_eq!(found, "h:1\th:1\t1\t\t\"x\"\n");
    let raw = quorate(
        place.url(),
        &["register", "raw", "7", "text", "--layout", "raw"],
    );
    raw.line();
    assert_eq!(place.ok(&["get", "raw/7"]), "text\n");
    assert_eq!(
        place.ok(&["discover", "raw", "--layout", "raw"]),
        "7\ttext\t1\t\t{}\n"
    );
    place.ok(&["set", "services/api/a", "?"]);
    let found = place.run(&["discover", "api"]);
    assert!(
        found.stderr.contains("services/api/a is no instance"),
        "{found:?}"
    );
    for wrong in [
        &["register", "a/b", "x", "h:1"][..],
        &["register", "a", "x/y", "h:1"],
        &["register", "a", "x", ""],
        &["register", "a", "x", "h:1", "--meta", "zone"],
        &[
            "register", "a", "x", "h:1", "--layout", "raw", "--weight", "2",
        ],
        &["discover", ""],
    ] {
        place.run(wrong).failure(2);
    }
}

#[test]
fn a_command_that_ends_ends_its_registration_at_once() {
    let url = etcd::shared();
    let watch = watch(&url, "ends");
    let mut server = register(&url, "ends", &[], "echo on; read x; exit 3");
    server.line();
    assert_eq!(
        lines(&watch, "a").next().unwrap(),
        "joined\ta\th:1\t1\t\t{}"
    );
    let told = Instant::now();
    server.say("end");
    assert_eq!(lines(&watch, "a").next().unwrap(), "left\ta");
    assert!(told.elapsed() < Duration::from_secs(1));
    assert_eq!(server.ended().code, Some(3));
}

#[test]
fn asked_to_end_it_drains_first_then_ends_the_command_then_the_registration() {
    let url = etcd::shared();
    let watch = watch(&url, "drains");
    let mut server = register(&url, "drains", &["--drain", "700ms"], SERVER);
    let command = pid(server.line().parse().unwrap());
    let mut seen = lines(&watch, "a");
    seen.next();
    let told = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(seen.next().unwrap(), "updated\ta\th:1\t1\tdraining\t{}");
    assert!(!is_dead(command));
    assert_eq!(seen.next().unwrap(), "left\ta");
    assert!(told.elapsed() >= Duration::from_millis(700));
    let ended = server.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(7), "asked"));
}

#[test]
fn a_second_signal_is_passed_on_at_once() {
    let url = etcd::shared();
    let watch = watch(&url, "second");
    let mut server = register(&url, "second", &["--drain", "60s"], SERVER);
    server.line();
    let mut seen = lines(&watch, "a");
    seen.next();
    server.signal(Signal::SIGTERM);
    let told = seen.next().unwrap();
    assert!(told.contains("draining"), "{told}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code, Some(7));
}

#[test]
fn a_registration_whose_process_is_killed_vanishes_in_time_and_so_does_the_command() {
    let url = etcd::shared();
    let watch = watch(&url, "killed");
    let server = register(&url, "killed", &[], SERVER);
    let command = pid(server.line().parse().unwrap());
    let mut seen = lines(&watch, "a");
    seen.next();
    let killed = Instant::now();
    server.signal(Signal::SIGKILL);
    assert_eq!(seen.next().unwrap(), "left\ta");
    assert!(
        killed.elapsed() < TTL + Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    until("the command is dead", || is_dead(command));
}

#[test]
fn an_id_that_is_taken_ends_the_command_and_one_that_is_taken_over_the_former() {
    let url = etcd::shared();
    let mut first = register(&url, "taken", &[], SERVER);
    first.line();
    until("it is registered", || ids(&url, "taken") == ["a"]);
    let mut second = register(&url, "taken", &[], SERVER);
    let ended = second.ended();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("--take-over"), "{ended:?}");
    assert!(ended.stdout.ends_with("asked"));
    let mut third = register(&url, "taken", &["--take-over"], SERVER);
    third.line();
    let ended = first.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(76), "asked"));
    assert_eq!(ids(&url, "taken"), ["a"]);
    third.signal(Signal::SIGTERM);
    assert_eq!(third.ended().code, Some(7));

    let missing = run(
        &url,
        &["register", "taken", "b", "h:2", "--", "no-such-program"],
    );
    assert_eq!(missing.code, Some(127));
    assert_eq!(ids(&url, "taken"), Vec::<String>::new());
}

#[test]
fn a_registration_that_is_deleted_comes_back_and_the_command_runs_on() {
    let url = etcd::shared();
    let mut server = register(&url, "heals", &[], SERVER);
    server.line();
    until("it is registered", || ids(&url, "heals") == ["a"]);
    assert_eq!(run(&url, &["delete", "services/heals/a"]).code, Some(0));
    until("it is back", || ids(&url, "heals") == ["a"]);
    assert!(server.is_running());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code, Some(7));
}

#[test]
fn when_the_store_dies_a_watch_says_so_and_a_registration_outlives_it() {
    let cluster = etcd::Cluster::builder().start();
    let url = cluster.endpoint(0);
    let mut watch = watch(&url, "api");
    let mut server = register(&url, "api", &["--drain", "0"], SERVER);
    server.line();
    assert!(lines(&watch, "a").next().unwrap().starts_with("joined"));
    cluster.kill(0);
    // Until its lease would be over, so that it has to be made again.
    std::thread::sleep(TTL + Duration::from_secs(1));
    cluster.restart(0);
    until("the store is back", || cluster.is_healthy(0));
    let late = quorate(&url, &["register", "api", "b", "h:2"]);
    late.line();
    assert_eq!(
        lines(&watch, "b").next().unwrap(),
        "joined\tb\th:2\t1\t\t{}"
    );
    until("it is registered", || {
        ids(&url, "api").contains(&"a".to_owned())
    });
    assert!(server.is_running());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code, Some(7));
    watch.signal(Signal::SIGTERM);
    let told = watch.ended().stderr;
    assert!(
        told.contains("may be out of date") && told.contains("is up to date again"),
        "{told}"
    );
}

//! `observe`: keys followed for ever, through the real program on a real etcd.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share

mod running;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use running::{Running, etcd::Cluster, is_dead, pid, quorate, until};
use serde_json::{Value as Json, json};
use support::{Place, Ran};
use tempfile::TempDir;

fn set(place: &Place, key: &str, value: &str) -> i64 {
    place.ok(&["set", key, value]).trim().parse().unwrap()
}

fn parsed(line: &str) -> Json {
    serde_json::from_str(line).unwrap()
}

/// The lines of a file that is being written.
fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_keys_are_told_and_then_every_change() {
    let place = Place::new("observe");
    let first = set(&place, "a/1", "one");
    set(&place, "b", "other");
    let text = quorate(place.url(), &["observe", "a/", "--prev"]);
    let json = quorate(place.url(), &["-o", "json", "observe", "a/", "--prev"]);
    assert!(text.line().starts_with("reset\t"));
    assert_eq!(text.line(), "key\ta/1\tone");
    let reset = parsed(&json.line());
    assert_eq!(
        (&reset["type"], &reset["kvs"][0]["value"]),
        (&json!("reset"), &json!("one"))
    );
    assert!(reset["revision"].as_i64().unwrap() > first);

    let revision = set(&place, "a/1", "two");
    set(&place, "b", "other");
    assert_eq!(text.line(), "put\ta/1\ttwo\tone");
    let put = parsed(&json.line());
    assert_eq!(
        (&put["type"], &put["prev"]["value"]),
        (&json!("put"), &json!("one"))
    );
    assert_eq!(put["mod_revision"], revision);
    place.ok(&["delete", "a/1"]);
    assert_eq!(text.line(), "delete\ta/1\ttwo");
    let delete = parsed(&json.line());
    assert_eq!(
        (&delete["type"], &delete["prev"]["value"]),
        (&json!("delete"), &json!("two"))
    );
}

#[test]
fn where_it_begins_and_what_it_tells_can_be_chosen() {
    let place = Place::new("observe-filters");
    let first = set(&place, "k", "1").to_string();
    set(&place, "k2", "other");
    place.ok(&["delete", "k"]);
    let from = quorate(place.url(), &["observe", "k", "--exact", "--from", &first]);
    let puts = quorate(place.url(), &["observe", "k", "--from-oldest", "--puts"]);
    let deletes = quorate(place.url(), &["observe", "k", "--from-oldest", "--deletes"]);
    set(&place, "k", "2");
    for line in ["put\tk\t1", "delete\tk", "put\tk\t2"] {
        assert_eq!(from.line(), line);
    }
    for line in ["put\tk\t1", "put\tk2\tother", "put\tk\t2"] {
        assert_eq!(puts.line(), line);
    }
    place.ok(&["delete", "k2"]);
    for line in ["delete\tk", "delete\tk2"] {
        assert_eq!(deletes.line(), line);
    }
    let now = quorate(place.url(), &["observe", "k", "--from-now"]);
    until("it tells the next change", || {
        set(&place, "k", "3");
        !now.is_silent()
    });
}

#[test]
fn it_ends_with_the_deletion_of_the_key() {
    let place = Place::new("observe-deleted");
    set(&place, "k", "1");
    let mut observing = quorate(place.url(), &["observe", "k", "--exact", "--until-deleted"]);
    assert!(observing.line().starts_with("reset\t"));
    assert_eq!(observing.line(), "key\tk\t1");
    set(&place, "k2", "another");
    place.ok(&["delete", "k"]);
    let ended = observing.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "delete\tk"));
    place.run(&["observe", "k", "--until-deleted"]).failure(2);
}

#[test]
fn lost_history_is_told_by_a_reset() {
    let cluster = Cluster::builder().start();
    let url = cluster.endpoint(0);
    for value in ["1", "2"] {
        assert_eq!(running::run(&url, &["set", "k", value]).code, Some(0));
    }
    let newest = running::run(&url, &["set", "k", "3"]).stdout;
    assert_eq!(
        running::run(&url, &["compact", newest.trim()]).code,
        Some(0)
    );
    let observing = quorate(&url, &["observe", "k", "--from", "2"]);
    assert_eq!(observing.line(), format!("reset\t{}", newest.trim()));
    assert_eq!(observing.line(), "key\tk\t3");

    // Killed and started again, it goes on where it was.
    cluster.restart(0);
    until("the server answers", || cluster.is_healthy(0));
    assert_eq!(running::run(&url, &["set", "k", "4"]).code, Some(0));
    assert_eq!(observing.line(), "put\tk\t4");
}

#[test]
fn nobody_to_observe_is_a_failure_in_time() {
    let ran = running::run("127.0.0.1:1", &["observe", "k", "--timeout", "300ms"]);
    assert!(matches!(ran.code, Some(8 | 9)), "{ran:?}");
}

#[test]
fn a_command_runs_for_each_event_in_order_and_is_told_of_it() {
    let place = Place::new("observe-exec");
    let log = Log::new();
    set(&place, "k/1", "old");
    let script = format!(
        "read -r line; echo \"$QUORATE_EVENT $QUORATE_KEY=$QUORATE_VALUE was $QUORATE_PREV_VALUE\" \
         >> {0}; echo \"$line\" >> {0}",
        log.path().display()
    );
    let _observing = quorate(place.url(), &["observe", "k/", "--prev", "--exec", &script]);
    until("the keys are told", || log.lines().len() == 2);
    let revision = Ran::of(
        place.command(&["-o", "json", "txn"]),
        b"\nput k/1 new\ndel k/2\nput k/3 more\n",
    );
    let revision = parsed(&revision.ok())["revision"].as_i64().unwrap();
    place.ok(&["delete", "k/1"]);
    until("all events are told", || log.lines().len() == 8);
    let lines = log.lines();
    let (told, json): (Vec<_>, Vec<_>) = lines
        .chunks(2)
        .map(|two| (two[0].as_str(), parsed(&two[1])))
        .unzip();
    let expected = [
        "reset = was ",
        "put k/1=new was old",
        "put k/3=more was ",
        "delete k/1= was new",
    ];
    assert_eq!(told, expected);
    assert_eq!(json[0]["kvs"][0]["value"], "old");
    assert_eq!(
        (&json[1]["mod_revision"], &json[2]["mod_revision"]),
        (&json!(revision), &json!(revision))
    );
    assert_eq!(json[3]["prev"]["value"], "new");
}

#[test]
fn what_no_variable_can_hold_is_left_out_of_the_environment_and_that_is_told() {
    let place = Place::new("observe-omitted");
    let log = Log::new();
    let script = format!(
        "wc -c > /dev/null; echo \"${{QUORATE_VALUE-none}} $QUORATE_VALUE_OMITTED\" >> {}",
        log.path().display()
    );
    let mut command = place.command(&["observe", "k", "--from-oldest", "--", "sh", "-c", &script]);
    command.env("QUORATE_VALUE", "stale");
    Ran::of(place.command(&["set", "k", "-"]), b"a\0b").ok();
    Ran::of(place.command(&["set", "k", "-"]), &[b'x'; 300_000]).ok();
    set(&place, "k", "v");
    let _observing = Running::start(command);
    until("all events are told", || log.lines().len() == 3);
    assert_eq!(log.lines(), ["none nul", "none large", "v "]);
}

#[test]
fn a_command_that_fails_is_told_and_the_next_event_follows() {
    let place = Place::new("observe-failing");
    let log = Log::new();
    let script = format!(
        "echo $QUORATE_VALUE >> {}; [ $QUORATE_VALUE != bad ] || exit 3",
        log.path().display()
    );
    set(&place, "k", "bad");
    set(&place, "k", "good");
    let from = &["observe", "k", "--from-oldest", "--exec", &script];
    let mut going_on = quorate(place.url(), from);
    until("both are told", || log.lines() == ["bad", "good"]);
    assert_eq!(going_on.interrupt(), Some(130));

    let mut stopping = quorate(
        place.url(),
        &[from as &[&str], &["--stop-on-failure"]].concat(),
    );
    let ended = stopping.ended();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.stderr.contains("put of k at revision"),
        "{}",
        ended.stderr
    );
    assert_eq!(log.lines(), ["bad", "good", "bad"]);
    let missing = [
        "observe",
        "k",
        "--stop-on-failure",
        "--",
        "no-such-command-here",
    ];
    assert_eq!(running::run(place.url(), &missing).code, Some(127));
}

#[test]
fn a_slow_command_loses_no_event_and_memory_does_not_grow() {
    const VALUES: usize = 48;
    let place = Place::new("observe-slow");
    let log = Log::new();
    let go = log.path().with_file_name("go");
    let script = format!(
        "until [ -e {} ]; do sleep 0.01; done; wc -c >> {}",
        go.display(),
        log.path().display()
    );
    let observing = quorate(place.url(), &["observe", "k", "--exec", &script]);
    let started =
        || fs::read_dir(format!("/proc/{}/task", observing.pid())).is_ok() && has_child(&observing);
    until("the first command runs", started);
    let value = vec![b'x'; 1 << 20];
    for _ in 0..VALUES {
        Ran::of(place.command(&["set", "k", "-"]), &value).ok();
    }
    let resident = resident(&observing);
    assert!(resident < 40 << 20, "{resident} bytes");
    fs::write(go, "").unwrap();
    until("all events are told", || log.lines().len() == VALUES + 1);
    let all_whole = log.lines()[1..]
        .iter()
        .all(|line| line.trim().parse::<usize>().unwrap() > value.len());
    assert!(all_whole);
}

#[test]
fn a_signal_is_passed_on_to_the_command_and_no_other_runs() {
    let place = Place::new("observe-signal");
    let log = Log::new();
    let script = format!(
        "trap 'echo heard >> {0}; exit 0' TERM; echo $$ >> {0}; while :; do sleep 0.01; done",
        log.path().display()
    );
    set(&place, "k", "1");
    set(&place, "k", "2");
    let mut observing = quorate(
        place.url(),
        &["observe", "k", "--from-oldest", "--exec", &script],
    );
    until("a command runs", || log.lines().len() == 1);
    let command = pid(log.lines()[0].parse().unwrap());
    observing.signal(Signal::SIGTERM);
    assert_eq!(observing.ended().code, Some(143));
    assert!(is_dead(command));
    assert_eq!(log.lines().len(), 2);
    assert_eq!(log.lines()[1], "heard");
}

/// A file that commands write to.
struct Log {
    path: PathBuf,
    _directory: TempDir,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            path: directory.path().join("log"),
            _directory: directory,
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn lines(&self) -> Vec<String> {
        lines(&self.path)
    }
}

fn has_child(of: &Running) -> bool {
    let id = of.pid();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    children.is_ok_and(|children| !children.trim().is_empty())
}

/// How much memory a program has, in bytes.
fn resident(of: &Running) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", of.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

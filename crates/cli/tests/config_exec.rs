//! `config exec`: a command with keys as its environment, through the real program on a real etcd.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

mod running;
mod support;

use std::{thread, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use quorate::{Client, Op};
use running::{Running, etcd::Cluster, is_dead, pid, until};
use support::{Place, Ran};

/// Tells its process and some variables, then waits for its end.
const SHOW: &str = "echo $$ ${A-none} ${B-none}; exec sleep 1000";

/// Options for tests that need not wait.
const QUICK: &[&str] = &["--debounce", "50ms"];

fn exec(place: &Place, options: &[&str], command: &[&str]) -> Running {
    let exec = ["config", "exec"];
    Running::start(place.command(&[&exec, options, &["--"], command].concat()))
}

fn shell(place: &Place, options: &[&str], script: &str) -> Running {
    exec(place, options, &["sh", "-c", script])
}

/// The process that a line names first, and the rest of the line.
fn shown(line: &str) -> (Pid, String) {
    let (id, rest) = line.split_once(' ').unwrap();
    (pid(id.parse().unwrap()), rest.to_owned())
}

#[test]
fn a_command_has_the_keys_as_variables_and_its_status_is_passed_through() {
    let place = Place::new("exec-env");
    for (key, value) in [
        ("cfg/db/max-conns.soft", "7 = x\ny"),
        ("cfg/1bad", "x"),
        ("cfg/empty", ""),
        ("other/key", "x"),
    ] {
        place.ok(&["set", key, value]);
    }
    let script =
        "printf '%s|' \"$DB_MAX_CONNS_SOFT\" \"${EMPTY-none}\" \"${KEY-none}\" \"$OWN\"; exit 5";
    let mut command = place.command(&[
        "config", "exec", "--prefix", "cfg/", "--", "sh", "-c", script,
    ]);
    command.env("OWN", "own");
    let ran = Ran::of(command, b"");
    assert_eq!(ran.code, Some(5));
    assert_eq!(ran.stdout, b"7 = x\ny||none|own|");
    assert!(
        ran.stderr.contains("cfg/1bad is left out"),
        "{}",
        ran.stderr
    );

    let mut command = place.command(&[
        "config",
        "exec",
        "--prefix",
        "cfg/db",
        "--no-upper",
        "--pristine",
        "--",
        "env",
    ]);
    command.env("OWN", "own");
    let ran = Ran::of(command, b"");
    assert_eq!(ran.stdout, b"max_conns_soft=7 = x\ny\n");

    let killed = place.run(&["config", "exec", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.code, Some(137));
    let absent = place.run(&["config", "exec", "--", "no-such-command-here"]);
    assert_eq!(absent.code, Some(127));
}

#[test]
fn two_keys_of_one_name_are_refused_at_the_start_and_later_change_nothing() {
    let place = Place::new("exec-collision");
    place.ok(&["set", "a", "1"]);
    let mut running = shell(&place, QUICK, SHOW);
    let (first, variables) = shown(&running.line());
    assert_eq!(variables, "1 none");
    place.ok(&["set", "A", "2"]);
    let told = place.run(&["config", "exec", "--", "true"]).failure(2);
    assert!(
        told.contains("A and a would both be the variable A"),
        "{told}"
    );
    // Long after the debounce nothing has happened.
    thread::sleep(Duration::from_millis(300));
    assert!(!is_dead(first) && running.is_silent());
    place.ok(&["delete", "a"]);
    let (second, variables) = shown(&running.line());
    assert_eq!(variables, "2 none");
    assert!(is_dead(first) && !is_dead(second));
    running.signal(Signal::SIGTERM);
    let ended = running.ended();
    assert_eq!(ended.code, Some(143));
    assert!(
        ended.stderr.contains("CMD runs on with what it has"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_burst_of_changes_restarts_the_command_once_and_no_change_not_at_all() {
    let place = Place::new("exec-burst");
    place.ok(&["set", "a", "0"]);
    let running = shell(&place, &["--debounce", "500ms", "--splay", "10ms"], SHOW);
    let (first, _) = shown(&running.line());
    write(place.url(), &["a"], 8);
    let (second, variables) = shown(&running.line());
    assert_eq!(variables, "8 none");
    assert!(is_dead(first));
    place.ok(&["set", "a", "8"]);
    thread::sleep(Duration::from_millis(800));
    assert!(!is_dead(second) && running.is_silent());
}

#[test]
fn a_command_that_does_not_end_is_killed_for_the_restart() {
    let place = Place::new("exec-stubborn");
    place.ok(&["set", "a", "1"]);
    let script = "trap '' TERM; echo $$ $A; while :; do sleep 0.01; done";
    let running = shell(
        &place,
        &["--kill-after", "100ms", "--debounce", "1ms"],
        script,
    );
    let (first, _) = shown(&running.line());
    place.ok(&["set", "a", "2"]);
    let (second, variables) = shown(&running.line());
    assert_eq!(variables, "2");
    assert!(is_dead(first) && !is_dead(second));
}

#[test]
fn a_signal_can_take_the_place_of_a_restart() {
    let place = Place::new("exec-signal");
    let script = "trap 'echo $$ heard' USR1; echo $$ ready; while :; do sleep 0.01; done";
    let running = shell(&place, &["--signal", "usr1", "--debounce", "1ms"], script);
    let (first, _) = shown(&running.line());
    for n in ["1", "2"] {
        place.ok(&["set", "a", n]);
        assert_eq!(shown(&running.line()), (first, "heard".to_owned()));
    }
    place
        .run(&["config", "exec", "--signal", "nonsense", "--", "true"])
        .failure(2);
}

#[test]
fn signals_are_passed_on_and_no_command_is_left_behind() {
    let place = Place::new("exec-signals");
    let script =
        "trap 'echo $$ hup' HUP; trap 'exit 9' TERM; echo $$ ready; while :; do sleep 0.01; done";
    let mut running = shell(&place, &[], script);
    let (command, _) = shown(&running.line());
    running.signal(Signal::SIGHUP);
    assert_eq!(shown(&running.line()), (command, "hup".to_owned()));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code, Some(9));
    assert!(is_dead(command));

    let running = shell(&place, &[], SHOW);
    let (command, _) = shown(&running.line());
    running.signal(Signal::SIGKILL);
    until("the command is dead", || is_dead(command));
}

#[test]
fn a_signal_during_a_restart_is_the_end() {
    let place = Place::new("exec-signal-restart");
    place.ok(&["set", "a", "1"]);
    let script =
        "trap 'echo $$ asked; sleep 0.3; exit 4' TERM; echo $$ $A; while :; do sleep 0.01; done";
    let mut running = shell(&place, QUICK, script);
    running.line();
    place.ok(&["set", "a", "2"]);
    let (command, asked) = shown(&running.line());
    assert_eq!(asked, "asked");
    running.signal(Signal::SIGINT);
    let ended = running.ended();
    assert!(matches!(ended.code, Some(4 | 130)), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(is_dead(command));
}

#[test]
fn no_command_has_half_of_a_transaction() {
    let place = Place::new("exec-half");
    let url = place.url().to_owned();
    let writing = thread::spawn(move || write(&url, &["a", "b"], LAST));
    until("the first is written", || {
        place.run(&["get", "a"]).code == Some(0)
    });
    let mut running = shell(&place, &["--debounce", "1ms"], SHOW);
    let mut started = 0;
    loop {
        let (_, variables) = shown(&running.line());
        let (a, b) = variables.split_once(' ').unwrap();
        assert_eq!(a, b);
        started += 1;
        if a == LAST.to_string() {
            break;
        }
    }
    assert!(started > 3, "{started}");
    writing.join().unwrap();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code, Some(143));
}

const LAST: u32 = 400;

/// Writes 1, 2 and so on to keys, all at once.
#[tokio::main(flavor = "current_thread")]
async fn write(url: &str, keys: &[&str], last: u32) {
    let client = Client::connect(url).await.unwrap();
    for n in 1..=last {
        let txn = client.txn();
        let put = |key: &&str| Op::put(*key, n.to_string());
        let txn = keys.iter().map(put).fold(txn, |txn, put| txn.then(put));
        txn.commit().await.unwrap();
    }
}

#[test]
fn a_server_that_is_away_is_waited_for_and_the_command_runs_on_meanwhile() {
    let cluster = Cluster::builder().start();
    let url = cluster.endpoint(0);
    let set = |value: &str| {
        until("it is set", || {
            running::run(&url, &["set", "a", value]).code == Some(0)
        })
    };
    set("1");
    cluster.kill(0);
    let options = [
        "config",
        "exec",
        "--timeout",
        "300ms",
        "--debounce",
        "10ms",
        "--",
        "sh",
        "-c",
        SHOW,
    ];
    let mut running = running::quorate(&url, &options);
    thread::sleep(Duration::from_millis(500));
    cluster.restart(0);
    let (first, variables) = shown(&running.line());
    assert_eq!(variables, "1 none");
    cluster.kill(0);
    cluster.restart(0);
    until("the server answers", || cluster.is_healthy(0));
    assert!(!is_dead(first) && running.is_silent());
    set("2");
    let (second, variables) = shown(&running.line());
    assert_eq!(variables, "2 none");
    assert!(is_dead(first));
    running.signal(Signal::SIGTERM);
    let ended = running.ended();
    assert_eq!(ended.code, Some(143));
    assert!(
        ended.stderr.contains("it is waited for"),
        "{}",
        ended.stderr
    );
    assert!(is_dead(second));
}

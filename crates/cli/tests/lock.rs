//! `quorate lock` on a real etcd: what runs under a lock, how it is told, and how it ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use running::{
    Running, etcd, etcdctl, group, is_dead, pid, quorate, run, signal_all, until, until_queue_is,
};

mod running;
mod support;

/// The shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

#[test]
fn the_exit_code_of_the_command_is_passed_on() {
    let url = etcd::shared();
    let lock = |command: &[&str]| run(&url, &[&["lock", "code", "--"], command].concat());
    assert_eq!(lock(&["sh", "-c", "exit 5"]).code, Some(5));
    assert_eq!(lock(&["sh", "-c", "kill -TERM $$"]).code, Some(143));
    let missing = lock(&["no-such-command-here"]);
    assert_eq!(missing.code, Some(127));
    assert_eq!(
        missing.stderr,
        "quorate: no-such-command-here: command not found\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(lock(&[file.to_str().unwrap()]).code, Some(126));
    assert_eq!(run(&url, &["locks", "show", "code"]).stdout, "");
}

#[test]
fn the_command_knows_its_key_and_token() {
    let url = etcd::shared();
    let script = "echo \"$QUORATE_KEY\t$QUORATE_TOKEN\t$ETCD_LOCK_KEY\t$ETCD_LOCK_REV\"; read x";
    let mut held = quorate(&url, &["lock", "env", "--", "sh", "-c", script]);
    let told = held.line();
    let told: Vec<_> = told.split('\t').collect();
    let shown = run(&url, &["locks", "show", "env"]).stdout;
    let shown: Vec<_> = shown.split('\t').collect();
    assert_eq!(told[..2], shown[..2]);
    assert_eq!(told[2..], shown[..2]);
    assert!(told[0].starts_with("env/"));
    held.say("on");
    assert_eq!(held.ended().code, Some(0));
}

#[test]
fn without_a_command_it_tells_key_and_token_and_holds_until_interrupted() {
    let url = etcd::shared();
    let mut held = quorate(&url, &["lock", "alone"]);
    let told = held.line();
    let shown = run(&url, &["locks", "show", "alone"]).stdout;
    assert!(shown.starts_with(&format!("{told}\t")));
    assert_eq!(held.interrupt(), Some(0));
    let mut held = quorate(&url, &["lock", "alone", "-o", "json"]);
    let told = held.line();
    assert!(told.starts_with("{\"key\":\"alone/"), "{told}");
    assert!(told.contains("\"token\":"), "{told}");
    assert_eq!(held.interrupt(), Some(0));
}

#[test]
fn a_taken_lock_is_not_waited_for_or_for_so_long_only() {
    let url = etcd::shared();
    let mut held = quorate(&url, &["lock", "taken"]);
    held.line();
    let busy = run(&url, &["lock", "taken", "--try", "--", "echo", "held"]);
    assert_eq!((busy.code, busy.stdout.as_str()), (Some(75), ""));
    assert_eq!(busy.stderr, "quorate: taken is taken\n");
    for args in [
        ["lock", "taken", "--timeout", "200ms"],
        ["--timeout", "200ms", "lock", "taken"],
    ] {
        let late = run(&url, &args);
        assert_eq!((late.code, late.stdout.as_str()), (Some(75), ""));
        assert_eq!(running::queue(&url, "taken"), 1);
    }
    assert_eq!(held.interrupt(), Some(0));
    let free = run(&url, &["lock", "taken", "--try", "--", "echo", "held"]);
    assert_eq!((free.code, free.stdout.as_str()), (Some(0), "held"));
}

#[test]
fn who_waits_leaves_the_queue_when_interrupted() {
    let url = etcd::shared();
    let held = quorate(&url, &["lock", "leave"]);
    held.line();
    let mut waiting = quorate(&url, &["lock", "leave", "--", "echo", "held"]);
    until_queue_is(&url, "leave", 2);
    waiting.signal(Signal::SIGTERM);
    let ended = waiting.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(143), ""));
    assert_eq!(running::queue(&url, "leave"), 1);
}

#[test]
fn signals_reach_the_command() {
    let url = etcd::shared();
    for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGTERM, "TERM")] {
        let script = format!("trap 'exit 9' {name}; echo on; while :; do sleep 0.01; done");
        let mut held = quorate(&url, &["lock", "signals", "--", "sh", "-c", &script]);
        held.line();
        held.signal(signal);
        assert_eq!(held.ended().code, Some(9), "{name}");
    }
}

#[test]
fn a_command_is_ended_at_the_longest_hold() {
    let url = etcd::shared();
    let args = ["lock", "long", "--max-hold", "500ms", "--"];
    for (command, told) in [
        (
            "trap 'echo asked; exit 0' TERM; while :; do sleep 0.01; done",
            "asked",
        ),
        ("trap '' TERM; while :; do sleep 0.01; done", ""),
    ] {
        let start = Instant::now();
        let ended = run(&url, &[&args[..], &["sh", "-c", command]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), told));
        assert!(start.elapsed() >= Duration::from_millis(400));
        assert_eq!(running::queue(&url, "long"), 0);
    }
    assert_eq!(run(&url, &args[..4]).code, Some(0));
    assert_eq!(running::queue(&url, "long"), 0);
}

#[test]
fn a_command_is_dead_before_another_holds_when_quorate_is_killed() {
    succession("killed", &[], |first| first.signal(Signal::SIGKILL));
}

#[test]
fn a_command_is_dead_before_another_holds_when_quorate_is_stopped() {
    succession("stopped", &[], |first| first.signal(Signal::SIGSTOP));
}

#[test]
fn a_command_that_left_its_group_is_dead_before_another_holds() {
    let timeout = ["timeout", "60"];
    succession("moved-killed", &timeout, |first| {
        first.signal(Signal::SIGKILL)
    });
    succession("moved-stopped", &["setsid"], |first| {
        first.signal(Signal::SIGSTOP)
    });
}

#[test]
fn a_command_that_left_its_group_gets_signals_and_ends_at_the_longest_hold() {
    let url = etcd::shared();
    let script = "trap 'exit 9' TERM; echo on; while :; do sleep 0.01; done";
    let mut held = quorate(&url, &["lock", "moved", "--", "setsid", "sh", "-c", script]);
    held.line();
    held.signal(Signal::SIGTERM);
    assert_eq!(held.ended().code, Some(9));
    let script = "trap '' TERM; while :; do sleep 0.01; done";
    let limit = [
        "lock",
        "moved",
        "--max-hold",
        "300ms",
        "--",
        "timeout",
        "60",
    ];
    let mut held = quorate(&url, &[&limit[..], &["sh", "-c", script]].concat());
    assert_eq!(held.ended().code, Some(124));
    let script = "trap '' TERM; echo $$; while :; do sleep 0.01; done";
    let mut held = quorate(
        &url,
        &["lock", "moved", "--", "timeout", "60", "sh", "-c", script],
    );
    let command = pid(held.line().parse().unwrap());
    assert_eq!(run(&url, &["locks", "break", "moved"]).code, Some(0));
    assert_eq!(held.ended().code, Some(76));
    assert!(is_dead(command));
}

/// A lock passes from one command to the next because of what `happens` to the first one's quorate, in
/// time, and nothing of the first comes after the second has begun.
/// The commands are started by way of the program `through`, if there is one.
fn succession(name: &str, through: &[&str], happens: impl FnOnce(&Running)) {
    let url = etcd::shared();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let first = writer(&url, name, through, &log);
    let first_token = first.line();
    let second = writer(&url, name, through, &log);
    until_queue_is(&url, name, 2);
    let start = Instant::now();
    happens(&first);
    let second_token = second.line();
    assert!(start.elapsed() < TTL + Duration::from_secs(1));
    assert!(second_token.parse::<i64>().unwrap() > first_token.parse().unwrap());
    let beats = || fs::read_to_string(&log).unwrap();
    let beat = format!("beat {second_token}\n");
    until("the second beats", || beats().matches(&beat).count() > 20);
    let log = beats();
    let (before, after) = log.split_once(&format!("start {second_token}\n")).unwrap();
    assert!(before.contains(&format!("beat {first_token}\n")));
    assert!(!after.contains(&format!(" {first_token}\n")), "{log}");
}

/// Holds a lock, tells its token, and writes it to a log over and over.
fn writer(url: &str, name: &str, through: &[&str], log: &Path) -> Running {
    let script = "exec >>\"$1\"; echo start $QUORATE_TOKEN; echo $QUORATE_TOKEN >&3
        while :; do echo beat $QUORATE_TOKEN; sleep 0.01; done";
    let script = format!("exec 3>&1; {script}");
    let log = log.to_str().unwrap();
    let lock = ["lock", name, "-t", "2s", "--"];
    let args = [&lock, through, &["sh", "-c", &script, "sh", log]].concat();
    quorate(url, &args)
}

#[test]
fn a_command_that_was_stopped_with_all_about_it_is_killed_and_its_late_write_refused() {
    let url = etcd::shared();
    let script = "echo $$; echo $QUORATE_KEY; echo $QUORATE_TOKEN; while :; do sleep 0.01; done";
    let args = ["lock", "late", "-t", "2s", "--", "sh", "-c", script];
    let mut first = quorate(&url, &args);
    let command = pid(first.line().parse().unwrap());
    let (key, token) = (first.line(), first.line());
    assert!(fenced_put(&url, &key, &token, "first"));
    let group = group(command);
    signal_all(&first, group, Signal::SIGSTOP);
    let second = quorate(&url, &args);
    second.line();
    let (second_key, second_token) = (second.line(), second.line());
    assert!(fenced_put(&url, &second_key, &second_token, "second"));
    assert!(!fenced_put(&url, &key, &token, "first"));
    signal_all(&first, group, Signal::SIGCONT);
    assert_eq!(first.ended().code, Some(76));
    assert!(is_dead(command));
    assert_eq!(run(&url, &["get", "late-value"]).stdout, "second");
}

/// Writes a value if a hold's key stands, as a command does that has key and token.
fn fenced_put(url: &str, key: &str, token: &str, value: &str) -> bool {
    let mut txn = etcdctl(url, &["txn"]);
    txn.say(&format!(
        "create(\"{key}\") = \"{token}\"\n\nput late-value {value}\n\n\n"
    ));
    txn.ended().stdout.starts_with("SUCCESS")
}

#[test]
fn a_command_whose_hold_is_broken_is_asked_to_end_and_then_killed() {
    let url = etcd::shared();
    for (trap, told) in [("echo asked; exit 0", "asked"), ("", "")] {
        let script = format!("trap '{trap}' TERM; echo on; while :; do sleep 0.01; done");
        let mut held = quorate(&url, &["lock", "broken", "--", "sh", "-c", &script]);
        held.line();
        assert_eq!(run(&url, &["locks", "break", "broken"]).code, Some(0));
        let ended = held.ended();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(76), told));
        assert!(
            ended.stderr.contains("its key was deleted"),
            "{}",
            ended.stderr
        );
    }
    let mut held = quorate(&url, &["lock", "broken"]);
    held.line();
    assert_eq!(run(&url, &["locks", "break", "broken"]).code, Some(0));
    assert_eq!(held.ended().code, Some(76));
}

#[test]
fn a_command_is_asked_to_end_and_dead_by_the_deadline_when_the_store_dies() {
    let cluster = etcd::Cluster::builder().start();
    let url = cluster.endpoint(0);
    let lock = |name: &str, trap: &str| {
        let script = format!("trap '{trap}' TERM; echo $$; while :; do sleep 0.01; done");
        let held = quorate(&url, &["lock", name, "-t", "2s", "--", "sh", "-c", &script]);
        let command = pid(held.line().parse().unwrap());
        (held, command)
    };
    let (mut polite, _) = lock("polite", "echo asked; exit 0");
    let (mut stubborn, command) = lock("stubborn", "");
    let start = Instant::now();
    cluster.kill(0);
    until("the stubborn command is dead", || is_dead(command));
    assert!(start.elapsed() < TTL);
    let ended = polite.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(76), "asked"));
    assert_eq!(stubborn.ended().code, Some(76));
}

#[test]
fn a_restart_of_the_store_that_ends_in_time_costs_nothing() {
    let cluster = etcd::Cluster::builder().start();
    let url = cluster.endpoint(0);
    let mut held = quorate(&url, &["lock", "kept", "--", "sh", "-c", "echo on; read x"]);
    held.line();
    cluster.restart(0);
    until("the store is back", || cluster.is_healthy(0));
    until("the lock is held", || running::queue(&url, "kept") == 1);
    held.say("on");
    assert_eq!(held.ended().code, Some(0));
    assert_eq!(running::queue(&url, "kept"), 0);
}

#[test]
fn what_the_command_leaves_behind_is_dead_when_the_lock_is_free() {
    let url = etcd::shared();
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("pid");
    let script = format!(
        "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {}",
        file.display()
    );
    assert_eq!(
        run(&url, &["lock", "left", "--", "sh", "-c", &script]).code,
        Some(0)
    );
    let left = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(is_dead(pid(left)));
}

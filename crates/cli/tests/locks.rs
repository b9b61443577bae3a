//! `quorate locks` and `quorate elect` on a real etcd.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share

use nix::sys::signal::Signal;
use running::{etcd, etcdctl, quorate, run, until_queue_is};

mod running;
mod support;

fn columns(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

#[test]
fn ls_and_show_tell_who_holds_and_who_waits() {
    let url = etcd::shared();
    let held = quorate(&url, &["lock", "listed/jobs", "--holder", "first"]);
    let told = held.line();
    let told = columns(&told);
    let _waiting = quorate(&url, &["lock", "listed/jobs", "--holder", "second"]);
    until_queue_is(&url, "listed/jobs", 2);
    let leader = quorate(&url, &["elect", "listed/leader", "--value", "10.0.0.7:80"]);
    leader.line();
    etcdctl(&url, &["put", "listed/other/1f", "no contender"]).ended();

    let listed = run(&url, &["locks", "ls", "listed/"]);
    assert_eq!(listed.code, Some(0));
    let lines: Vec<_> = listed.stdout.lines().map(columns).collect();
    assert_eq!(lines.len(), 2);
    let pid = held.pid().to_string();
    assert_eq!(lines[0][..4], ["listed/jobs", told[1], "1", "first"]);
    assert_eq!(lines[0][5], pid);
    assert_eq!(lines[1][0], "listed/leader");
    assert_eq!(lines[1][2..], ["0", "10.0.0.7:80", "", "", ""]);

    let shown = run(&url, &["locks", "show", "listed/jobs"]).stdout;
    let lines: Vec<_> = shown.lines().map(columns).collect();
    assert_eq!(lines[0][..3], [told[0], told[1], "first"]);
    assert_eq!(lines[1][2], "second");
    let shown = run(&url, &["locks", "show", "listed/jobs", "-o", "json"]).stdout;
    assert!(shown.lines().next().unwrap().contains("\"holds\":true"));
    assert!(shown.contains("\"holder\":\"second\""));
    let none = run(&url, &["locks", "show", "listed/none"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""));
}

#[test]
fn break_heeds_the_token_and_says_what_it_means() {
    let url = etcd::shared();
    let nobody = run(&url, &["locks", "break", "breakable"]);
    assert_eq!(nobody.code, Some(3));
    assert_eq!(nobody.stderr, "quorate: nobody holds breakable\n");
    let mut held = quorate(&url, &["lock", "breakable"]);
    let told = held.line();
    let token = columns(&told)[1].to_owned();
    let another = run(&url, &["locks", "break", "breakable", "--token", "1"]);
    assert_eq!(another.code, Some(5));
    assert!(another.stderr.contains(&format!("token {token}")));
    let broken = run(&url, &["locks", "break", "breakable", "--token", &token]);
    assert_eq!((broken.code, &broken.stdout), (Some(0), &told));
    assert!(broken.stderr.contains("only tokens and fences exclude"));
    assert_eq!(held.ended().code, Some(76));
}

#[test]
fn a_leader_runs_its_command_under_its_value() {
    let url = etcd::shared();
    let script = "echo $QUORATE_TOKEN ${ETCD_LOCK_KEY-none}; read x; exit 4";
    let args = ["elect", "chief", "--value", "me", "--", "sh", "-c", script];
    let mut leader = quorate(&url, &args);
    let told = leader.line();
    let shown = run(&url, &["locks", "show", "chief"]).stdout;
    assert_eq!(told, format!("{} none", columns(&shown)[1]));
    assert_eq!(columns(&shown)[2], "me");
    leader.say("on");
    assert_eq!(leader.ended().code, Some(4));
    assert_eq!(running::queue(&url, "chief"), 0);
}

#[test]
fn a_candidate_without_a_value_tells_its_host_and_process() {
    let url = etcd::shared();
    let mut leader = quorate(&url, &["elect", "nameless"]);
    leader.line();
    let shown = run(&url, &["locks", "show", "nameless"]).stdout;
    let process = format!(":{}", leader.pid());
    assert!(columns(&shown)[2].ends_with(&process), "{shown}");
    assert_eq!(leader.interrupt(), Some(0));
}

#[test]
fn a_lost_leadership_ends_the_command_and_with_again_is_campaigned_for_anew() {
    let url = etcd::shared();
    let script = "echo $QUORATE_TOKEN; while :; do sleep 0.01; done";
    let mut once = quorate(&url, &["elect", "once", "--", "sh", "-c", script]);
    once.line();
    assert_eq!(run(&url, &["locks", "break", "once"]).code, Some(0));
    assert_eq!(once.ended().code, Some(76));

    let mut again = quorate(
        &url,
        &["elect", "again", "--again", "--", "sh", "-c", script],
    );
    let first: i64 = again.line().parse().unwrap();
    assert_eq!(run(&url, &["locks", "break", "again"]).code, Some(0));
    let second: i64 = again.line().parse().unwrap();
    assert!(second > first);
    again.signal(Signal::SIGTERM);
    assert_eq!(again.ended().code, Some(143));
    assert_eq!(running::queue(&url, "again"), 0);

    let mut alone = quorate(&url, &["elect", "again", "--again"]);
    let first = alone.line();
    assert_eq!(run(&url, &["locks", "break", "again"]).code, Some(0));
    assert_ne!(alone.line(), first);
    assert_eq!(alone.interrupt(), Some(0));
}

#[test]
fn a_leader_that_is_told_to_end_does_not_campaign_again() {
    let url = etcd::shared();
    let script = "trap '' TERM; echo on; while :; do sleep 0.01; done";
    let args = ["elect", "done", "--again", "--", "sh", "-c", script];
    let mut leader = quorate(&url, &args);
    leader.line();
    leader.signal(Signal::SIGTERM);
    assert_eq!(run(&url, &["locks", "break", "done"]).code, Some(0));
    assert_eq!(leader.ended().code, Some(76));
}

//! One queue with etcdctl: `lock` and `elect`, each behind the other.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share

use running::{Running, etcd, etcdctl, quorate, until_queue_is};

mod running;
mod support;

/// Two hold one after the other, in the order in which they asked.
fn in_turn(url: &str, name: &str, first: impl Fn() -> Running, second: impl Fn() -> Running) {
    let mut first = first();
    let key = first.line();
    assert!(key.starts_with(&format!("{name}/")), "{key}");
    let mut second = second();
    until_queue_is(url, name, 2);
    assert!(second.is_silent());
    first.interrupt();
    assert!(second.line().starts_with(&format!("{name}/")));
    second.interrupt();
    until_queue_is(url, name, 0);
}

#[test]
fn a_lock_of_etcdctl_waits_behind_ours_and_ours_behind_it() {
    let url = etcd::shared();
    let ours = || quorate(&url, &["lock", "mixed"]);
    let theirs = || etcdctl(&url, &["lock", "mixed"]);
    in_turn(&url, "mixed", ours, theirs);
    in_turn(&url, "mixed", theirs, ours);
}

#[test]
fn a_candidate_of_etcdctl_waits_behind_ours_and_ours_behind_it() {
    let url = etcd::shared();
    let ours = || quorate(&url, &["elect", "mixed-chief", "--value", "ours"]);
    let theirs = || etcdctl(&url, &["elect", "mixed-chief", "theirs"]);
    in_turn(&url, "mixed-chief", ours, theirs);
    in_turn(&url, "mixed-chief", theirs, ours);
}

#[test]
fn etcdctl_sees_our_leader() {
    let url = etcd::shared();
    let leader = quorate(&url, &["elect", "interop-seen", "--value", "ours"]);
    let told = leader.line();
    let observer = etcdctl(&url, &["elect", "-l", "interop-seen"]);
    assert_eq!(Some(observer.line().as_str()), told.split('\t').next());
    assert_eq!(observer.line(), "ours");
}

#[test]
fn a_holder_of_etcdctl_is_listed() {
    let url = etcd::shared();
    let holder = etcdctl(&url, &["lock", "foreign"]);
    let key = holder.line();
    let listed = running::run(&url, &["locks", "ls", "foreign"]).stdout;
    assert!(listed.starts_with("foreign\t"), "{listed}");
    let shown = running::run(&url, &["locks", "show", "foreign"]).stdout;
    assert!(shown.starts_with(&format!("{key}\t")), "{shown}");
}

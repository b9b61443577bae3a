//! `quorate demo` in memory and on a real cluster.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share

use running::{Ended, Running, etcd, run};

mod running;
mod support;

fn is_complete(demo: &Ended) {
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let lines: Vec<_> = demo.stdout.lines().collect();
    assert!(lines.last().unwrap().ends_with("every step was observed"));
    for step in [
        "campaign",
        "leads (token",
        "is cut off",
        "knows that it leads no more",
        ": refused",
        "the counter is 40",
    ] {
        assert!(demo.stdout.contains(step), "{step}: {}", demo.stdout);
    }
}

#[test]
fn it_needs_nothing_whatever_the_environment_says() {
    let mut command = support::quorate();
    command.arg("demo").env("QUORATE_URL", "127.0.0.1:1");
    is_complete(&Running::start(command).ended());
}

#[test]
fn it_passes_on_three_members_and_leaves_nothing_behind() {
    let cluster = etcd::Cluster::builder().members(3).start();
    let url = cluster.endpoints().join(",");
    is_complete(&run(&url, &["demo"]));
    assert_eq!(run(&url, &["get", "--prefix", ""]).stdout, "");
}

#[test]
fn it_fails_where_there_is_no_store() {
    let ended = run("127.0.0.1:1?timeout=200ms", &["demo"]);
    assert!(matches!(ended.code, Some(8 | 9)), "{ended:?}");
}

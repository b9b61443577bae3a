//! Recipes on a real cluster under every kind of fault: the short run of `cargo xtask torture`.

mod support;

use support::proof;

/// Asserts that kinds of faults were done, and their effects seen, unless they are not possible here.
fn assert_done(report: &str, kinds: &[&str]) {
    for kind in kinds {
        let is_impossible = report.contains(&format!("proof: {kind} is not possible here"));
        assert!(
            is_impossible || count(report, &format!("faults: {kind}")) > 0,
            "{kind} is not in\n{report}"
        );
    }
}

/// How often something is counted in a report.
fn count(report: &str, what: &str) -> u64 {
    let line = report
        .lines()
        .find_map(|line| line.trim().strip_prefix(what)?.strip_prefix(": "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn the_promises_hold_on_a_real_cluster_under_every_kind_of_fault() {
    // Every kind comes once, however little time there is.
    let report = proof("torture", &["--minutes", "0.1"]);
    let of_members = [
        "kill",
        "pause",
        "partition",
        "peers",
        "one-way",
        "move-leader",
        "no-quorum",
        "slow-disk",
        "stalled-disk",
        "compact",
        "no-space",
    ];
    assert_done(&report, &of_members);
    assert_done(&report, &OF_CLIENTS);
    assert_done(&report, &["starve"]);
}

/// What proxies can do too.
const OF_CLIENTS: [&str; 5] = [
    "cut-clients",
    "mute-members",
    "kill-worker",
    "pause-worker",
    "clocks",
];

#[test]
fn the_promises_hold_behind_proxies_where_namespaces_are_not_permitted() {
    let faults = format!("kill,{}", OF_CLIENTS.join(","));
    let flags = ["--proxies", "--minutes", "0.1", "--faults", &faults];
    let report = proof("torture", &flags);
    assert!(
        report.contains("proxies between clients and members"),
        "{report}"
    );
    assert_done(&report, &["kill"]);
    assert_done(&report, &OF_CLIENTS);
}

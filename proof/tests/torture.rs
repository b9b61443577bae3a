//! Recipes on a real cluster under every kind of fault: the short run of `cargo xtask torture`.

use std::process::{Command, Stdio};

/// Runs `proof torture`, and fails with what it told if a property was broken.
fn torture(flags: &[&str]) -> String {
    assert!(
        std::env::var_os("ETCD_BIN").is_some(),
        "this test needs a real etcd: run it by `cargo xtask test`, which finds one, \
         or set ETCD_BIN and ETCDCTL_BIN"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_proof"))
        .arg("torture")
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("it can be run");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{progress}\n{told}");
    println!("{progress}\n{told}");
    told
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
    let report = torture(&["--minutes", "0.1"]);
    for kind in [
        "kill",
        "pause",
        "no-quorum",
        "compact",
        "no-space",
        "cut-clients",
        "pause-worker",
    ] {
        assert!(
            count(&report, &format!("faults: {kind}")) > 0,
            "{kind} is not in\n{report}"
        );
    }
    // Else nothing was put to the test.
    for what in [
        "acquisitions of lock/long",
        "acquisitions of lead",
        "fenced writes",
        "views of trackers",
    ] {
        assert!(count(&report, what) > 0, "{what} is not in\n{report}");
    }
}

#[test]
fn the_promises_hold_behind_proxies_where_namespaces_are_not_permitted() {
    let faults = "kill,cut-clients,mute-members,kill-worker,pause-worker,clocks";
    let report = torture(&["--proxies", "--minutes", "0.1", "--faults", faults]);
    assert!(
        report.contains("proxies between clients and members"),
        "{report}"
    );
    assert!(count(&report, "acquisitions of lock/short") > 0, "{report}");
}

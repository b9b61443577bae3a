//! All recipes in one process on a real cluster under faults: the short run of `cargo xtask soak`.

use std::process::{Command, Stdio};

/// Runs `proof soak`, and fails with what it told if anything was wrong.
fn soak(flags: &[&str]) -> String {
    assert!(
        std::env::var_os("ETCD_BIN").is_some(),
        "this test needs a real etcd: run it by `cargo xtask test`, which finds one, \
         or set ETCD_BIN and ETCDCTL_BIN"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_proof"))
        .arg("soak")
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

#[test]
fn after_faults_every_recipe_agrees_with_the_store_and_nothing_is_left_over() {
    let report = soak(&[
        "--minutes",
        "0.1",
        "--faults",
        "kill,compact,cut-clients,pause-worker",
    ]);
    // Else nothing was put to the test.
    for recipe in [
        "locks",
        "campaigns",
        "detached",
        "electors",
        "leaders",
        "ephemeral keys",
        "registrations",
        "trackers",
        "document watches",
        "field watches",
        "observers",
        "watches",
        "sessions",
        "clients",
        "health",
    ] {
        let line = report
            .lines()
            .find_map(|line| line.strip_prefix(recipe)?.strip_prefix(' '));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(count.unwrap_or(0) > 0, "{recipe} is not in\n{report}");
    }
}

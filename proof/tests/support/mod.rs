//! Runs the program `proof` on a real etcd, for tests.

use std::process::{Command, Stdio};

/// Runs `proof` with a command and its flags, and fails with what it told if anything was wrong.
pub(crate) fn proof(command: &str, flags: &[&str]) -> String {
    assert!(
        std::env::var_os("ETCD_BIN").is_some(),
        "this test needs a real etcd: run it by `cargo xtask test`, which finds one, \
         or set ETCD_BIN and ETCDCTL_BIN"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_proof"))
        .arg(command)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("it can be run");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = format!("{progress}\n{told}");
    assert!(output.status.success(), "{report}");
    println!("{report}");
    report
}

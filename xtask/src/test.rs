//! Everything: the tests, the examples in the docs, a client of others, and the lints.

use std::{process::Command, thread::available_parallelism};

use crate::{
    etcd::Etcd,
    interop, lint,
    run::{cargo, output, run},
    shared::Shared,
    tools,
};

/// Says that the C library is built.
pub(crate) const IS_BUILT: &str = "QUORATE_FFI_IS_BUILT";

/// Runs the tests that match `filters`, or without any the tests, the doctests, the client of others and the lints.
pub(crate) fn run_all(filters: &[&str]) -> Result<(), String> {
    let etcd = Etcd::find()?;
    tools::require()?;
    // At once, or what packages have in common would be built for each set of features; and nothing else builds
    // a library for tests that Rust cannot link.
    run(cargo()
        .args(["build", "--workspace", "--all-features"])
        .args(["--lib", "--bins", "--examples", "--tests"]))?;
    let shared = Shared::start(&etcd.server)?;
    let mut tests = cargo();
    if output(cargo().args(["nextest", "--version"])).is_ok() {
        tests.args([
            "nextest",
            "run",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
            "--no-tests=pass",
        ]);
        // Most tests wait most of the time, for a store or for the end of a lease.
        let cores = available_parallelism().map_or(1, usize::from);
        tests.arg(format!("--test-threads={}", 2 * cores));
        tests.args(filters);
    } else {
        tests.args([
            "test",
            "--workspace",
            "--all-features",
            "--all-targets",
            "--",
        ]);
        tests.args(filters);
    }
    run(with(&etcd, &mut tests)
        .env("QUORATE_TEST_ETCD", &shared.endpoint)
        .env(IS_BUILT, "1"))?;
    drop(shared);
    if !filters.is_empty() {
        return Ok(());
    }
    let mut doctests = cargo();
    doctests.args(["test", "--workspace", "--all-features", "--doc"]);
    run(with(&etcd, &mut doctests))?;
    interop::rust(&etcd)?;
    lint::run_all()
}

/// Tells the tests where etcd is.
fn with<'a>(etcd: &Etcd, command: &'a mut Command) -> &'a mut Command {
    command
        .env("ETCD_BIN", &etcd.server)
        .env("ETCDCTL_BIN", &etcd.ctl)
}

//! What is measured: the library on an etcd, the server beside an etcd, and the engine.

use std::{path::PathBuf, process::Command};

use crate::{
    etcd::Etcd,
    run::{cargo, output, run, target},
    serve::Served,
    shared::Shared,
};

const USAGE: &str = "\
usage: cargo xtask bench [--scenario NAME|all] [--seconds-cap S] [--endpoint URL]
       cargo xtask bench --server [--scenario NAME|all] [--seconds-cap S]
       cargo xtask bench --engine [FILTER...]";

/// Runs `quorate-bench` with the flags, on an etcd of its own unless they name an endpoint.
pub(crate) fn bench(flags: &[&str]) -> Result<(), String> {
    match flags {
        ["--help"] => Err(USAGE.to_owned()),
        ["--engine", filters @ ..] => run(cargo()
            .args(["bench", "--package", "quorate-engine", "--"])
            .args(filters)),
        ["--server", flags @ ..] => beside_etcd(flags),
        flags if flags.contains(&"--endpoint") => measure(&build()?, flags),
        flags => {
            let etcd = without_fsync()?;
            measure(
                &build()?,
                &[flags, &["--endpoint", &etcd.endpoint]].concat(),
            )
        }
    }
}

/// Runs the same scenarios on an etcd and on our server, one after the other.
fn beside_etcd(flags: &[&str]) -> Result<(), String> {
    let program = build()?;
    run(cargo().args(["build", "--release", "--bin", "quorate"]))?;
    let etcd = without_fsync()?;
    let served = Served::start(&target().join("release/quorate"))?;
    for (what, endpoint) in [("etcd", &etcd.endpoint), ("our server", &served.endpoint)] {
        eprintln!("xtask: {what}, at {endpoint}");
        measure(&program, &[flags, &["--endpoint", endpoint]].concat())?;
    }
    Ok(())
}

fn measure(program: &PathBuf, flags: &[&str]) -> Result<(), String> {
    run(Command::new(program).args(flags))
}

fn build() -> Result<PathBuf, String> {
    run(cargo().args(["build", "--release", "--package", "quorate-bench"]))?;
    Ok(target().join("release/quorate-bench"))
}

/// An etcd that does not wait for its disk, which would be all that is measured. Before 3.5 there is none.
fn without_fsync() -> Result<Shared, String> {
    const FLAG: &str = "--unsafe-no-fsync";

    let etcd = Etcd::find()?;
    let help = output(Command::new(&etcd.server).arg("--help"))?;
    if help.contains(FLAG) {
        return Shared::start_with(&etcd.server, &[FLAG]);
    }
    eprintln!("xtask: this etcd waits for its disk with every write: set ETCD_BIN to a newer one");
    Shared::start(&etcd.server)
}

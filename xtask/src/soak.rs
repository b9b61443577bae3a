//! All recipes in one process for long, on a real cluster under faults; or the server under load, for long.

use std::process::Command;

use crate::{
    run::{cargo, run, target},
    torture::prove,
};

const USAGE: &str = "\
usage: cargo xtask soak [--minutes M] [--etcd 3.4|3.5] [--seed SEED] [--faults KIND,...] [--proxies]
                        [--directory DIR]
       cargo xtask soak --server [SECONDS]";

/// How many seconds the server takes unless told otherwise.
const SECONDS: &str = "600";

/// Runs `proof soak` with the flags, or many watchers and writers against a server in a process of its own.
pub(crate) fn soak(flags: &[&str]) -> Result<(), String> {
    match flags {
        ["--server"] => server(SECONDS),
        ["--server", seconds] if seconds.parse::<u32>().is_ok_and(|number| number > 0) => {
            server(seconds)
        }
        ["--server", ..] => Err(USAGE.to_owned()),
        flags => prove("soak", flags, USAGE),
    }
}

fn server(seconds: &str) -> Result<(), String> {
    run(cargo().args(["build", "--package", "soak", "--release"]))?;
    run(Command::new(target().join("release").join("soak")).arg(seconds))
}

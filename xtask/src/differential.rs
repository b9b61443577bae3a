//! The comparison with a real etcd, for longer than the tests do it.

use std::{
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    etcd::Etcd,
    run::{cargo, run},
};

/// How many operations are done on each store unless told otherwise.
const OPS: &str = "1000000";

/// Runs programs that nobody has run before; with `--seed` the one of that seed.
pub(crate) fn compare(flags: &[&str]) -> Result<(), String> {
    let (mut ops, mut seed) = (OPS, None);
    let mut flags = flags.iter();
    while let Some(&flag) = flags.next() {
        let number = flags.next().filter(|text| text.parse::<u64>().is_ok());
        match (flag, number) {
            ("--ops", Some(number)) => ops = number,
            ("--seed", Some(number)) => seed = Some(number),
            _ => return Err("usage: cargo xtask differential [--ops N] [--seed SEED]".to_owned()),
        }
    }
    let etcd = Etcd::find()?;
    let mut command = cargo();
    command
        .args(["test", "--package", "quorate", "--all-features"])
        .args(["--test", "differential", "--", "--nocapture"])
        .env("ETCD_BIN", &etcd.server)
        .env("ETCDCTL_BIN", &etcd.ctl)
        .env("QUORATE_OPS", ops);
    match seed {
        Some(seed) => command.env("QUORATE_SEED", seed),
        None => command.env("QUORATE_FIRST_SEED", fresh_seed().to_string()),
    };
    run(&mut command)
}

/// A number that leaves room for the seeds that follow it.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map(|now| now.as_secs()).unwrap_or_default();
    (seconds << 24) ^ u64::from(process::id()) << 16
}

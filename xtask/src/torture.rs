//! Recipes on a real cluster under faults, for longer than the tests do it.

use std::{env, path::PathBuf, process::Command};

use crate::{
    etcd::Etcd,
    run::{cargo, run, target},
    tools::{install, on_path},
};

const USAGE: &str = "\
usage: cargo xtask torture [--etcd 3.4|3.5] [--members N] [--minutes M] [--seed SEED] [--faults KIND,...]
                           [--ttl SECONDS] [--skew FRACTION] [--proxies] [--directory DIR]";

/// Runs `proof torture` with the flags.
pub(crate) fn torture(flags: &[&str]) -> Result<(), String> {
    prove("torture", flags, USAGE)
}

/// Runs a command of `proof` with the flags on an etcd, of a version if one is asked for.
pub(crate) fn prove(command: &str, flags: &[&str], usage: &str) -> Result<(), String> {
    let mut others = Vec::new();
    let mut version = None;
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        match *flag {
            "--etcd" => version = Some(*flags.next().ok_or(usage)?),
            "--help" => return Err(usage.to_owned()),
            other => others.push(other),
        }
    }
    let (server, ctl) = find(version)?;
    equip();
    run(cargo().args(["build", "--package", "proof"]))?;
    run(Command::new(target().join("debug").join("proof"))
        .arg(command)
        .args(others)
        .env("ETCD_BIN", server)
        .env("ETCDCTL_BIN", ctl))
}

/// The etcd of a version, else the one that tests run against, and its etcdctl.
fn find(version: Option<&str>) -> Result<(PathBuf, PathBuf), String> {
    // Its etcdctl lies beside it where both were unpacked; another one will do.
    if version == Some("3.5")
        && let Some(server) = env::var_os("ETCD_BIN_35").map(PathBuf::from)
    {
        let ctl = server.with_file_name("etcdctl");
        let ctl = if ctl.is_file() {
            ctl
        } else {
            Etcd::find()?.ctl
        };
        return Ok((server, ctl));
    }
    let etcd = Etcd::find()?;
    let found = format!("{}.{}", etcd.version.0, etcd.version.1);
    match version {
        Some(version) if version != found => Err(format!(
            "{} is version {found}: set {} to an etcd {version}",
            etcd.server.display(),
            if version == "3.5" {
                "ETCD_BIN_35"
            } else {
                "ETCD_BIN"
            },
        )),
        _ => Ok((etcd.server, etcd.ctl)),
    }
}

/// Installs what some kinds of faults need, where that is possible; without it they are left out.
fn equip() {
    for (tool, package) in [("ip", "iproute2"), ("strace", "strace"), ("cc", "gcc")] {
        if on_path(tool).is_none()
            && let Err(why) = install(
                &[package],
                &format!("there is no {tool} here"),
                "install it",
            )
        {
            eprintln!("xtask: {why}: some faults are left out");
        }
    }
}

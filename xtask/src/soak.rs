//! The server under load, for long.

use std::process::Command;

use crate::run::{cargo, run, target};

/// How many minutes it takes unless told otherwise.
const MINUTES: u32 = 10;

/// Runs many watchers and writers against a server in a process of its own.
pub(crate) fn soak(flags: &[&str]) -> Result<(), String> {
    let minutes = match flags {
        [] => Some(f64::from(MINUTES)),
        ["--minutes", number] => number.parse().ok(),
        _ => None,
    };
    let minutes = minutes
        .filter(|minutes| *minutes > 0.0)
        .ok_or("usage: cargo xtask soak [--minutes N]")?;
    run(cargo().args(["build", "--package", "soak", "--release"]))?;
    let seconds = format!("{:.0}", minutes * 60.0);
    run(Command::new(target().join("release").join("soak")).arg(seconds))
}

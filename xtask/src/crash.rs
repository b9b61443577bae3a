//! Servers that are killed at any moment, for longer than the tests do it.

use crate::run::{cargo, run};

/// How many rounds are run unless told otherwise.
const ROUNDS: &str = "100";

/// Kills and restarts servers; with `--seed` after the times of that seed.
pub(crate) fn crash(flags: &[&str]) -> Result<(), String> {
    let (mut rounds, mut seed) = (ROUNDS, None);
    let mut flags = flags.iter();
    while let Some(&flag) = flags.next() {
        let number = flags.next().filter(|text| text.parse::<u64>().is_ok());
        match (flag, number) {
            ("--rounds", Some(number)) => rounds = number,
            ("--seed", Some(number)) => seed = Some(number),
            _ => return Err("usage: cargo xtask crash [--rounds N] [--seed SEED]".to_owned()),
        }
    }
    let mut command = cargo();
    command
        .args(["test", "--package", "quorate-server"])
        .args(["--test", "crash", "--", "--nocapture"])
        .env("QUORATE_ROUNDS", rounds);
    if let Some(seed) = seed {
        command.env("QUORATE_SEED", seed);
    }
    run(&mut command)
}

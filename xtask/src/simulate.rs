//! The recipes under random schedules of faults, in virtual time.

use std::process::Command;

use crate::run::{cargo, run, target};

/// Passes everything on to the simulator.
pub(crate) fn simulate(flags: &[&str]) -> Result<(), String> {
    run(cargo().args(["build", "--package", "proof", "--release"]))?;
    let simulator = target().join("release").join("proof");
    run(Command::new(simulator).arg("simulate").args(flags))
}

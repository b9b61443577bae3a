//! Generates the code of the wire crate and the header of the C library.

use crate::run::{cargo, run};

/// Runs the generator, a crate of its own because its dependencies are large.
pub(crate) fn generate(flags: &[&str]) -> Result<(), String> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "xtask-gen", "--"]);
    run(command.args(flags))
}

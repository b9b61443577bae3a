//! Our server in a process of its own.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::run::{cargo, run, target};

/// A running server, which ends when this is dropped, and when this program dies.
pub(crate) struct Served {
    process: Child,
    /// Where clients reach it.
    pub(crate) endpoint: String,
}

/// Builds the program that serves, and tells where it is.
pub(crate) fn build() -> Result<PathBuf, String> {
    // With the features of the tests, so that nothing is built twice.
    run(cargo()
        .args(["build", "--workspace", "--all-features"])
        .args(["--example", "serve"]))?;
    Ok(target().join("debug/examples/serve"))
}

impl Served {
    /// Starts a server with an empty store.
    pub(crate) fn start(program: &PathBuf) -> Result<Self, String> {
        let shown = program.display();
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{shown}: {error}"))?;
        let mut endpoint = String::new();
        if let Some(said) = process.stdout.take() {
            let read = BufReader::new(said).read_line(&mut endpoint);
            read.map_err(|error| format!("{shown}: {error}"))?;
        }
        let served = Self {
            process,
            endpoint: endpoint.trim().to_owned(),
        };
        if served.endpoint.is_empty() {
            return Err(format!("{shown} does not say where it serves"));
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

//! Our server in a process of its own: `quorate dev`.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::run::{cargo, run, target};

/// A running server, which ends when this is dropped, and soon after this program has died.
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
        .args(["--bin", "quorate"]))?;
    Ok(target().join("debug/quorate"))
}

impl Served {
    /// Starts a server with an empty store.
    pub(crate) fn start(program: &PathBuf) -> Result<Self, String> {
        let shown = program.display();
        let mut process = Command::new(program)
            .args(["dev", "--listen", "127.0.0.1:0", "--exit-when-idle", "1m"])
            .stdin(Stdio::null())
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
        // It fails if it has ended, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

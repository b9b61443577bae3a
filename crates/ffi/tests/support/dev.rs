//! `quorate dev`, in a process of its own.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::{target, without_package};

/// A running server with an empty store, which ends when this is dropped.
pub struct Dev {
    process: Child,
    url: String,
}

impl Dev {
    pub fn start() -> Self {
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        without_package(&mut build);
        // With the features of the tests, so that nothing is built twice.
        let built = build
            .args(["build", "--quiet", "--workspace", "--all-features"])
            .args(["--bin", "quorate"])
            .env("CARGO_TARGET_DIR", target())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .status();
        assert!(built.unwrap().success(), "the program does not build");
        let mut process = Command::new(target().join("debug/quorate"))
            .args(["dev", "--listen", "127.0.0.1:0", "--exit-when-idle", "1m"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            process,
            url: url.trim().to_owned(),
        }
    }

    /// Host and port.
    pub fn servers(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

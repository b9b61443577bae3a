//! What tests need around them: real etcd servers, and the program run against them.
#![allow(dead_code)] // each test program uses a part
#![allow(unreachable_pub, clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // a test has no client whose clock it could take

#[path = "../../../quorate/tests/support/certificates.rs"]
pub mod certificates;
#[path = "../../../quorate/tests/support/etcd.rs"]
pub mod etcd;
#[path = "../../../quorate/tests/support/proxy.rs"]
pub mod proxy;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value as Json;

/// The program, without any variable that would lead it to a store.
pub fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for variable in [
        "QUORATE_URL",
        "ETCD_SERVERS",
        "ETCDCTL_ENDPOINTS",
        "ETCDCTL_CACERT",
        "ETCDCTL_CERT",
        "ETCDCTL_KEY",
        "ETCDCTL_USER",
        "ETCDCTL_PASSWORD",
        "QUORATE_BIN",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// Where one test's keys lie, in the etcd that all share.
pub struct Place(String);

impl Place {
    pub fn new(namespace: &str) -> Self {
        let hosts = etcd::shared();
        let host = hosts.strip_prefix("http://").expect("it is without TLS");
        Self(format!("etcd://{host}/{namespace}"))
    }

    pub fn url(&self) -> &str {
        &self.0
    }

    /// The program with this place's address.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = quorate();
        command.env("QUORATE_URL", self.url()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments), b"")
    }

    /// Runs what should succeed, and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Runs what should succeed with `-o json`, and returns each line that it printed.
    pub fn json(&self, arguments: &[&str]) -> Vec<Json> {
        let printed = self.ok(&[&["-o", "json"], arguments].concat());
        let lines = printed.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(mut command: Command, input: &[u8]) -> Self {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let Some(mut stdin) = process.stdin.take() {
            stdin.write_all(input).unwrap();
        }
        let Output {
            status,
            stdout,
            stderr,
        } = process.wait_with_output().unwrap();
        Self {
            code: status.code(),
            stdout,
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// What it printed; it succeeded, and complained of nothing.
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        String::from_utf8(self.stdout).unwrap()
    }

    /// What it complained of, in one line; it failed with this status, and printed nothing.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        let lines: Vec<_> = self.stderr.lines().collect();
        assert!(
            matches!(lines[..], [line] if line.starts_with("quorate: ")),
            "{self:?}"
        );
        self.stderr
    }
}

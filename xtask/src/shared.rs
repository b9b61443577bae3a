//! One etcd for all tests that are content with keys of their own.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::run::target;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs etcd (from the third argument on) until its own input ends, as it does when the program that
/// started it dies in whatever way; then it removes the data.
const KEEPER: &str = r#"log=$1 data=$2; shift 2
"$@" >"$log" 2>&1 & etcd=$!
read -r _
kill -9 "$etcd"; wait "$etcd" 2>/dev/null; rm -rf "$data""#;

/// A running etcd, which ends when this is dropped.
pub(crate) struct Shared {
    keeper: Child,
    /// Where clients reach it.
    pub(crate) endpoint: String,
}

impl Shared {
    /// Starts an etcd, and waits until it serves.
    pub(crate) fn start(server: &PathBuf) -> Result<Self, String> {
        Self::start_with(server, &[])
    }

    /// As [`Shared::start`], with more flags.
    pub(crate) fn start_with(server: &PathBuf, flags: &[&str]) -> Result<Self, String> {
        let data = target()
            .join("tmp")
            .join(format!("shared-etcd-{}", std::process::id()));
        fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        let (client, peer) = (free_port()?, free_port()?);
        let endpoint = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(data.join("log"))
            .arg(&data)
            .arg(server)
            .arg(format!("--data-dir={}", data.join("data").display()))
            .args(["--name=shared", &format!("--initial-cluster=shared={peer}")])
            .arg(format!("--listen-client-urls={endpoint}"))
            .arg(format!("--advertise-client-urls={endpoint}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .args(flags)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let shared = Self { keeper, endpoint };
        let begun = Instant::now();
        while !is_healthy(client) {
            if begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(data.join("log")).unwrap_or_default();
                return Err(format!("etcd does not start:\n{log}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(shared)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port: {error}"))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("no port: {error}"))?;
    Ok(address.port())
}

fn is_healthy(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    ask().is_some_and(|answer| answer.contains("\"true\""))
}

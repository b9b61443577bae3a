//! Programs that run beside the tests: quorate and etcdctl.
#![allow(dead_code)] // each test program uses a part
#![allow(unreachable_pub, clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

#[allow(unused_imports)]
pub use crate::support::etcd;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that runs, and is killed when it is dropped.
pub struct Running {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// What a program came to.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// What it printed and nobody had read.
    pub stdout: String,
    pub stderr: String,
}

/// Starts quorate on a store.
pub fn quorate(url: &str, args: &[&str]) -> Running {
    let mut command = crate::support::quorate();
    command.arg("--url").arg(url).args(args);
    Running::start(command)
}

/// Runs quorate on a store to its end.
pub fn run(url: &str, args: &[&str]) -> Ended {
    quorate(url, args).ended()
}

/// Starts etcdctl on a server.
pub fn etcdctl(endpoint: &str, args: &[&str]) -> Running {
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    let mut command = Command::new(program);
    command
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", endpoint)
        .args(args);
    Running::start(command)
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (line, lines) = sync_channel(10_000);
        thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let mut stderr = process.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self {
            stdin: process.stdin.take(),
            process,
            lines,
            stderr: Some(stderr),
        }
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it prints a line")
    }

    /// Whether it has printed nothing that was not read.
    pub fn is_silent(&self) -> bool {
        self.lines.try_recv().is_err()
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn pid(&self) -> Pid {
        pid(self.process.id().try_into().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits until it ends.
    pub fn ended(&mut self) -> Ended {
        drop(self.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let stderr = self.stderr.take().unwrap().join().unwrap();
        let lines: Vec<String> = self.lines.iter().collect();
        Ended {
            code: status.code(),
            stdout: lines.join("\n"),
            stderr,
        }
    }

    /// Asks it to end as a user at the terminal does, and returns its exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        self.signal(Signal::SIGINT);
        self.ended().code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn pid(id: i32) -> Pid {
    Pid::from_raw(id)
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many stand in the queue of a lock or an election.
pub fn queue(url: &str, name: &str) -> usize {
    run(url, &["locks", "show", name]).stdout.lines().count()
}

pub fn until_queue_is(url: &str, name: &str, length: usize) {
    until("the queue has the right length", || {
        queue(url, name) == length
    });
}

/// The group of a process that lives.
pub fn group(id: Pid) -> Pid {
    let fields = stat(id).expect("the process lives");
    pid(fields[2].parse().unwrap())
}

/// Sends a signal to quorate and all that runs under it.
pub fn signal_all(quorate: &Running, group: Pid, signal: Signal) {
    quorate.signal(signal);
    killpg(group, signal).unwrap();
}

pub fn is_dead(id: Pid) -> bool {
    stat(id).is_none_or(|fields| fields[0] == "Z" || fields[0] == "X")
}

/// The fields of a process's status from its state on.
fn stat(id: Pid) -> Option<Vec<String>> {
    let path = Path::new("/proc").join(id.to_string()).join("stat");
    let stat = std::fs::read_to_string(path).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

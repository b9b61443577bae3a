//! The runner of commands: exit codes, signals, and what is left when quorate is no more.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::{
    child::{Child, NotStarted},
    guardian::{Deadline, Guardian},
    signals::Signals,
};

// The program has no library; these are its modules, with the program itself as the guardian.
#[allow(dead_code)]
#[path = "../src/child.rs"]
mod child;
#[allow(dead_code)]
#[path = "../src/guardian.rs"]
mod guardian;
#[allow(dead_code)]
#[path = "../src/signals.rs"]
mod signals;
#[allow(dead_code)]
#[path = "../src/tree.rs"]
mod tree;

const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

async fn spawn(program: &str, args: &[&str]) -> Result<Child, NotStarted> {
    spawn_for(Duration::from_secs(1000), program, args).await
}

async fn spawn_for(remaining: Duration, program: &str, args: &[&str]) -> Result<Child, NotStarted> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let guardian = Guardian::start_from(QUORATE).await.unwrap();
    guardian
        .set_deadline(Deadline::after(|| remaining))
        .unwrap();
    let signals = Signals::new().unwrap();
    Child::spawn(
        OsStr::new(program),
        &args,
        [("SET", "7")],
        guardian,
        signals,
    )
}

async fn shell(script: &str) -> Child {
    spawn("sh", &["-c", script]).await.unwrap()
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_command() {
    assert_eq!(shell("exit $SET").await.wait().await.unwrap(), 7);
    assert_eq!(shell("kill -TERM $$").await.wait().await.unwrap(), 143);
    let mut twice = shell("true").await;
    assert_eq!(twice.wait().await.unwrap(), 0);
    assert_eq!(twice.wait().await.unwrap(), 0);
}

#[tokio::test]
async fn a_command_that_cannot_run_has_the_code_that_shells_give_it() {
    let missing = spawn("no-such-command-here", &[]).await.unwrap_err();
    assert_eq!(missing.code(), 127);
    assert_eq!(
        missing.to_string(),
        "no-such-command-here: command not found"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let refused = spawn(file, &[]).await.unwrap_err();
    assert_eq!(refused.code(), 126);
    assert_eq!(refused.to_string(), format!("{file}: not executable"));
}

#[tokio::test]
async fn nothing_that_the_command_left_behind_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}", file.display());
    assert_eq!(shell(&script).await.wait().await.unwrap(), 0);
    let left: i32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    until(|| is_dead(left));
}

#[tokio::test]
async fn a_command_is_asked_to_end_before_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let script = |trap: &str| {
        let ready = ready.display();
        format!("trap '{trap}' TERM; : > {ready}; while :; do sleep 0.01; done")
    };
    let mut polite = shell(&script("exit 5")).await;
    until(|| ready.exists());
    assert_eq!(polite.stop(std::future::pending()).await.unwrap(), 5);
    std::fs::remove_file(&ready).unwrap();
    let mut stubborn = shell(&script("")).await;
    until(|| ready.exists());
    let patience = tokio::time::sleep(Duration::from_millis(100));
    assert_eq!(stubborn.stop(patience).await.unwrap(), 137);
}

#[tokio::test]
async fn a_stopped_command_hears_that_it_is_to_end() {
    let mut child = shell("kill -STOP $$; sleep 1000").await;
    assert_eq!(child.stop(std::future::pending()).await.unwrap(), 143);
}

#[tokio::test]
async fn a_suspended_command_is_continued() {
    assert_eq!(
        shell("kill -TSTP $$; exit 3").await.wait().await.unwrap(),
        3
    );
}

#[tokio::test]
async fn a_command_does_not_outlive_its_deadline() {
    let mut child = shell("sleep 1000").await;
    let remaining = Duration::from_millis(100);
    child.set_deadline(Deadline::after(|| remaining)).unwrap();
    assert_eq!(child.wait().await.unwrap(), 137);
}

#[test]
fn a_pause_before_the_remaining_time_is_known_makes_the_deadline_earlier() {
    let paused = Deadline::after(|| {
        std::thread::sleep(Duration::from_millis(20));
        Duration::from_secs(1)
    });
    assert!(paused < Deadline::after(|| Duration::from_secs(1)));
}

#[test]
fn a_command_dies_when_quorate_is_killed() {
    let holder = Holder::start("echo pid $$; exec sleep 1000", 1_000_000);
    holder.signal(Signal::SIGKILL);
    until(|| is_dead(holder.command));
}

#[test]
fn a_command_dies_at_the_deadline_when_quorate_is_stopped() {
    let holder = Holder::start("echo pid $$; exec sleep 1000", 2_000);
    holder.signal(Signal::SIGSTOP);
    until(|| is_dead(holder.command));
}

#[test]
fn a_command_dies_when_its_guardian_is_killed() {
    let mut holder = Holder::start("echo pid $$; exec sleep 1000", 1_000_000);
    kill(Pid::from_raw(holder.group()), Signal::SIGKILL).unwrap();
    until(|| is_dead(holder.command));
    assert_eq!(holder.code(), 137);
}

#[test]
fn signals_to_quorate_reach_the_command() {
    for (signal, name) in [
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGWINCH, "WINCH"),
    ] {
        let script = format!("trap 'exit 9' {name}; echo pid $$; while :; do sleep 0.01; done");
        let mut holder = Holder::start(&script, 1_000_000);
        holder.signal(signal);
        assert_eq!(holder.code(), 9, "{name}");
    }
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
    let script = "trap '' HUP; exec \"$@\"";
    let mut holder = Holder::start_through(
        &["sh", "-c", script, "sh"],
        "echo pid $$; read x",
        1_000_000,
    );
    holder.signal(Signal::SIGHUP);
    kill(Pid::from_raw(holder.command), Signal::SIGHUP).unwrap();
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.code(), 143);
}

/// This test program once more, in the part of quorate: it can be stopped and killed.
struct Holder {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// The command's process id, which the script has to tell.
    command: i32,
}

impl Holder {
    fn start(script: &str, remaining_millis: u64) -> Self {
        Self::start_through(&[], script, remaining_millis)
    }

    fn start_through(through: &[&str], script: &str, remaining_millis: u64) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut line = through.iter().map(OsStr::new).chain([this.as_os_str()]);
        let mut process = Command::new(line.next().unwrap())
            .args(line)
            .args(["--exact", "holds", "--nocapture"])
            .env("HOLDER_SCRIPT", script)
            .env("HOLDER_REMAINING", remaining_millis.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut holder = Self {
            process,
            lines,
            command: 0,
        };
        holder.command = holder.told("pid ");
        holder
    }

    fn told(&mut self, what: &str) -> i32 {
        self.lines
            .by_ref()
            .find_map(|line| line.unwrap().split_once(what)?.1.parse().ok())
            .expect("the holder tells it")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// The command's process group, whose leader is the guardian.
    fn group(&self) -> i32 {
        stat(self.command).expect("the command lives")[2]
            .parse()
            .unwrap()
    }

    fn code(&mut self) -> i32 {
        self.told("code ")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process that tests start; without their say it does nothing.
#[test]
fn holds() {
    let Ok(script) = std::env::var("HOLDER_SCRIPT") else {
        return;
    };
    let remaining = std::env::var("HOLDER_REMAINING").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = runtime.unwrap().block_on(async {
        let remaining = Duration::from_millis(remaining);
        let child = spawn_for(remaining, "sh", &["-c", &script]).await;
        child.unwrap().wait().await.unwrap()
    });
    println!("code {code}");
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_dead(pid: i32) -> bool {
    stat(pid).is_none_or(|fields| fields[0] == "Z" || fields[0] == "X")
}

/// The fields of a process's status from its state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    let stat = std::fs::read_to_string(path).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

//! The guardian through the real program: when it ends a group, and when it does not.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    io::{BufRead, BufReader, PipeWriter, Write, pipe},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// A guardian, and a command in its group.
struct Group {
    guardian: Child,
    command: Child,
    control: PipeWriter,
}

impl Group {
    fn start() -> Self {
        let (control_end, control) = pipe().unwrap();
        let mut guardian = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .arg("__guardian")
            .stdin(control_end)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let stdout = guardian.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let command = Command::new("sleep")
            .arg("1000")
            .process_group(pid(&guardian).as_raw())
            .spawn()
            .unwrap();
        Self {
            guardian,
            command,
            control,
        }
    }

    /// Sets a deadline, and returns it.
    fn set_deadline(&mut self, remaining: Duration) -> Duration {
        let deadline = now() + remaining;
        writeln!(self.control, "{}", deadline.as_nanos()).unwrap();
        deadline
    }

    /// Waits until all of the group are killed, and returns when that was.
    fn killed(&mut self) -> Duration {
        for process in [&mut self.guardian, &mut self.command] {
            assert_eq!(ended(process).signal(), Some(Signal::SIGKILL as i32));
        }
        now()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.guardian.kill();
        let _ = self.command.kill();
        let _ = self.guardian.wait();
        let _ = self.command.wait();
    }
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(process.id().try_into().unwrap())
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().into()
}

fn ended(process: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < BOUND, "the process lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_end_of_the_pipe_kills_the_group() {
    let mut group = Group::start();
    group.set_deadline(10 * BOUND);
    let (_, other) = pipe().unwrap();
    group.control = other;
    group.killed();
}

#[test]
fn the_end_of_the_pipe_kills_the_group_before_any_deadline() {
    let mut group = Group::start();
    let (_, other) = pipe().unwrap();
    group.control = other;
    group.killed();
}

#[test]
fn the_group_is_killed_when_the_deadline_has_passed() {
    let mut group = Group::start();
    let deadline = group.set_deadline(SHORT);
    assert!(group.killed() >= deadline);
}

#[test]
fn a_deadline_that_has_passed_already_kills_at_once() {
    let mut group = Group::start();
    writeln!(group.control, "1").unwrap();
    group.killed();
}

#[test]
fn a_new_deadline_takes_the_place_of_the_old_one() {
    let mut group = Group::start();
    group.set_deadline(SHORT);
    // Longer than the longest wait of the guardian, so that it looks at the clock meanwhile.
    let later = group.set_deadline(5 * SHORT);
    assert!(group.killed() >= later);
}

#[test]
fn a_stopped_writer_does_not_save_the_group() {
    let mut group = Group::start();
    let deadline = group.set_deadline(SHORT);
    let (_, other) = pipe().unwrap();
    let control = std::mem::replace(&mut group.control, other);
    let mut writer = Command::new("sleep")
        .arg("1000")
        .stdout(control)
        .spawn()
        .unwrap();
    kill(pid(&writer), Signal::SIGSTOP).unwrap();
    assert!(group.killed() >= deadline);
    writer.kill().unwrap();
    writer.wait().unwrap();
}

#[test]
fn signals_to_the_group_end_the_command_but_not_the_guardian() {
    let mut group = Group::start();
    for signal in [
        Signal::SIGALRM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGPIPE,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        killpg(pid(&group.guardian), signal).unwrap();
    }
    assert_ne!(
        ended(&mut group.command).signal(),
        Some(Signal::SIGKILL as i32)
    );
    let deadline = group.set_deadline(SHORT);
    let status = ended(&mut group.guardian);
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    assert!(now() >= deadline);
}

#[test]
fn what_is_no_deadline_kills_the_group() {
    for nonsense in [
        "soon\n",
        "-1\n",
        "\n",
        "18446744073709551616\n",
        &"1".repeat(64),
    ] {
        let mut group = Group::start();
        group.control.write_all(nonsense.as_bytes()).unwrap();
        group.killed();
    }
}

#[test]
fn a_guardian_that_leads_no_group_refuses_to_run() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("__guardian")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by quorate alone"));
}

/// Within this a process is dead, on the busiest machine.
const BOUND: Duration = Duration::from_secs(20);

/// A deadline for a test to wait for.
const SHORT: Duration = Duration::from_millis(300);

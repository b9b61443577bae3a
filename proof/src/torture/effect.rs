//! Whether faults had their effect, as the kernel tells it, and the delay of disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use super::launch::{Process, launch};

/// Whether what was to be done was seen, or why not.
pub(super) type Effect = Result<(), String>;

/// Whether the kernel says that a process is stopped.
pub(super) fn is_stopped(pid: Option<Pid>) -> Effect {
    let pid = pid.ok_or("the process has ended")?;
    match field(pid, "State").as_deref() {
        Some(state) if state.starts_with(['T', 't']) => Ok(()),
        state => Err(format!("process {pid} is not stopped: {state:?}")),
    }
}

/// Which process traces another one.
pub(super) fn tracer(pid: Pid) -> Option<Pid> {
    let tracer = field(pid, "TracerPid")?.parse().ok()?;
    (tracer != 0).then(|| Pid::from_raw(tracer))
}

/// What the kernel says of a process.
fn field(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(':')
            .map(str::to_owned)
    };
    status
        .lines()
        .find_map(line)
        .map(|value| value.trim().to_owned())
}

/// Delays each sync of a process by so many milliseconds, while what is returned runs.
pub(super) fn slow(strace: &Path, pid: Pid, delay: u64) -> Result<Process, String> {
    let mut command = launch(strace, None);
    command
        .args(["-f", "-qq", "-e", "trace=fdatasync"])
        .arg(format!("--inject=fdatasync:delay_enter={}", delay * 1000))
        .args(["-o", "/dev/null", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::spawn(&mut command)
}

/// Finds the program that slows system calls down, if it works here: on a process that is a sibling of
/// it, as the members are.
pub(crate) fn find_strace() -> Option<PathBuf> {
    let strace = Path::new("strace");
    let mut sibling = launch(Path::new("sleep"), None);
    sibling.arg("10").stdin(Stdio::null());
    let sibling = Process::spawn(&mut sibling).ok()?;
    let mut slowness = slow(strace, sibling.pid(), 1).ok()?;
    let patience = Instant::now() + Duration::from_secs(5);
    while !slowness.has_ended() && Instant::now() < patience {
        if tracer(sibling.pid()) == Some(slowness.pid()) {
            return Some(strace.to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

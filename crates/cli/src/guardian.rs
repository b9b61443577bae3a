//! The guardian: a process that ends a command in time, whatever happens to quorate.
//!
//! A command that runs under a lock must not run on once the lock may be another's, not even if
//! quorate is killed, stopped or stuck. So before anything else quorate starts itself once more as a
//! *guardian*, the leader of a new process group; the command is then started into that group. Each time
//! the session is confirmed, quorate writes the new deadline down a pipe to the guardian. The guardian
//! kills the whole group, itself included,
//!
//! - when the pipe ends: quorate is gone;
//! - when the last deadline has passed by the guardian's own look at the clock: quorate is stopped or
//!   stuck, or has no news of its session.
//!
//! While the guardian has not been waited for, the id of the group cannot go to another group, even
//! after the guardian and the command are dead.
//!
//! A process can leave its group, so the guardian is told the command's process as well, and kills that
//! with all its descendants first; see [`tree`](crate::tree).
//!
//! A deadline on the pipe is a line with a decimal number: nanoseconds on the clock that counts from
//! the start of the machine and goes on while it is suspended (on Linux; elsewhere the monotonic clock).
//! The command's process is a line that begins with `command`.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    process::{ExitCode, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal, killpg},
    time::{ClockId, clock_gettime},
    unistd::{Pid, getpgrp, getpid, read, write},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout, Command},
};

use crate::tree::Root;

/// The hidden subcommand that makes this program the guardian.
pub(crate) const SUBCOMMAND: &str = "__guardian";

/// A running guardian, as quorate sees it.
///
/// Dropping it kills the group at once.
#[derive(Debug)]
pub(crate) struct Guardian {
    process: Child,
    group: Pid,
    /// Never waits. A pipe of tokio's would refuse to write until its readiness has been heard of.
    control: OwnedFd,
    /// The guardian holds the other end open, and nobody else does: it ends with the guardian.
    life: ChildStdout,
}

impl Guardian {
    /// Starts a guardian and waits until it heeds no signals.
    pub(crate) async fn start() -> io::Result<Self> {
        // The link still leads to the program when its file has been replaced.
        #[cfg(target_os = "linux")]
        return Self::start_from("/proc/self/exe").await;
        #[cfg(not(target_os = "linux"))]
        return Self::start_from(std::env::current_exe()?).await;
    }

    /// Starts `program`, which is quorate, as the guardian.
    pub(crate) async fn start_from(program: impl AsRef<OsStr>) -> io::Result<Self> {
        let (control_end, control) = io::pipe()?;
        fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut process = Command::new(program)
            .arg0("quorate")
            .arg(SUBCOMMAND)
            .stdin(Stdio::from(control_end))
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut life = process.stdout.take().expect("its stdout is piped");
        let mut ready = [0; READY.len()];
        life.read_exact(&mut ready).await?;
        let pid = process.id().expect("nobody has waited for it");
        Ok(Self {
            process,
            group: Pid::from_raw(i32::try_from(pid).expect("it came from one")),
            control: control.into(),
            life,
        })
    }

    /// The group that the guardian leads, and kills.
    pub(crate) const fn group(&self) -> Pid {
        self.group
    }

    /// Sets the deadline, in place of any before.
    ///
    /// It never waits. If the guardian does not read, being stopped itself, the pipe is full after some
    /// thousand deadlines; those beyond are refused and an earlier one stands. It also fails once the guardian is dead, as
    /// [`died`](Guardian::died) tells.
    pub(crate) fn set_deadline(&self, deadline: Deadline) -> io::Result<()> {
        self.tell(&deadline.0.as_nanos().to_string())
    }

    /// Names the process that has to end with the group, wherever it and its descendants move.
    pub(crate) fn set_command(&self, command: Root) -> io::Result<()> {
        self.tell(&format!("{COMMAND}{}", command.to_words()))
    }

    fn tell(&self, line: &str) -> io::Result<()> {
        // Short enough to be written as a whole or not at all.
        write(&self.control, format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Waits until the guardian is dead. It can be dropped and called again.
    pub(crate) async fn died(&mut self) {
        let mut nothing = [0; 16];
        while matches!(self.life.read(&mut nothing).await, Ok(1..)) {}
    }

    /// Sends a signal to every process of the group. The guardian heeds none but
    /// [`SIGKILL`](Signal::SIGKILL) and `SIGSTOP`.
    pub(crate) fn signal(&self, signal: Signal) {
        // It fails if all of the group are dead, which is as well.
        let _ = killpg(self.group, signal);
    }

    /// Kills what is left of the group, and waits for the guardian.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        // Once it was waited for, the id may be another group's.
        if self.process.id().is_some() {
            self.signal(Signal::SIGKILL);
            self.process.wait().await?;
        }
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // The end of the pipe would make the guardian do it, unless it was killed itself.
        if self.process.id().is_some() {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// A moment on the clock that quorate and the guardian share: the time since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Duration);

impl Deadline {
    /// The moment at which what `remaining` tells will be over. The clock is read before `remaining` is
    /// called, so that a pause between the two makes the deadline earlier, never later.
    pub(crate) fn after(remaining: impl FnOnce() -> Duration) -> Self {
        let now = now();
        Self(now.saturating_add(remaining()))
    }
}

/// Is the guardian, to the end of the group.
pub(crate) fn run() -> ExitCode {
    let group = getpgrp();
    if group != getpid() {
        // Killing the group would kill whoever started this by hand.
        eprintln!("quorate: the guardian is started by quorate alone");
        return ExitCode::from(2);
    }
    // What is forwarded to the group is for the command.
    if let Err(error) = SigSet::all().thread_block() {
        eprintln!("quorate: the guardian cannot block signals: {error}");
        return ExitCode::FAILURE;
    }
    let mut stdout = io::stdout();
    if stdout
        .write_all(READY)
        .and_then(|()| stdout.flush())
        .is_ok()
    {
        let command = watch();
        if let Some(command) = command {
            command.kill();
        }
    }
    let _ = killpg(group, Signal::SIGKILL);
    ExitCode::FAILURE
}

/// Returns when the group has to die, and the command with it: at the deadline, or if anything is wrong
/// with the pipe.
fn watch() -> Option<Root> {
    let control = io::stdin();
    let mut unread = Vec::new();
    let mut news = News::default();
    loop {
        let mut fds = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, patience(news.deadline)) {
            // What the pipe holds counts before the clock: it may put the deadline off.
            Ok(1..) => {
                if read_news(&control, &mut unread, &mut news).is_err() {
                    return news.command;
                }
            }
            Ok(_) if news.deadline.is_some_and(|deadline| deadline <= now()) => {
                return news.command;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return news.command,
        }
    }
}

/// What the pipe has told so far.
#[derive(Default)]
struct News {
    deadline: Option<Duration>,
    command: Option<Root>,
}

/// How long to wait for the pipe.
fn patience(deadline: Option<Duration>) -> PollTimeout {
    /// Timers stand still while the machine is suspended; the clock is looked at this often.
    const LONGEST: Duration = Duration::from_secs(1);

    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_sub(now()).min(LONGEST);
    // Rounded up, so that the last wait does not end a little too early over and over.
    let millis = left.as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).expect("it is a second at most")
}

/// Reads the pipe once; of several deadlines the last counts.
fn read_news(control: impl AsFd, unread: &mut Vec<u8>, news: &mut News) -> Result<(), BrokenPipe> {
    let mut buffer = [0; 4096];
    match read(control, &mut buffer) {
        Ok(0) => return Err(BrokenPipe),
        Ok(count) => unread.extend_from_slice(&buffer[..count]),
        Err(Errno::EINTR) => {}
        Err(_) => return Err(BrokenPipe),
    }
    while let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
        let line: Vec<u8> = unread.drain(..=end).collect();
        let line = std::str::from_utf8(&line[..end]).map_err(|_| BrokenPipe)?;
        match line.strip_prefix(COMMAND) {
            Some(words) => news.command = Some(Root::from_words(words).ok_or(BrokenPipe)?),
            None => {
                let nanos = line.parse().map_err(|_| BrokenPipe)?;
                news.deadline = Some(Duration::from_nanos(nanos));
            }
        }
    }
    // A line is never this long.
    if unread.len() < 64 {
        Ok(())
    } else {
        Err(BrokenPipe)
    }
}

/// The pipe has ended, or holds what quorate does not write.
struct BrokenPipe;

/// The time since the machine was started, suspends included.
fn now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

    clock_gettime(CLOCK)
        .expect("every kernel that runs this has the clock")
        .into()
}

/// How the line begins that names the command.
const COMMAND: &str = "command ";

/// What the guardian says once signals no longer end it.
const READY: &[u8] = b"ready\n";

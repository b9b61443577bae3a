//! The command that runs under a hold, in the group of its [guardian](crate::guardian).

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow, Signal},
    unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use tokio::{
    process::{Child as Process, Command},
    signal::unix::{self, SignalKind},
};

use crate::{
    guardian::{Deadline, Guardian},
    signals::Signals,
    tree::Root,
};

/// A running command, with the guardian that ends it in time.
///
/// Signals that come to quorate go to the command's group while this is [waited for](Child::wait). At a
/// terminal the group is in the foreground for as long as this lives. Dropping it kills the group at
/// once.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    /// The command as its descendants are found by; `None` where that cannot be.
    root: Option<Root>,
    guardian: Guardian,
    signals: Signals,
    /// Tells that a child has stopped, among other things.
    children: unix::Signal,
    terminal: Option<Terminal>,
    guardian_is_dead: bool,
    /// The exit code, once the command has ended.
    code: Option<u8>,
}

impl Child {
    /// Starts a command in the guardian's group, with quorate's own standard streams. The guardian should
    /// have a deadline by now: without one it only sees to it that the command does not outlive quorate.
    pub(crate) fn spawn<K, V>(
        program: &OsStr,
        args: &[OsString],
        envs: impl IntoIterator<Item = (K, V)>,
        guardian: Guardian,
        signals: Signals,
    ) -> Result<Self, NotStarted>
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let mut command = Command::new(program);
        command.args(args).envs(envs);
        Self::start(command, guardian, signals)
    }

    /// As [`spawn`](Child::spawn), of a command that was put together elsewhere.
    pub(crate) fn start(
        mut command: Command,
        guardian: Guardian,
        signals: Signals,
    ) -> Result<Self, NotStarted> {
        let program = command.as_std().get_program().to_owned();
        let not_started = |error| NotStarted {
            program: program.clone(),
            error,
        };
        let children = unix::signal(SignalKind::child()).map_err(not_started)?;
        // Before it starts: a command that reads the terminal from the background would be stopped.
        let terminal = Terminal::hand_over(guardian.group());
        let process = command
            .process_group(guardian.group().as_raw())
            .spawn()
            .map_err(not_started)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let root = pid.and_then(Root::of);
        let child = Self {
            process,
            root,
            guardian,
            signals,
            children,
            terminal,
            guardian_is_dead: false,
            code: None,
        };
        if let Some(root) = root {
            // Dropping the child kills it: without this it could outlive the hold.
            child.guardian.set_command(root).map_err(not_started)?;
        }
        Ok(child)
    }

    /// Has the guardian kill the group at `deadline`, in place of any deadline before.
    pub(crate) fn set_deadline(&self, deadline: Deadline) -> io::Result<()> {
        self.guardian.set_deadline(deadline)
    }

    /// Sends a signal to the command and all of its group. A command that has moved to another group
    /// gets it too, and with [`SIGKILL`](Signal::SIGKILL) all that descend from it.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.code.is_some() {
            return;
        }
        match self.root {
            Some(root) if signal == Signal::SIGKILL => root.kill(),
            Some(root) if !self.is_in_group() => root.signal(signal),
            _ => {}
        }
        self.guardian.signal(signal);
    }

    /// Whether the command is still in the group that it was started in.
    fn is_in_group(&self) -> bool {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok());
        pid.is_some_and(|pid| getpgid(Some(Pid::from_raw(pid))) == Ok(self.guardian.group()))
    }

    /// Waits until the command ends and returns its exit code: 128 and the signal if one ended it. Then
    /// nothing of its group runs any more. Signals that come meanwhile are passed on.
    ///
    /// If the guardian dies, which only a `SIGKILL` from elsewhere or the deadline can do, the group is
    /// killed. It can be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<u8> {
        let code = loop {
            if let Some(code) = self.code {
                break code;
            }
            tokio::select! {
                status = self.process.wait() => self.code = Some(exit_code(status?)),
                signal = self.signals.next() => self.pass_on(signal),
                _ = self.children.recv() => self.forbid_suspension(),
                () = self.guardian.died(), if !self.guardian_is_dead => {
                    self.guardian_is_dead = true;
                    self.signal(Signal::SIGKILL);
                }
            }
        };
        // What the command has left behind in its group may not run on outside of the hold. What has
        // left the group as well is nobody's descendant any more, and out of reach.
        self.guardian.end().await?;
        self.terminal = None;
        Ok(code)
    }

    /// Asks the command to end, waits, kills the group when `patience` is over, and returns the exit
    /// code. Signals that come meanwhile are passed on.
    pub(crate) async fn stop(&mut self, patience: impl Future<Output = ()>) -> io::Result<u8> {
        self.signal(Signal::SIGTERM);
        // What is stopped hears nothing else.
        self.signal(Signal::SIGCONT);
        tokio::select! {
            biased;
            code = self.wait() => return code,
            () = patience => self.signal(Signal::SIGKILL),
        }
        self.wait().await
    }

    fn pass_on(&mut self, signal: Signal) {
        if signal == Signal::SIGCONT && self.terminal.is_none() {
            // A shell has brought quorate to the foreground.
            self.terminal = Terminal::hand_over(self.guardian.group());
        }
        self.signal(signal);
    }

    /// Continues a command that was suspended at the terminal. The shell does not see it stop, so that
    /// nobody could continue it, and quorate cannot stop with it without losing the hold.
    fn forbid_suspension(&self) {
        #[cfg(target_os = "linux")]
        {
            use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

            let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) else {
                return;
            };
            let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
            let status = waitid(Id::Pid(Pid::from_raw(pid)), flags);
            if matches!(status, Ok(WaitStatus::Stopped(_, Signal::SIGTSTP))) {
                eprintln!("quorate: a command cannot be suspended here; it continues");
                self.signal(Signal::SIGCONT);
            }
        }
    }
}

/// Nothing of the command outlives this.
impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// A command that could not be started.
#[derive(Debug)]
pub(crate) struct NotStarted {
    program: OsString,
    error: io::Error,
}

impl NotStarted {
    pub(crate) const fn new(program: OsString, error: io::Error) -> Self {
        Self { program, error }
    }

    /// The exit code that shells have for it.
    pub(crate) fn code(&self) -> u8 {
        match self.error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.display();
        if self.error.kind() == io::ErrorKind::NotFound {
            write!(f, "{program}: command not found")
        } else if self.error.raw_os_error() == Some(Errno::EACCES as i32) {
            write!(f, "{program}: not executable")
        } else {
            write!(f, "{program}: cannot be run: {}", self.error)
        }
    }
}

/// The exit code that stands for a status: 128 and the signal, if one ended the process.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

/// A terminal whose foreground was given away. Dropping it takes the foreground back.
#[derive(Debug)]
struct Terminal {
    /// Quorate's own group.
    group: Pid,
}

impl Terminal {
    /// Puts `group` into the foreground of the terminal that is standard input, if there is one and
    /// quorate is in its foreground.
    fn hand_over(group: Pid) -> Option<Self> {
        let own = getpgrp();
        let stdin = io::stdin();
        if !stdin.is_terminal() || tcgetpgrp(&stdin) != Ok(own) {
            return None;
        }
        set_foreground(group).ok()?;
        Some(Self { group: own })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It fails if the terminal is gone.
        let _ = set_foreground(self.group);
    }
}

fn set_foreground(group: Pid) -> nix::Result<()> {
    // To set the foreground from the background stops the process, unless the signal is blocked.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let before = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let result = tcsetpgrp(io::stdin(), group);
    before.thread_set_mask()?;
    result
}

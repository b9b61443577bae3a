//! Commands that are run for what happens: each to its end, one at a time.

use std::{
    ffi::OsString,
    fmt, future, io,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::sleep,
};

use crate::{
    child::{NotStarted, exit_code},
    signals::Signals,
};

/// A command to run, again and again.
#[derive(Debug)]
pub(crate) struct Hook {
    command: Vec<OsString>,
    limit: Option<Duration>,
}

impl Hook {
    /// A program and its arguments; there is a program.
    pub(crate) const fn new(command: Vec<OsString>) -> Self {
        Self {
            command,
            limit: None,
        }
    }

    /// A command for the shell.
    pub(crate) fn shell(script: impl Into<OsString>) -> Self {
        Self::new(vec!["sh".into(), "-c".into(), script.into()])
    }

    /// Kills a command that takes longer.
    pub(crate) const fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs the command to its end, in a process group of its own and with `input` on its standard input.
    /// Signals that come meanwhile are passed on to the group.
    ///
    /// What the command leaves running in the background runs on. Dropping the future kills the command.
    pub(crate) async fn run(
        &self,
        variables: impl IntoIterator<Item = Variable>,
        input: &[u8],
        signals: &mut Signals,
    ) -> Ran {
        let (program, args) = self.command.split_first().expect("there is a program");
        let mut command = Command::new(program);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = command
            .args(args)
            .stdin(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        match process {
            Ok(process) => self.wait(process, input, signals).await,
            Err(error) => Ran {
                outcome: Outcome::NotStarted(NotStarted::new(program.clone(), error)),
                signal: None,
            },
        }
    }

    async fn wait(&self, mut process: Child, input: &[u8], signals: &mut Signals) -> Ran {
        let group = process.id().and_then(|pid| i32::try_from(pid).ok());
        // It fails if all of the group are dead, which is as well.
        let kill = |signal| group.map(|group| killpg(Pid::from_raw(group), signal));
        let stdin = process.stdin.take();
        let mut feed = pin!(async move {
            if let Some(mut stdin) = stdin {
                // A command need not read it.
                let _ = stdin.write_all(input).await;
            }
        });
        let mut late = pin!(async {
            match self.limit {
                Some(limit) => sleep(limit).await,
                None => future::pending().await,
            }
        });
        let (mut is_fed, mut is_late, mut came) = (false, false, None);
        let status = loop {
            tokio::select! {
                biased;
                status = process.wait() => break status,
                signal = signals.next() => {
                    came.get_or_insert(signal);
                    kill(signal);
                }
                () = &mut late, if !is_late => {
                    is_late = true;
                    kill(Signal::SIGKILL);
                }
                () = &mut feed, if !is_fed => is_fed = true,
            }
        };
        let outcome = match (status, self.limit) {
            (_, Some(limit)) if is_late => Outcome::TooLong(limit),
            (Ok(status), _) => Outcome::Ended(status),
            (Err(error), _) => Outcome::Unknown(error),
        };
        Ran {
            outcome,
            signal: came,
        }
    }
}

/// An environment variable, or its absence.
pub(crate) type Variable = (String, Option<OsString>);

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// The first signal that came meanwhile.
    pub(crate) signal: Option<Signal>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ended(ExitStatus),
    NotStarted(NotStarted),
    TooLong(Duration),
    Unknown(io::Error),
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Ended(status) if status.success())
    }

    /// The exit code that stands for it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Ended(status) => exit_code(*status),
            Self::NotStarted(error) => error.code(),
            Self::TooLong(_) => 128 + Signal::SIGKILL as u8,
            Self::Unknown(_) => u8::MAX,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(status) => write!(f, "the command ended with {status}"),
            Self::NotStarted(error) => error.fmt(f),
            Self::TooLong(limit) => write!(f, "the command took longer than {limit:?}"),
            Self::Unknown(error) => write!(f, "the command cannot be waited for: {error}"),
        }
    }
}

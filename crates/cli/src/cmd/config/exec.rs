//! `config exec`: run a command with keys as its environment.

use std::{collections::BTreeSet, os::unix::ffi::OsStringExt, process::ExitCode};

use futures_util::{FutureExt, TryStreamExt};
use nix::sys::signal::Signal;
use quorate::{Client, Error, ErrorKind, Event, KeyRange, Observed, Observer, Present};
use tokio::{process::Command, time::sleep};

use super::{
    debounce::Debounce,
    patience::reach,
    variables::{Naming, Variables},
};
use crate::{
    args,
    child::{Child, NotStarted},
    failure::{Failure, complain, invalid},
    guardian::Guardian,
    hold::{signalled, unless_ended},
    signals::Signals,
};

pub(super) async fn run(client: &Client, args: args::Exec) -> Result<ExitCode, Failure> {
    let mut signals = Signals::of(ENDING).map_err(Failure::System)?;
    let prefix = args.prefix.clone().into_vec();
    let range = KeyRange::prefix(prefix.clone());
    let mut observer = client.observe(range.clone());
    let first = async {
        reach(client, &range).await?;
        observer.try_next().await
    };
    let first = match unless_ended(&mut signals, first).await {
        Ok(first) => first?.ok_or_else(ended)?,
        Err(signal) => return Ok(signalled(signal)),
    };
    let mut keys = Keys {
        present: Present::new(),
        naming: Naming {
            prefix,
            upper: !args.no_upper,
        },
        told: BTreeSet::new(),
    };
    keys.apply(first);
    let variables = keys.variables().map_err(invalid)?;
    match Supervisor::start(&args, variables, signals).await? {
        Started::Running(supervisor) => supervisor.follow(observer, keys).await,
        Started::NotStarted(error) => {
            complain(&error.to_string());
            Ok(ExitCode::from(error.code()))
        }
        Started::Ended(signal) => Ok(signalled(signal)),
    }
}

/// The keys as they all are at one revision.
struct Keys {
    present: Present,
    naming: Naming,
    /// What was told of keys that are left out.
    told: BTreeSet<String>,
}

impl Keys {
    fn apply(&mut self, observed: Observed) {
        match observed {
            Observed::Reset(all) => {
                let kvs = all.kvs.into_iter();
                self.present = kvs.map(|kv| (kv.key.clone(), kv)).collect();
            }
            Observed::Changes(changes) => {
                for event in &changes {
                    match event {
                        Event::Put { kv, .. } => self.present.insert(kv.key.clone(), kv.clone()),
                        Event::Delete { key, .. } => self.present.remove(key),
                    };
                }
            }
        }
    }

    fn variables(&mut self) -> Result<Variables, String> {
        let variables = Variables::of(self.present.values(), &self.naming)?;
        let left_out: BTreeSet<_> = variables.left_out().iter().cloned().collect();
        for message in left_out.difference(&self.told) {
            complain(message);
        }
        self.told = left_out;
        Ok(variables)
    }
}

/// A running command, and what it was started with.
struct Supervisor<'a> {
    args: &'a args::Exec,
    variables: Variables,
    child: Child,
    /// Those that end it. The child passes them on, and all others.
    signals: Signals,
}

/// What became of the wish to start a command.
enum Started<T> {
    /// A signal asked to end before.
    Ended(Signal),
    NotStarted(NotStarted),
    Running(T),
}

impl<'a> Supervisor<'a> {
    async fn start(
        args: &'a args::Exec,
        variables: Variables,
        mut signals: Signals,
    ) -> Result<Started<Self>, Failure> {
        let started = start(args, &variables, &mut signals).await?;
        Ok(started.map(|child| Self {
            args,
            variables,
            child,
            signals,
        }))
    }

    /// Follows the keys until the command ends by itself, or by a signal that came to quorate.
    async fn follow(mut self, mut observer: Observer, mut keys: Keys) -> Result<ExitCode, Failure> {
        let mut debounce = Debounce::new(self.args.debounce, self.args.splay);
        let mut follows = true;
        loop {
            tokio::select! {
                biased;
                // A command that was asked to end is not started again.
                _ = self.signals.next() => follows = false,
                code = self.child.wait() => {
                    return code.map(ExitCode::from).map_err(Failure::System);
                }
                // Before the changes: they may never cease.
                () = debounce.settled(), if follows => {
                    debounce.clear();
                    if let Some(code) = self.update(&mut keys).await? {
                        return Ok(code);
                    }
                }
                observed = observer.try_next(), if follows => {
                    match observed.and_then(|observed| observed.ok_or_else(ended)) {
                        Ok(observed) => {
                            keys.apply(observed);
                            debounce.touch();
                        }
                        Err(error) => {
                            complain(&format!("{error}; changes are no longer followed, CMD runs on"));
                            follows = false;
                        }
                    }
                }
            }
        }
    }

    /// Has the command know of changed keys. Returns the exit status if that was its end.
    async fn update(&mut self, keys: &mut Keys) -> Result<Option<ExitCode>, Failure> {
        let variables = match keys.variables() {
            Ok(variables) => variables,
            Err(message) => {
                complain(&format!("{message}; CMD runs on with what it has"));
                return Ok(None);
            }
        };
        if variables.values() == self.variables.values() {
            return Ok(None);
        }
        self.variables = variables;
        if let Some(signal) = self.args.signal {
            self.child.signal(signal);
            return Ok(None);
        }
        let stopped = self.child.stop(sleep(self.args.kill_after)).await;
        let code = stopped.map_err(Failure::System)?;
        match start(self.args, &self.variables, &mut self.signals).await? {
            Started::Running(child) => {
                self.child = child;
                Ok(None)
            }
            Started::NotStarted(error) => {
                complain(&error.to_string());
                Ok(Some(ExitCode::from(error.code())))
            }
            Started::Ended(_) => Ok(Some(ExitCode::from(code))),
        }
    }
}

impl<T> Started<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Started<U> {
        match self {
            Self::Ended(signal) => Started::Ended(signal),
            Self::NotStarted(error) => Started::NotStarted(error),
            Self::Running(child) => Started::Running(change(child)),
        }
    }
}

async fn start(
    args: &args::Exec,
    variables: &Variables,
    signals: &mut Signals,
) -> Result<Started<Child>, Failure> {
    let guardian = Guardian::start().await.map_err(Failure::System)?;
    // What comes from now on is passed on to the child; what came before is seen here.
    let passed_on = Signals::new().map_err(Failure::System)?;
    if let Some(signal) = signals.next().now_or_never() {
        return Ok(Started::Ended(signal));
    }
    let (program, rest) = args.command.split_first().expect("there is a command");
    let mut command = Command::new(program);
    if args.pristine {
        command.env_clear();
    }
    command.args(rest).envs(variables.values());
    Ok(match Child::start(command, guardian, passed_on) {
        Ok(child) => Started::Running(child),
        Err(error) => Started::NotStarted(error),
    })
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "an endless observation ended")
}

/// The signals after which a command is not started again. Others are for the command alone.
const ENDING: &[Signal] = &[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

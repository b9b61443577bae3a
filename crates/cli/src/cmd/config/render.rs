//! `config render`: a file from a template over keys.

use std::{
    collections::BTreeSet, ffi::OsString, io, path::Path, process::ExitCode, time::Duration,
};

use nix::sys::signal::Signal;
use quorate::{Client, ErrorKind, Result, Revision};
use serde_json::json;
use tokio::time::sleep;

use super::{
    debounce::Debounce,
    diff::unified,
    file::Destination,
    followed::Followed,
    patience::wait,
    template::{Attempt, Template},
    view::{Dependency, View},
};
use crate::{
    args,
    failure::{Failure, NO, complain, invalid},
    hold::{signalled, unless_ended},
    hook::{Hook, Ran},
    output::Output,
    signals::Signals,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Render,
) -> Result<ExitCode, Failure> {
    let template = Template::read(&args.template, &args.prefix).map_err(invalid)?;
    let destination = Destination::new(args.destination.clone(), args.mode);
    let mut renderer = Renderer {
        client,
        template,
        used: BTreeSet::new(),
        target: Target {
            destination: destination.map_err(Failure::System)?,
            check: args.check.clone(),
            reload: args.reload.clone(),
            limit: args.cmd_timeout,
            is_reload_due: false,
        },
    };
    if !args.once && !args.dry_run {
        return renderer.follow(&args).await;
    }
    let mut signals = Signals::of(ENDING).map_err(Failure::System)?;
    let attempt = match unless_ended(&mut signals, renderer.attempt()).await {
        Ok(attempt) => attempt?,
        Err(signal) => return Ok(signalled(signal)),
    };
    attempt.tell_warnings();
    let text = attempt.result.map_err(invalid)?;
    if args.dry_run {
        return renderer.target.show(out, &text);
    }
    let applied = renderer.target.apply(&text, &mut signals).await;
    Ok(match applied.map_err(Failure::System)? {
        Applied::Done => ExitCode::SUCCESS,
        Applied::Ended(signal) => signalled(signal),
        Applied::Failed => ExitCode::from(NO),
    })
}

/// A template, and where it is rendered to.
struct Renderer<'a> {
    client: &'a Client,
    template: Template,
    /// What the last rendering used.
    used: BTreeSet<Dependency>,
    target: Target,
}

impl Renderer<'_> {
    /// Renders now and whenever a key that was used has changed, until interrupted.
    async fn follow(&mut self, args: &args::Render) -> Result<ExitCode, Failure> {
        let mut signals = Signals::of(&ENDING[1..]).map_err(Failure::System)?;
        let mut hangups = Signals::of(&ENDING[..1]).map_err(Failure::System)?;
        let mut followed = Followed::new(self.client);
        let mut debounce = Debounce::new(args.debounce, Duration::ZERO);
        loop {
            let attempt = match unless_ended(&mut signals, self.attempt_until_answered()).await {
                Ok(attempt) => attempt?,
                Err(signal) => return Ok(signalled(signal)),
            };
            let revision = attempt.lookups.view.revision();
            followed.follow(&self.used, revision);
            let is_written = match self.write(attempt, &mut signals).await {
                Ok(is_written) => is_written,
                Err(signal) => return Ok(signalled(signal)),
            };
            debounce.clear();
            loop {
                tokio::select! {
                    biased;
                    signal = signals.next() => return Ok(signalled(signal)),
                    _ = hangups.next() => {
                        self.read_again(args);
                        break;
                    }
                    // Before the changes: they may never cease.
                    () = debounce.settled() => break,
                    changed = followed.changed(revision) => {
                        changed?;
                        debounce.touch();
                    }
                    () = sleep(RETRY), if !is_written => break,
                }
            }
        }
    }

    /// Writes what was rendered, or tells why not; false if it may be written later. An error is the
    /// signal that came meanwhile.
    async fn write(&mut self, attempt: Attempt, signals: &mut Signals) -> Result<bool, Signal> {
        attempt.tell_warnings();
        let text = match attempt.result {
            Ok(text) => text,
            Err(message) => {
                let path = self.target.destination.path().display();
                complain(&format!("{message}; {path} stays as it is"));
                return Ok(true);
            }
        };
        match self.target.apply(&text, signals).await {
            Ok(Applied::Ended(signal)) => Err(signal),
            Ok(Applied::Done | Applied::Failed) => Ok(true),
            Err(error) => {
                complain(&error.to_string());
                Ok(false)
            }
        }
    }

    /// Reads the template again; if it is no good, the one before stays.
    fn read_again(&mut self, args: &args::Render) {
        match Template::read(&args.template, &args.prefix) {
            Ok(template) => self.template = template,
            Err(message) => complain(&format!("{message}; the template before is kept")),
        }
    }

    async fn attempt_until_answered(&mut self) -> Result<Attempt> {
        let mut told = false;
        loop {
            match self.attempt().await {
                Err(error) if error.is_retryable() => wait(&error, &mut told).await,
                attempt => return attempt,
            }
        }
    }

    /// Renders once, with all keys as they stand at one revision.
    async fn attempt(&mut self) -> Result<Attempt> {
        /// How often it begins at a newer revision because the store has forgotten that of the first read.
        const BEGINNINGS: usize = 5;

        let mut beginnings = 1;
        loop {
            let mut view = View::default();
            match self.attempt_with(&mut view).await {
                Err(error) if is_forgotten(&error, &view) && beginnings < BEGINNINGS => {
                    beginnings += 1;
                }
                attempt => return attempt,
            }
        }
    }

    /// Renders, reads what the template has asked for in vain, and begins anew until it has all. What was
    /// used last time is read beforehand.
    async fn attempt_with(&mut self, view: &mut View) -> Result<Attempt> {
        view.read_all(self.client, &self.used).await?;
        loop {
            let mut attempt = self.template.render(std::mem::take(view));
            let Some(missing) = attempt.lookups.missing.take() else {
                self.used.clone_from(&attempt.lookups.used);
                return Ok(attempt);
            };
            *view = attempt.lookups.view;
            view.read(self.client, missing).await?;
        }
    }
}

/// Whether the revision of a view cannot be read any more: it is compacted away, or the store is another
/// one that has not come so far.
fn is_forgotten(error: &quorate::Error, view: &View) -> bool {
    let kinds = [
        ErrorKind::ClusterChanged,
        ErrorKind::Compacted,
        ErrorKind::InvalidArgument,
    ];
    view.revision() != Revision::ZERO && kinds.contains(&error.kind())
}

/// The file, and the commands that it has to do with.
struct Target {
    destination: Destination,
    check: Option<OsString>,
    reload: Option<OsString>,
    limit: Duration,
    /// The file has changed, and no reload has succeeded since.
    is_reload_due: bool,
}

/// What became of a text.
enum Applied {
    /// It is in the file, and nothing more is to be done.
    Done,
    /// A signal came while a command ran.
    Ended(Signal),
    /// A command failed, and that is told.
    Failed,
}

impl Target {
    async fn apply(&mut self, text: &str, signals: &mut Signals) -> io::Result<Applied> {
        let path = self.destination.path().to_owned();
        if !self.destination.is(text.as_bytes())? {
            let staged = self.destination.stage(text.as_bytes())?;
            if let Some(check) = &self.check {
                let hook = Hook::shell(filled(check, staged.path())).limit(self.limit);
                let ran = run_on(&hook, staged.path(), signals).await;
                if let Some(signal) = ran.signal {
                    return Ok(Applied::Ended(signal));
                }
                if !ran.outcome.is_success() {
                    let (why, path) = (ran.outcome, path.display());
                    complain(&format!("--check: {why}; {path} stays as it is"));
                    return Ok(Applied::Failed);
                }
            }
            staged.replace()?;
            self.is_reload_due = self.reload.is_some();
        }
        let Some(reload) = self.reload.as_ref().filter(|_| self.is_reload_due) else {
            return Ok(Applied::Done);
        };
        let hook = Hook::shell(filled(reload, &path)).limit(self.limit);
        let ran = run_on(&hook, &path, signals).await;
        self.is_reload_due = !ran.outcome.is_success();
        if self.is_reload_due {
            complain(&format!("--reload: {}", ran.outcome));
        }
        Ok(match ran.signal {
            Some(signal) => Applied::Ended(signal),
            None if self.is_reload_due => Applied::Failed,
            None => Applied::Done,
        })
    }

    /// Prints what would change.
    fn show(&self, out: &mut Output, text: &str) -> Result<ExitCode, Failure> {
        let before = self.destination.read().map_err(Failure::System)?;
        let before = before.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let path = self.destination.path().display().to_string();
        let diff = unified(&path, before.as_deref(), text);
        for line in &diff {
            out.text_only(&[line.as_bytes()])?;
        }
        let changes = !diff.is_empty();
        out.json_only(|| json!({ "path": path, "changes": changes, "content": text }))?;
        Ok(ExitCode::from(if changes { NO } else { 0 }))
    }
}

async fn run_on(hook: &Hook, file: &Path, signals: &mut Signals) -> Ran {
    let variable = ("QUORATE_FILE".to_owned(), Some(file.into()));
    hook.run([variable], b"", signals).await
}

/// A shell command with the path, quoted, in place of each `{}`.
fn filled(script: &OsString, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let mut filled = Vec::new();
    let mut rest = script.as_bytes();
    while let Some(at) = rest.windows(2).position(|two| two == b"{}") {
        filled.extend_from_slice(&rest[..at]);
        filled.push(b'\'');
        for &byte in path.as_os_str().as_bytes() {
            match byte {
                b'\'' => filled.extend_from_slice(b"'\\''"),
                byte => filled.push(byte),
            }
        }
        filled.push(b'\'');
        rest = &rest[at + 2..];
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// How long after a failure of the file it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The signals that end it; the first has the template read again instead while changes are followed.
const ENDING: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_revision_that_is_compacted_away_is_begun_anew() {
        let client = Client::connect("mem:").await.unwrap();
        let key = |name: &str| Dependency::Key(name.to_owned());
        client.put("a", "1").await.unwrap();
        let mut view = View::default();
        view.read(&client, key("a")).await.unwrap();
        let newest = client.put("a", "2").await.unwrap();
        client.compact(newest, true).await.unwrap();
        let error = view.read(&client, key("b")).await.unwrap_err();
        assert!(is_forgotten(&error, &view));
        // What is wrong from the first read on stays so.
        assert!(!is_forgotten(&error, &View::default()));
        let mut anew = View::default();
        anew.read(&client, key("a")).await.unwrap();
        anew.read(&client, key("b")).await.unwrap();
        assert_eq!(anew.get(&key("a")).unwrap()[0].value, "2");
        assert_eq!(anew.get(&key("b")), Some(&[][..]));
    }

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        let script = OsString::from("check {} && again {}");
        let filled = filled(&script, Path::new("/a b/it's"));
        assert_eq!(filled, r"check '/a b/it'\''s' && again '/a b/it'\''s'");
    }
}

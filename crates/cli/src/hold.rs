//! What the verbs that hold have in common: waiting for the hold, and a command that runs under it.

use std::{
    ffi::OsString,
    future::{self, Future},
    os::unix::ffi::OsStringExt,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use nix::sys::signal::Signal;
use quorate::{
    Client, Error, ErrorKind, Key, Leadership, LockGuard, Loss, Result, Revision, Session,
    SessionState,
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    child::{Child, NotStarted},
    failure::{Failure, HELD_TOO_LONG, LOST, complain},
    guardian::{Deadline, Guardian},
    output::{Output, bytes, lease},
    signals::{Signals, asks_to_end},
};

/// The exit status of who was ended by a signal.
pub(crate) fn signalled(signal: Signal) -> ExitCode {
    ExitCode::from(128 + signal as u8)
}

/// A lock or a leadership.
#[derive(Debug)]
pub(crate) enum Hold {
    Leadership(Leadership),
    Lock(LockGuard),
}

impl Hold {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Leadership(leadership) => leadership.key(),
            Self::Lock(guard) => guard.key(),
        }
    }

    fn token(&self) -> Revision {
        match self {
            Self::Leadership(leadership) => leadership.token(),
            Self::Lock(guard) => guard.token(),
        }
    }

    fn session(&self) -> &Session {
        match self {
            Self::Leadership(leadership) => leadership.session(),
            Self::Lock(guard) => guard.session(),
        }
    }

    fn loss(&self) -> Option<Loss> {
        match self {
            Self::Leadership(leadership) => leadership.loss(),
            Self::Lock(guard) => guard.loss(),
        }
    }

    async fn lost(&self) -> Loss {
        match self {
            Self::Leadership(leadership) => leadership.lost().await,
            Self::Lock(guard) => guard.lost().await,
        }
    }

    /// Prints the key and the token.
    pub(crate) fn tell(&self, out: &mut Output) -> Result<(), Failure> {
        let (key, token) = (self.key(), self.token());
        out.result(&[key, token.to_string().as_bytes()], || {
            json!({
                "key": bytes(key),
                "token": token.0,
                "lease": lease(Some(self.session().lease())),
            })
        })?;
        out.flush()
    }

    /// Gives the hold up, and with it the session that it lives by.
    pub(crate) async fn release(self) -> Result<()> {
        let session = self.session().clone();
        let released = match self {
            Self::Leadership(leadership) => leadership.resign().await,
            Self::Lock(guard) => guard.release().await,
        };
        // Who did not confirm the one will not confirm the other either.
        if !released.as_ref().is_err_and(|error| error.is_retryable()) {
            close(&session).await;
        }
        released
    }

    /// What the command is told of its hold, by the names of its environment variables.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let key = OsString::from_vec(self.key().to_vec());
        let token = OsString::from(self.token().to_string());
        let mut environment = vec![
            ("QUORATE_KEY", key.clone()),
            ("QUORATE_TOKEN", token.clone()),
        ];
        if matches!(self, Self::Lock(_)) {
            environment.extend([("ETCD_LOCK_KEY", key), ("ETCD_LOCK_REV", token)]);
        }
        environment
    }
}

/// What became of the wish to hold.
#[derive(Debug)]
pub(crate) enum Obtained {
    /// A signal asked to end before.
    Ended(Signal),
    Hold(Hold),
    /// It did not come in time.
    Late,
    /// Somebody else holds.
    Taken,
}

/// Opens a session and has `acquire` obtain a hold under it, within `patience` if there is a limit.
/// What is not obtained leaves nothing behind. `acquire` returns `None` if somebody else holds.
pub(crate) async fn obtain(
    client: &Client,
    ttl: Option<Duration>,
    patience: Option<Duration>,
    signals: &mut Signals,
    acquire: impl AsyncFnOnce(&Session) -> Result<Option<Hold>>,
) -> Result<Obtained> {
    let mut opened = None;
    let hold = async {
        let session = match ttl {
            Some(ttl) => client.session_with_ttl(ttl).await?,
            None => client.session().await?,
        };
        acquire(opened.insert(session)).await
    };
    let hold = async {
        match patience {
            None => Some(hold.await),
            Some(patience) => timeout(patience, hold).await.ok(),
        }
    };
    let obtained = match unless_ended(signals, hold).await {
        Ok(Some(Ok(Some(hold)))) => return Ok(Obtained::Hold(hold)),
        Ok(Some(Ok(None))) => Ok(Obtained::Taken),
        Ok(Some(Err(error))) => Err(error),
        // Nobody holds it against us if no server has even granted a lease.
        Ok(None) if opened.is_none() => Err(Error::new(
            ErrorKind::Timeout,
            "no server granted a lease in the time allowed; without --timeout the reason is told",
        )),
        Ok(None) => Ok(Obtained::Late),
        Err(signal) => Ok(Obtained::Ended(signal)),
    };
    if let Some(session) = &opened {
        close(session).await;
    }
    obtained
}

/// Ends a session, so that its keys do not stand until its lease ends. If that fails, they do.
async fn close(session: &Session) {
    if !session.is_lost() {
        let _ = session.close().await;
    }
}

/// Waits for `done`, unless a signal asks to end first.
pub(crate) async fn unless_ended<T>(
    signals: &mut Signals,
    done: impl Future<Output = T>,
) -> Result<T, Signal> {
    let mut done = pin!(done);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                if asks_to_end(signal) {
                    return Err(signal);
                }
            }
            done = &mut done => return Ok(done),
        }
    }
}

/// Holds until a signal asks to end; or until the hold is lost, and tells how.
pub(crate) async fn keep(hold: &Hold, signals: &mut Signals) -> Option<Loss> {
    unless_ended(signals, hold.lost()).await.ok()
}

/// How a command under a hold ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself, or by a signal that came to quorate; with its exit code.
    Ended(u8),
    /// It was ended at the longest hold that was asked for.
    HeldTooLong,
    /// Its hold was lost, or about to be.
    Lost(Loss),
    NotStarted(NotStarted),
}

impl Ending {
    /// Gives the hold up, tells people what there is to tell, and returns the exit status.
    pub(crate) async fn report(self, hold: Hold) -> ExitCode {
        let name = hold.key().clone();
        let loss = hold.loss();
        let released = hold.release().await;
        let code = match self {
            Self::Ended(code) => match released {
                Ok(()) => code,
                Err(error) if matches!(error.loss(), Some(Loss::Deleted | Loss::Replaced)) => {
                    complain(&format!("{error}, while the command ran"));
                    LOST
                }
                Err(error) => {
                    complain(&format!("{error}; it ends with its lease"));
                    code
                }
            },
            Self::HeldTooLong => {
                complain(&format!(
                    "{name}: the command was ended at the longest hold"
                ));
                HELD_TOO_LONG
            }
            Self::Lost(seen) => {
                let loss = loss.unwrap_or(seen);
                complain(&format!("{name}: the command was ended: {loss}"));
                LOST
            }
            Self::NotStarted(error) => {
                complain(&error.to_string());
                error.code()
            }
        };
        ExitCode::from(code)
    }
}

/// Runs a command under a hold, for `max_hold` at most, until it and all of its group have ended.
///
/// If the session has no news by then, the command is asked to end a little before the deadline; at
/// the deadline the guardian kills its group, whether or not this process runs.
pub(crate) async fn supervise(
    hold: &Hold,
    command: &[OsString],
    max_hold: Option<Duration>,
    guardian: Guardian,
    signals: Signals,
) -> Result<Ending, Failure> {
    let session = hold.session();
    let limit = max_hold.map(|max_hold| Instant::now() + max_hold);
    let left = || {
        let held = limit.map_or(Duration::MAX, |limit| limit - Instant::now());
        session.remaining().min(held)
    };
    let mut known = session.deadline();
    let mut deadline = Deadline::after(left);
    guardian.set_deadline(deadline).map_err(Failure::System)?;
    if let Some(loss) = hold.loss() {
        return Ok(Ending::Lost(loss));
    }
    let (program, args) = command.split_first().expect("there is a command");
    let mut child = match Child::spawn(program, args, hold.environment(), guardian, signals) {
        Ok(child) => child,
        Err(error) => return Ok(Ending::NotStarted(error)),
    };
    let grace = grace(session.ttl());
    loop {
        tokio::select! {
            biased;
            code = child.wait() => {
                let code = code.map_err(Failure::System)?;
                // The guardian may have ended it a moment before the loss is seen here.
                let in_time = Deadline::after(|| Duration::ZERO) < deadline;
                return Ok(match (hold.loss(), limit) {
                    (Some(loss), _) => Ending::Lost(loss),
                    (None, _) if in_time => Ending::Ended(code),
                    (None, Some(limit)) if limit <= Instant::now() => Ending::HeldTooLong,
                    (None, _) => Ending::Lost(Loss::Unreachable),
                });
            }
            loss = hold.lost() => {
                child.stop(sleep(grace.min(PROMPTLY))).await.map_err(Failure::System)?;
                return Ok(Ending::Lost(loss));
            }
            () = before(limit, grace.min(max_hold.unwrap_or_default() / 5)) => {
                child.stop(sleep(left())).await.map_err(Failure::System)?;
                return Ok(Ending::HeldTooLong);
            }
            () = at_risk(session, grace) => {
                child.stop(sleep(left())).await.map_err(Failure::System)?;
                return Ok(Ending::Lost(hold.loss().unwrap_or(Loss::Unreachable)));
            }
            moved = session.deadline_changed(known) => {
                known = moved;
                let next = Deadline::after(left);
                // If the guardian takes no more, its last deadline stands.
                if child.set_deadline(next).is_ok() {
                    deadline = next;
                }
            }
        }
    }
}

/// Waits until `grace` before the limit; for ever without one.
async fn before(limit: Option<Instant>, grace: Duration) {
    match limit {
        Some(limit) => sleep_until(limit - grace).await,
        None => future::pending().await,
    }
}

/// Waits until a beat is overdue and no more than `grace` is left of the session. What comes of a beat
/// meanwhile is for the caller to see: it has to begin this anew.
async fn at_risk(session: &Session, grace: Duration) {
    /// Timers stand still while the machine is suspended; the clock is read again at least this often.
    const LONGEST_SLEEP: Duration = Duration::from_secs(1);

    loop {
        let left = session.remaining().saturating_sub(grace);
        if left.is_zero() {
            break;
        }
        sleep(left.min(LONGEST_SLEEP)).await;
    }
    // After a pause of this process the deadline is near though no beat is overdue yet.
    session.state_changed(SessionState::Live).await;
}

/// How long before its deadline a command is asked to end.
fn grace(ttl: Duration) -> Duration {
    (ttl / 5).min(Duration::from_secs(2))
}

/// How long a command may take to end, at most, when others may hold already.
const PROMPTLY: Duration = Duration::from_millis(500);

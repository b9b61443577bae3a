//! `lock`: hold a lock, with or without a command.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, Loss};

use crate::{
    args,
    failure::{Failure, LOST, NOT_OBTAINED, complain},
    guardian::Guardian,
    hold::{Hold, Obtained, keep, obtain, signalled, supervise},
    output::Output,
    signals::Signals,
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Lock,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::System)?;
    let guardian = if args.command.is_empty() {
        None
    } else {
        Some(Guardian::start().await.map_err(Failure::System)?)
    };
    let name = args.name.display().to_string();
    let mut lock = client.lock(args.name.into_vec());
    if let Some(holder) = args.holder {
        lock = lock.holder(holder);
    }
    if let (None, Some(max_hold)) = (&guardian, args.max_hold) {
        lock = lock.max_hold(max_hold);
    }
    let acquire = async |session: &_| {
        let lock = lock.session(session);
        let guard = match args.try_once {
            true => lock.try_acquire().await?,
            false => Some(lock.acquire().await?),
        };
        Ok(guard.map(Hold::Lock))
    };
    let hold = match obtain(client, args.ttl.ttl, args.timeout, &mut signals, acquire).await? {
        Obtained::Hold(hold) => hold,
        Obtained::Ended(signal) => return Ok(signalled(signal)),
        Obtained::Late => {
            complain(&format!("{name} was not to be had in time"));
            return Ok(ExitCode::from(NOT_OBTAINED));
        }
        Obtained::Taken => {
            complain(&format!("{name} is taken"));
            return Ok(ExitCode::from(NOT_OBTAINED));
        }
    };
    let Some(guardian) = guardian else {
        return hold_on(hold, out, &mut signals).await;
    };
    match supervise(&hold, &args.command, args.max_hold, guardian, signals).await {
        Ok(ending) => Ok(ending.report(hold).await),
        Err(failure) => {
            let _ = hold.release().await;
            Err(failure)
        }
    }
}

/// Holds until interrupted, or lost.
async fn hold_on(hold: Hold, out: &mut Output, signals: &mut Signals) -> Result<ExitCode, Failure> {
    let told = hold.tell(out);
    if told.is_ok() {
        match keep(&hold, signals).await {
            None => {}
            Some(Loss::HoldLimit) => {
                // It is released already; this ends its session.
                let _ = hold.release().await;
                return Ok(ExitCode::SUCCESS);
            }
            Some(loss) => {
                complain(&format!("{}: {loss}", hold.key()));
                let _ = hold.release().await;
                return Ok(ExitCode::from(LOST));
            }
        }
    }
    hold.release().await?;
    told.map(|()| ExitCode::SUCCESS)
}

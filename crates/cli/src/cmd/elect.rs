//! `elect`: lead, with or without a command.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::ExitCode, time::Duration};

use nix::{sys::signal::Signal, unistd::gethostname};
use quorate::{Client, ErrorKind};
use tokio::time::sleep;

use crate::{
    args,
    failure::{Failure, LOST, complain},
    guardian::Guardian,
    hold::{Ending, Hold, Obtained, keep, obtain, signalled, supervise, unless_ended},
    output::Output,
    signals::Signals,
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Elect,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::System)?;
    let value = args.value.unwrap_or_else(host_and_process);
    let election = client
        .election(args.name.into_vec())
        .value(value.into_vec());
    loop {
        let guardian = if args.command.is_empty() {
            None
        } else {
            Some(Guardian::start().await.map_err(Failure::System)?)
        };
        let campaign = async |session: &_| {
            let leadership = election.clone().session(session).campaign().await?;
            Ok(Some(Hold::Leadership(leadership)))
        };
        let hold = match obtain(client, args.ttl.ttl, None, &mut signals, campaign).await {
            Ok(Obtained::Hold(hold)) => hold,
            Ok(Obtained::Ended(signal)) => return Ok(signalled(signal)),
            Ok(Obtained::Late | Obtained::Taken) => unreachable!("a campaign waits for ever"),
            Err(error)
                if args.again && (error.is_retryable() || error.kind() == ErrorKind::Lost) =>
            {
                complain(&error.to_string());
                if let Err(signal) = unless_ended(&mut signals, sleep(PAUSE)).await {
                    return Ok(signalled(signal));
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(guardian) = guardian else {
            let told = hold.tell(out);
            let loss = match &told {
                Ok(()) => keep(&hold, &mut signals).await,
                Err(_) => None,
            };
            let Some(loss) = loss else {
                hold.release().await?;
                return told.map(|()| ExitCode::SUCCESS);
            };
            complain(&format!("{}: {loss}", hold.key()));
            let _ = hold.release().await;
            if args.again {
                continue;
            }
            return Ok(ExitCode::from(LOST));
        };
        // For the next campaign; it also hears what is passed on to the command.
        let mut heard = Signals::new().map_err(Failure::System)?;
        let ending = match supervise(&hold, &args.command, None, guardian, signals).await {
            Ok(ending) => ending,
            Err(failure) => {
                let _ = hold.release().await;
                return Err(failure);
            }
        };
        let is_lost = matches!(ending, Ending::Lost(_));
        let code = ending.report(hold).await;
        if !is_lost || !args.again || was_told_to_end(&mut heard).await {
            return Ok(code);
        }
        signals = heard;
    }
}

/// Whether one of the signals that came asks to end whatever the command makes of it; a hangup may
/// just ask it to read its configuration.
async fn was_told_to_end(signals: &mut Signals) -> bool {
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                if matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) {
                    return true;
                }
            }
            () = std::future::ready(()) => return false,
        }
    }
}

/// What a candidate calls itself if nothing else is said.
fn host_and_process() -> OsString {
    let mut value = gethostname().unwrap_or_default();
    value.push(format!(":{}", std::process::id()));
    value
}

/// How long to wait after a campaign that failed.
const PAUSE: Duration = Duration::from_secs(1);

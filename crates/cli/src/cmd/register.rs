//! `register`: an instance of a service, for as long as the command that serves.

use std::{ffi::OsString, pin::pin, process::ExitCode, time::Duration};

use nix::sys::signal::Signal;
use quorate::{
    Client, EphemeralState, Error, ErrorKind, Instance, Loss, Registration, Result, Service,
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::services::service;
use crate::{
    args,
    child::Child,
    failure::{Failure, LOST, complain},
    guardian::Guardian,
    hold::{signalled, unless_ended},
    output::{Output, bytes},
    signals::Signals,
};

/// How long a command may take to end that serves under no registration any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait after an attempt to register that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long clients have to turn away if nothing else is said.
const DRAIN: Duration = Duration::from_secs(1);

/// What is to be registered.
struct Wish {
    service: Service,
    id: String,
    instance: Instance,
    drain: Option<Duration>,
}

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Register,
) -> Result<ExitCode, Failure> {
    let mut service = service(client, &args.service);
    if let Some(ttl) = args.ttl.ttl {
        service = service.ttl(ttl);
    }
    if args.take_over {
        service = service.take_over();
    }
    let instance = Instance::new(args.address).weight(args.weight);
    let metadata = args.meta.into_iter();
    let wish = Wish {
        service,
        id: args.id,
        instance: metadata.fold(instance, |instance, (name, value)| {
            instance.meta(name, value)
        }),
        drain: args.drain,
    };
    match args.command.split_first() {
        None => alone(&wish, out).await,
        Some((program, args)) => beside(&wish, program, args).await,
    }
}

impl Wish {
    async fn register(&self) -> Result<Registration> {
        let registered = self.service.register(&self.id, self.instance.clone()).await;
        registered.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => error.context(format_args!(
                "the id {} is taken (--take-over takes it all the same)",
                self.id
            )),
            _ => error,
        })
    }

    /// Registers as soon as a server can be reached.
    async fn register_in_the_end(&self) -> Result<Registration> {
        let mut complained = false;
        loop {
            match self.register().await {
                Err(error) if error.is_retryable() => {
                    if !complained {
                        complain(&format!("{error}; it is tried again"));
                        complained = true;
                    }
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

/// Registers until interrupted.
async fn alone(wish: &Wish, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::System)?;
    let mut registration = match unless_ended(&mut signals, wish.register()).await {
        Ok(registered) => registered?,
        Err(signal) => return Ok(signalled(signal)),
    };
    let (key, token) = (registration.key().clone(), registration.token());
    out.result(
        &[&key, token.to_string().as_bytes()],
        || json!({ "key": bytes(&key), "token": token.0 }),
    )?;
    out.flush()?;
    let lost = registration.lost();
    let lost = tokio::select! {
        biased;
        lost = unless_ended(&mut signals, lost) => lost.ok(),
        never = tell(&mut registration) => match never {},
    };
    if let Some(loss) = lost {
        return Ok(over(loss, &registration));
    }
    if let Some(drain) = wish.drain {
        registration.drain().await?;
        let _ = unless_ended(&mut signals, sleep(drain)).await;
    }
    registration.release().await?;
    Ok(ExitCode::SUCCESS)
}

/// Registers while a command runs.
async fn beside(wish: &Wish, program: &OsString, args: &[OsString]) -> Result<ExitCode, Failure> {
    let mut signals = Signals::of(&TO_DRAIN).map_err(Failure::System)?;
    let others = Signals::except(&TO_DRAIN).map_err(Failure::System)?;
    let guardian = Guardian::start().await.map_err(Failure::System)?;
    let environment: [(&str, &str); 0] = [];
    let mut child = match Child::spawn(program, args, environment, guardian, others) {
        Ok(child) => child,
        Err(error) => {
            complain(&error.to_string());
            return Ok(ExitCode::from(error.code()));
        }
    };
    let drain = wish.drain.unwrap_or(DRAIN);
    let mut ending = None;
    let registered = {
        let mut registering = pin!(wish.register_in_the_end());
        loop {
            let patience = ending.map_or_else(Instant::now, |Ending { at, .. }| at);
            tokio::select! {
                biased;
                code = child.wait() => return code.map(ExitCode::from).map_err(Failure::System),
                registered = &mut registering => break Some(registered),
                signal = signals.next() => {
                    let hurried = ending.is_some();
                    ending = Some(Ending { signal, at: Instant::now() + drain });
                    if hurried {
                        break None;
                    }
                }
                () = sleep_until(patience), if ending.is_some() => break None,
            }
        }
    };
    let ended = match (registered, ending) {
        (Some(Ok(registration)), ending) => {
            serve(registration, &mut child, &mut signals, drain, ending).await
        }
        (Some(Err(error)), _) => {
            child.stop(sleep(PATIENCE)).await.map_err(Failure::System)?;
            return Err(error.into());
        }
        // It was told to end before it was registered.
        (None, ending) => {
            if let Some(Ending { signal, .. }) = ending {
                child.signal(signal);
            }
            outlast(&mut child, &mut signals).await
        }
    };
    ended.map_err(Failure::System)
}

/// What the command is to be told, and when at the latest.
#[derive(Clone, Copy)]
struct Ending {
    signal: Signal,
    at: Instant,
}

/// Waits until the command has ended, registered no more.
async fn outlast(child: &mut Child, signals: &mut Signals) -> std::io::Result<ExitCode> {
    loop {
        tokio::select! {
            biased;
            code = child.wait() => return code.map(ExitCode::from),
            signal = signals.next() => child.signal(signal),
        }
    }
}

/// Keeps the registration until the command has ended.
async fn serve(
    mut registration: Registration,
    child: &mut Child,
    signals: &mut Signals,
    drain: Duration,
    mut ending: Option<Ending>,
) -> std::io::Result<ExitCode> {
    let lost = registration.lost();
    let mut told_to_end = false;
    let code = loop {
        if let Some(Ending { signal, at }) = ending.take() {
            if !told_to_end {
                told_to_end = true;
                if let Some(code) = turn_away(&mut registration, child, signals, at).await? {
                    break code;
                }
            }
            child.signal(signal);
        }
        tokio::select! {
            biased;
            code = child.wait() => break code?,
            loss = lost.clone() => {
                let code = over(loss, &registration);
                child.stop(sleep(PATIENCE)).await?;
                return Ok(code);
            }
            signal = signals.next() => ending = Some(Ending { signal, at: Instant::now() + drain }),
            never = tell(&mut registration) => match never {},
        }
    };
    if let Err(error) = registration.release().await {
        complain(&format!("{error}; it ends with its lease"));
    }
    Ok(ExitCode::from(code))
}

/// Lets clients turn to other instances until `end`. Returns the command's exit code if it ends meanwhile.
async fn turn_away(
    registration: &mut Registration,
    child: &mut Child,
    signals: &mut Signals,
    end: Instant,
) -> std::io::Result<Option<u8>> {
    let turn = async {
        if let Ok(Err(error)) = timeout_at(end, registration.drain()).await {
            complain(&format!("clients cannot be asked to turn away: {error}"));
        }
        sleep_until(end).await;
    };
    tokio::select! {
        biased;
        code = child.wait() => code.map(Some),
        _ = signals.next() => Ok(None),
        () = turn => Ok(None),
    }
}

/// Tells people when the registration is gone for a while, and when it is back.
async fn tell(registration: &mut Registration) -> std::convert::Infallible {
    loop {
        let state = registration.changed().await;
        let id = registration.id();
        match state {
            EphemeralState::Present { .. } => complain(&format!("{id} is registered again")),
            EphemeralState::Recreating => {
                complain(&format!(
                    "{id} is not registered for now; it is tried again"
                ));
            }
            _ => std::future::pending().await,
        }
    }
}

/// The registration is over for good.
fn over(loss: Loss, registration: &Registration) -> ExitCode {
    let key = registration.key();
    complain(&Error::new(ErrorKind::Lost, format!("{key}: {loss}")).to_string());
    ExitCode::from(LOST)
}

/// The signals that ask a command to end, and let it do so in its own time.
const TO_DRAIN: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

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
    let registered = {
        let mut registering = pin!(wish.register_in_the_end());
        loop {
            tokio::select! {
                biased;
                code = child.wait() => return code.map(ExitCode::from).map_err(Failure::System),
                signal = signals.next() => child.signal(signal),
                registered = &mut registering => break registered,
            }
        }
    };
    let registration = match registered {
        Ok(registration) => registration,
        Err(error) => {
            child.stop(sleep(PATIENCE)).await.map_err(Failure::System)?;
            return Err(error.into());
        }
    };
    let ended = serve(
        registration,
        &mut child,
        &mut signals,
        wish.drain.unwrap_or(DRAIN),
    )
    .await;
    ended.map_err(Failure::System)
}

/// Keeps the registration until the command has ended.
async fn serve(
    mut registration: Registration,
    child: &mut Child,
    signals: &mut Signals,
    drain: Duration,
) -> std::io::Result<ExitCode> {
    let lost = registration.lost();
    let mut told_to_end = false;
    let code = loop {
        tokio::select! {
            biased;
            code = child.wait() => break code?,
            loss = lost.clone() => {
                let code = over(loss, &registration);
                child.stop(sleep(PATIENCE)).await?;
                return Ok(code);
            }
            signal = signals.next() => {
                if !told_to_end {
                    told_to_end = true;
                    if let Some(code) = turn_away(&mut registration, child, signals, drain).await? {
                        break code;
                    }
                }
                child.signal(signal);
            }
            never = tell(&mut registration) => match never {},
        }
    };
    if let Err(error) = registration.release().await {
        complain(&format!("{error}; it ends with its lease"));
    }
    Ok(ExitCode::from(code))
}

/// Lets clients turn to other instances. Returns the command's exit code if it ends meanwhile.
async fn turn_away(
    registration: &mut Registration,
    child: &mut Child,
    signals: &mut Signals,
    drain: Duration,
) -> std::io::Result<Option<u8>> {
    let end = Instant::now() + drain;
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

//! One process of a run: it uses one recipe, and writes down what it sees.

use std::{
    cell::RefCell,
    future::Future,
    io::{self, Read},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use quorate::{Client, ConnectOptions, Error, ErrorKind};
use tokio::{sync::watch, time::sleep};

use crate::{
    history::{Log, Outcome, What, nanos, note_starvation, now},
    soak::client,
};

mod election;
mod ephemeral;
mod hold;
pub(super) mod observe;
mod register;
mod track;
mod write;

/// What a process does, and where.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    role: Role,
    /// Its name in the history.
    #[arg(long)]
    process: String,
    /// Where the members are, separated by commas.
    #[arg(long)]
    endpoints: String,
    /// The time to live of its sessions, in seconds.
    #[arg(long)]
    ttl: u64,
    /// Where the history is written.
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    seed: u64,
}

/// Which recipe a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Holds a lock for moments.
    Short,
    /// Holds a lock for longer than its session lives without a beat.
    Long,
    /// Campaigns, leads and resigns.
    Candidate,
    /// Leads whenever it can, for a while each time.
    Elector,
    /// Keeps ephemeral keys.
    Ephemeral,
    /// Registers instances of a service.
    Service,
    /// Tracks that service, and follows the leader.
    Tracker,
    /// Writes the keys that are watched.
    Writer,
    /// Watches them, and reads them anew after a compaction.
    Watcher,
    /// Observes them.
    Observer,
    /// Reads and writes registers.
    Register,
    /// Uses every recipe at once, and tells how it fares when asked.
    Soak,
}

/// Runs one process until its input ends.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    // Whoever launched it said so too, but preloading a library may have made the kernel forget.
    set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    fastrand::seed(options.seed);
    let (stop, stopping) = watch::channel(());
    thread::spawn(move || {
        let _ = io::stdin().read(&mut [0]);
        drop(stop);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| error.to_string())?
        .block_on(work(options, stopping))
}

async fn work(options: &Options, stopping: watch::Receiver<()>) -> Result<(), String> {
    let ttl = Duration::from_secs(options.ttl);
    let address = ConnectOptions::parse(&options.endpoints).map_err(|error| error.to_string())?;
    let address = address.session_ttl(ttl).holder(&options.process);
    let client = Client::connect(address.clone())
        .await
        .map_err(|error| error.to_string())?;
    let log = Log::open(&options.directory, &options.process).map_err(|error| error.to_string())?;
    let desk = Desk {
        client,
        address,
        directory: options.directory.clone(),
        process: options.process.clone(),
        ttl,
        log: RefCell::new(log),
        stopping,
    };
    let (own, begun) = (Instant::now(), now());
    tokio::select! {
        () = play(options.role, &desk) => {}
        () = note_starvation(&desk.log) => {}
    }
    if let Err(error) = desk.client.close().await {
        let error = error.to_string();
        desk.note(What::Unclosed { error });
    }
    desk.note(What::Paced {
        own: nanos(own.elapsed()),
        passed: now() - begun,
    });
    desk.note(What::Stopped);
    Ok(())
}

/// Does what a role does until the process shall stop.
async fn play(role: Role, desk: &Desk) {
    match role {
        Role::Short => hold::short(desk).await,
        Role::Long => hold::long(desk).await,
        Role::Candidate => election::candidate(desk).await,
        Role::Elector => election::elector(desk).await,
        Role::Ephemeral => ephemeral::keys(desk).await,
        Role::Service => ephemeral::instances(desk).await,
        Role::Tracker => track::follow(desk).await,
        Role::Writer => write::write(desk).await,
        Role::Watcher => observe::watch(desk).await,
        Role::Observer => observe::observe(desk).await,
        Role::Register => register::registers(desk).await,
        Role::Soak => client::play(desk).await,
    }
}

/// What the work of a process stands on.
pub(crate) struct Desk {
    pub(crate) client: Client,
    /// What the client was made from.
    pub(crate) address: ConnectOptions,
    /// Where the history is written.
    pub(crate) directory: PathBuf,
    process: String,
    pub(crate) ttl: Duration,
    log: RefCell<Log>,
    stopping: watch::Receiver<()>,
}

impl Desk {
    pub(crate) fn note(&self, what: What) {
        self.log.borrow_mut().note(what);
    }

    /// Notes what must not happen.
    fn unexpected(&self, text: impl Into<String>) {
        self.note(What::Unexpected { text: text.into() });
    }

    /// Does a call, and notes how long it took: it may take as long as this many calls.
    async fn timed<T>(
        &self,
        call: &str,
        calls: u32,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let called = now();
        let outcome = work.await;
        self.note(What::Called {
            call: call.to_owned(),
            calls,
            called,
            error: outcome.as_ref().err().map(ToString::to_string),
        });
        outcome
    }

    /// Completes when the process shall stop.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.stopping.clone();
        while stopping.changed().await.is_ok() {}
    }

    fn is_stopping(&self) -> bool {
        self.stopping.has_changed().is_err()
    }

    /// Does something unless the process shall stop before it is done.
    async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopping() => None,
            done = work => Some(done),
        }
    }

    /// Waits for some time between the two, or until the process shall stop.
    pub(crate) async fn rest(&self, least: Duration, most: Duration) {
        self.unless_stopping(sleep(between(least, most))).await;
    }

    /// Waits before something that failed is tried again. What cannot fail by a fault is noted.
    pub(crate) async fn failed(&self, what: &str, error: &Error) {
        let by_fault = error.is_retryable()
            || matches!(
                error.kind(),
                ErrorKind::Lost | ErrorKind::Timeout | ErrorKind::Unavailable
            )
            || error.to_string().contains("space");
        if !by_fault {
            self.unexpected(format!("{what}: {error} ({:?})", error.kind()));
        }
        self.rest(Duration::from_millis(50), Duration::from_millis(250))
            .await;
    }
}

pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    least + (most - least).mul_f64(fastrand::f64())
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What became of a call that failed.
fn failure(error: &Error) -> Outcome {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Lost => Outcome::Lost,
        _ if error.is_indefinite() => Outcome::Unknown { error: text },
        _ => Outcome::Failed { error: text },
    }
}

//! All recipes at once in one process for long, on a real cluster under faults: nothing leaks, and
//! whenever the faults pause everything comes to agree with the store.
//!
//! - `client`: the process that uses the recipes, and compares what it knows with the store
//! - `pace`: its churn, which is brought to rest
//! - `wire`: what it is asked, and what it answers
//! - `gauges`: what the members say of themselves
//! - `report`: what all of that tells

pub(crate) mod client;
mod gauges;
mod pace;
mod report;
mod wire;

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

use self::{
    report::Report,
    wire::{Answer, LIMIT, Line, Request, Sample},
};
use crate::{
    history::{Log, ORCHESTRATOR, What},
    torture::{
        cluster::{Cluster, version},
        faults::{Kind, find_strace},
        kinds,
        nemesis::Nemesis,
        network::Network,
        place, plan,
        worker::Role,
        workers::Workers,
        world::World,
    },
};

/// How a run shall be.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The etcd that members run.
    #[arg(long, env = "ETCD_BIN")]
    etcd: PathBuf,
    /// The program that administers it.
    #[arg(long, env = "ETCDCTL_BIN")]
    etcdctl: PathBuf,
    /// How long it takes, in minutes; each kind of fault is done at least once.
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// Chooses faults, their order and what the process does; printed if it is left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults, separated by commas.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Uses proxies even where namespaces are permitted.
    #[arg(long)]
    proxies: bool,
    /// Where logs are written; otherwise in a temporary directory that is kept if the run fails.
    #[arg(long)]
    directory: Option<PathBuf>,
}

const MEMBERS: usize = 3;

/// The time to live of sessions, in seconds.
const TTL: u64 = 3;

/// How far the clock of the process runs fast or slow, if it does.
const SKEW: f64 = 0.05;

/// How long there is churn before the first rest, and how long there are faults between two.
const WARM_UP: Duration = Duration::from_secs(8);
const FAULTS: Duration = Duration::from_secs(110);

/// How often it rests at least, the first time aside, and how long there are faults between two at least,
/// however short the run is.
const RESTS: u32 = 4;
const FAULTS_LEAST: Duration = Duration::from_secs(10);

/// How long the counts must stay as they are to be taken for a level other than the first: whatever was
/// left to end by itself has ended then.
const SETTLED: Duration = Duration::from_secs(6);

/// Runs, and tells what was found.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let directory = place(options.directory.as_deref(), "soak-")?;
    // Before there is another thread: a namespace is a thread's.
    let network = Network::new(MEMBERS, options.proxies)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let outcome = LocalSet::new().block_on(&runtime, soak(options, network, &directory));
    if outcome.is_err() || options.directory.is_some() {
        eprintln!("proof: the logs are in {}", directory.display());
    } else {
        let _ = fs::remove_dir_all(&directory);
    }
    outcome
}

async fn soak(options: &Options, mut network: Network, directory: &Path) -> Result<(), String> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let version = version(&options.etcd)?;
    eprintln!("proof: seed {seed}, etcd {version}, {}", network.name());
    let log = Log::open(directory, ORCHESTRATOR).map_err(|error| error.to_string())?;
    let log = Rc::new(RefCell::new(log));
    let cluster = Cluster::start(&options.etcd, MEMBERS, &network, directory).await?;
    let (of_members, mut of_clients, skewed) = kinds(&options.faults, &network);
    // The process must live for long.
    of_clients.retain(|kind| *kind != Kind::KillWorker);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workers = Workers::new(plan(directory, TTL, SKEW, skewed), Rc::clone(&log));
    let endpoints = cluster.endpoints();
    workers
        .start(Role::Soak, 0, &mut network, &endpoints, &mut random)
        .await?;
    let mut run = Run {
        world: World {
            cluster: RefCell::new(cluster),
            network: RefCell::new(network),
            workers: RefCell::new(workers),
            reference: None,
            log,
            ctl: options.etcdctl.clone(),
            strace: find_strace(),
            ttl: Duration::from_secs(TTL),
        },
        line: Line::open(directory).await?,
        of_members: Nemesis::new(random.u64(..), of_members, 0),
        of_clients: Nemesis::new(random.u64(..), of_clients, 1),
        begin: Instant::now(),
        report: Report::default(),
    };
    let outcome = run
        .all(Duration::from_secs_f64(options.minutes * 60.0))
        .await;
    run.stop(directory).await;
    run.report.finish();
    if let Err(why) = outcome {
        run.report.wrong.push(why);
    }
    println!("seed {seed}, etcd {version}\n\n{}", run.report.text());
    for why in &run.report.wrong {
        println!("WRONG: {why}");
    }
    match run.report.wrong.len() {
        0 => Ok(()),
        count => Err(format!("{count} things are wrong, seed {seed}")),
    }
}

/// A run in progress.
struct Run {
    world: World,
    line: Line,
    of_members: Nemesis,
    of_clients: Nemesis,
    begin: Instant,
    report: Report,
}

impl Run {
    /// Faults and rests in turn, until the time is over and each kind of fault was done, or something is
    /// wrong.
    async fn all(&mut self, time: Duration) -> Result<(), String> {
        sleep(WARM_UP.min(time)).await;
        self.rest().await?;
        let end = Instant::now() + time;
        let span = FAULTS.min(time / RESTS).max(FAULTS_LEAST);
        while self.report.wrong.is_empty() {
            let is_over = Instant::now() >= end;
            if is_over && self.of_members.has_done_all() && self.of_clients.has_done_all() {
                break;
            }
            let until = Instant::now() + span;
            tokio::try_join!(
                self.of_members.run_until(&self.world, until),
                self.of_clients.run_until(&self.world, until),
            )?;
            self.world.recovery().await;
            self.rest().await?;
        }
        Ok(())
    }

    /// Waits until all agree, and everything is back to its level.
    async fn rest(&mut self) -> Result<(), String> {
        let Answer::Quiet(quiet) = self.line.ask(Request::Rest).await? else {
            return Err("the process does not come to rest".to_owned());
        };
        let slowest = { quiet.times.values() }.max().copied().unwrap_or(0);
        eprintln!("proof: all agree after {} ms", slowest / 1_000_000);
        self.report.agreed(&quiet);
        let sample = self.level().await?;
        self.report.sampled(self.begin.elapsed(), sample);
        match self.line.ask(Request::Go).await? {
            Answer::Going => Ok(()),
            other => Err(format!("the process does not go on: {other:?}")),
        }
    }

    /// Samples until everything is at its level, or had long enough for that.
    async fn level(&mut self) -> Result<Sample, String> {
        let deadline = Instant::now() + LIMIT;
        let mut last = self.sample().await;
        let mut since = Instant::now();
        loop {
            match &last {
                Ok(sample) if self.report.is_level(sample, false) => return last,
                Ok(sample) if since.elapsed() > SETTLED && self.report.is_level(sample, true) => {
                    return last;
                }
                _ if Instant::now() > deadline => return last,
                _ => sleep(Duration::from_millis(500)).await,
            }
            let next = self.sample().await;
            let is_same =
                matches!((&last, &next), (Ok(last), Ok(next)) if last.has_counts_of(next));
            if !is_same {
                since = Instant::now();
            }
            last = next;
        }
    }

    async fn sample(&mut self) -> Result<Sample, String> {
        let endpoints = self.world.cluster.borrow().endpoints();
        let (watches, streams) = gauges::watches(&endpoints).await?;
        match self.line.ask(Request::Sample).await? {
            Answer::Sample(sample) => Ok(Sample {
                watches,
                streams,
                ..sample
            }),
            other => Err(format!("there is no sample: {other:?}")),
        }
    }

    /// Stops the process, and takes note of what it found unexpected.
    async fn stop(&mut self, directory: &Path) {
        let mut workers = self.world.workers.borrow_mut().take();
        workers.stop().await;
        for process in [ORCHESTRATOR, "soak-0.0"] {
            match Log::read(directory, process) {
                Ok(records) => {
                    let texts = records.into_iter().filter_map(|record| match record.what {
                        What::Unexpected { text } => Some(text),
                        What::Unclosed { error } => Some(format!("close: {error}")),
                        _ => None,
                    });
                    self.report.wrong.extend(texts);
                }
                Err(why) => self.report.wrong.push(why),
            }
        }
    }
}

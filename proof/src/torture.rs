//! Recipes on a real cluster under faults: processes that use them, a nemesis, a reference, a history.
//!
//! - `cluster`, `network`, `proxy`: members, and what lies between them and their clients
//! - `launch`, `data`: processes that die with this one, and a directory that goes with it
//! - `workers`, `worker`: the processes that use the recipes
//! - `nemesis`, `faults`, `effect`: which faults are done when, how, and whether they were
//! - `reference`: the store's own history, and its leaders
//! - `world`: all of that together

pub(crate) mod cluster;
pub(crate) mod data;
mod effect;
pub(crate) mod faults;
pub(crate) mod launch;
pub(crate) mod nemesis;
pub(crate) mod network;
mod proxy;
mod reference;
pub(crate) mod worker;
pub(crate) mod workers;
pub(crate) mod world;

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use clap::ValueEnum;
use tokio::{
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, timeout},
};

use self::{
    cluster::{Cluster, ELECTION, revokes_early, version},
    faults::{Kind, find_strace},
    nemesis::{Nemesis, torment},
    network::{GROUPS, Network},
    reference::{Reference, follow_leader},
    workers::{Plan, Workers, build_shim, roles},
    world::World,
};
use crate::{
    check,
    history::{Log, ORCHESTRATOR, Run, nanos, note_starvation},
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
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    members: u8,
    /// How long faults are done, in minutes; each kind is done at least once.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Chooses faults, their order and their victims; printed if it is left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults, separated by commas.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// The time to live of sessions, in seconds.
    #[arg(long, default_value_t = 3)]
    ttl: u64,
    /// How far clocks run fast or slow. Clients allow for 0.05: with 0.2 the check must find overlaps.
    #[arg(long, default_value_t = 0.05)]
    skew: f64,
    /// Uses proxies even where namespaces are permitted.
    #[arg(long)]
    proxies: bool,
    /// Where the history is written; otherwise in a temporary directory that is kept if the check fails.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// How long the processes work before the first fault.
const WARM_UP: Duration = Duration::from_secs(2);

/// Runs, then checks what happened.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let directory = place(options.directory.as_deref(), "torture-")?;
    let members = usize::from(options.members);
    // Before there is another thread: a namespace is a thread's.
    let network = Network::new(members, options.proxies)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let torture = torture(options, network, &directory);
    let outcome = LocalSet::new().block_on(&runtime, torture);
    let outcome = outcome.and_then(|()| check::directory(&directory));
    if outcome.is_err() || options.directory.is_some() {
        eprintln!("proof: the history is in {}", directory.display());
    } else {
        let _ = fs::remove_dir_all(&directory);
    }
    outcome
}

/// The directory of a run: that which is asked for, if there is nothing in it, else a temporary one.
pub(crate) fn place(asked: Option<&Path>, prefix: &str) -> Result<PathBuf, String> {
    let directory = match asked {
        Some(directory) => directory.to_owned(),
        None => {
            let directory = tempfile::Builder::new().prefix(prefix).tempdir();
            directory.map_err(|error| error.to_string())?.keep()
        }
    };
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    if fs::read_dir(&directory).is_ok_and(|mut files| files.next().is_some()) {
        return Err(format!("{} is not empty", directory.display()));
    }
    fs::canonicalize(directory).map_err(|error| error.to_string())
}

async fn torture(options: &Options, mut network: Network, directory: &Path) -> Result<(), String> {
    let members = usize::from(options.members);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let version = version(&options.etcd)?;
    let run = Run {
        seed,
        revokes_early: revokes_early(&version),
        version,
        members,
        network: network.name().to_owned(),
        ttl: nanos(Duration::from_secs(options.ttl)),
        election: nanos(ELECTION),
        timeout: nanos(Duration::from_secs(5)),
    };
    eprintln!("proof: seed {seed}, etcd {}, {}", run.version, run.network);
    write_run(directory, &run)?;
    let log = Log::open(directory, ORCHESTRATOR).map_err(|error| error.to_string())?;
    let log = Rc::new(RefCell::new(log));
    let own = Rc::clone(&log);
    spawn_local(async move { note_starvation(&own).await });
    let cluster = Cluster::start(&options.etcd, members, &network, directory).await?;
    let reference = Reference::new(Rc::clone(&log));
    let newest = Rc::default();
    for (member, endpoint) in cluster.endpoints().into_iter().enumerate() {
        let watch = Rc::clone(&reference);
        let followed = endpoint.clone();
        spawn_local(async move { watch.follow(followed).await });
        spawn_local(follow_leader(
            Rc::clone(&log),
            Rc::clone(&newest),
            member,
            endpoint,
        ));
    }
    let (of_members, of_clients, skewed) = kinds(&options.faults, &network);
    let plan = plan(directory, options.ttl, options.skew, skewed);
    let mut random = fastrand::Rng::with_seed(seed);
    let endpoints = cluster.endpoints();
    let mut workers = Workers::new(plan, Rc::clone(&log));
    for (number, role) in roles().enumerate() {
        workers
            .start(role, number % GROUPS, &mut network, &endpoints, &mut random)
            .await?;
    }
    let world = World {
        cluster: RefCell::new(cluster),
        network: RefCell::new(network),
        workers: RefCell::new(workers),
        reference: Some(reference),
        log,
        ctl: options.etcdctl.clone(),
        strace: find_strace(),
        ttl: Duration::from_secs(options.ttl),
    };
    sleep(WARM_UP).await;
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let mut of_members = Nemesis::new(random.u64(..), of_members, 0);
    let mut of_clients = Nemesis::new(random.u64(..), of_clients, 1);
    torment(&world, &mut of_members, &mut of_clients, end).await?;
    // What the processes did last must be known of before the reference ends.
    let mut workers = world.workers.borrow_mut().take();
    workers.stop().await;
    let reference = world.reference.as_ref().expect("it was given above");
    settle(&world, reference).await
}

/// Waits until the reference knows of everything.
async fn settle(world: &World, reference: &Reference) -> Result<(), String> {
    let client = world.client().await;
    let known = async {
        loop {
            if let Ok(revision) = client.put("last", "1").await {
                while reference.revision() < revision {
                    sleep(Duration::from_millis(10)).await;
                }
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let known = timeout(Duration::from_secs(20), known).await;
    known.map_err(|_| "the store's own history is not complete".to_owned())
}

fn write_run(directory: &Path, run: &Run) -> Result<(), String> {
    let text = serde_json::to_string_pretty(run).map_err(|error| error.to_string())?;
    fs::write(directory.join("run.json"), text).map_err(|error| error.to_string())
}

/// The kinds of faults of members and of clients that are asked for, all if none is, and whether clocks run at rates of their own.
pub(crate) fn kinds(faults: &[Kind], network: &Network) -> (Vec<Kind>, Vec<Kind>, bool) {
    let asked = |kind: &Kind| faults.is_empty() || faults.contains(kind);
    let possible = |kind: &Kind| match kind {
        Kind::Partition | Kind::Peers | Kind::OneWay => network.cuts_members(),
        Kind::SlowDisk | Kind::StalledDisk => find_strace().is_some(),
        _ => true,
    };
    let all = Kind::value_variants().iter().copied().filter(asked);
    let (kinds, left_out): (Vec<_>, Vec<_>) = all.partition(possible);
    for kind in left_out {
        eprintln!("proof: {} is not possible here", kind.name());
    }
    let skewed = kinds.contains(&Kind::Clocks);
    let kinds = kinds.into_iter().filter(|kind| *kind != Kind::Clocks);
    let (of_members, of_clients) = kinds.partition(|kind| kind.is_of_members());
    (of_members, of_clients, skewed)
}

/// How processes shall be, with clocks that run at rates of their own if `skewed`.
pub(crate) fn plan(directory: &Path, ttl: u64, skew: f64, skewed: bool) -> Plan {
    let shim = skewed.then(|| build_shim(directory)).transpose();
    let shim = shim.unwrap_or_else(|why| {
        eprintln!("proof: clocks is not possible here: {why}");
        None
    });
    Plan {
        directory: directory.to_owned(),
        ttl,
        rates: vec![1.0 - skew, 1.0, 1.0 + skew],
        shim,
    }
}

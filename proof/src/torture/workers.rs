//! The processes that use the recipes.

use std::{
    cell::RefCell,
    env,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::sleep;

use super::{
    launch::{Process, launch},
    network::{Network, Node},
    worker::Role,
};
use crate::history::{Log, What};

/// How many processes have which role.
const ROLES: [(Role, usize); 11] = [
    (Role::Short, 3),
    (Role::Long, 3),
    (Role::Candidate, 2),
    (Role::Elector, 2),
    (Role::Ephemeral, 2),
    (Role::Service, 2),
    (Role::Tracker, 2),
    (Role::Writer, 1),
    (Role::Watcher, 1),
    (Role::Observer, 2),
    (Role::Register, 2),
];

/// The role of each process.
pub(crate) fn roles() -> impl Iterator<Item = Role> {
    ROLES
        .iter()
        .flat_map(|(role, count)| (0..*count).map(|_| *role))
}

/// How long a process may take to stop once it is told to: two calls, and some time to spare.
const PATIENCE: Duration = Duration::from_secs(15);

/// How the processes shall be.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Where histories are written.
    pub(crate) directory: PathBuf,
    /// The time to live of sessions, in seconds.
    pub(crate) ttl: u64,
    /// The rates of clocks to choose from.
    pub(crate) rates: Vec<f64>,
    /// The library that bends clocks, if it could be built.
    pub(crate) shim: Option<PathBuf>,
}

/// All processes.
pub(crate) struct Workers {
    plan: Plan,
    log: Rc<RefCell<Log>>,
    all: Vec<Worker>,
}

struct Worker {
    role: Role,
    index: usize,
    /// How often it was started.
    life: usize,
    group: usize,
    endpoints: String,
    process: Option<Process>,
}

impl Worker {
    fn name(&self) -> String {
        let role = self.role.to_possible_value().expect("no role is skipped");
        format!("{}-{}.{}", role.get_name(), self.index, self.life)
    }
}

impl Workers {
    /// None yet.
    pub(crate) fn new(plan: Plan, log: Rc<RefCell<Log>>) -> Self {
        Self {
            plan,
            log,
            all: Vec::new(),
        }
    }

    /// Starts another one, in a group of clients.
    pub(crate) async fn start(
        &mut self,
        role: Role,
        group: usize,
        network: &mut Network,
        members: &[String],
        random: &mut fastrand::Rng,
    ) -> Result<(), String> {
        let endpoints = network.endpoints(group, members).await?.join(",");
        let index = self.all.iter().filter(|other| other.role == role).count();
        self.all.push(Worker {
            role,
            index,
            life: 0,
            group,
            endpoints,
            process: None,
        });
        self.spawn(self.all.len() - 1, network, random)
    }

    /// Takes all out, to stop them.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            plan: self.plan.clone(),
            log: Rc::clone(&self.log),
            all: std::mem::take(&mut self.all),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn name(&self, number: usize) -> String {
        self.all[number].name()
    }

    pub(crate) fn group(&self, number: usize) -> usize {
        self.all[number].group
    }

    /// The processes that keep keys.
    pub(crate) fn owners(&self) -> Vec<usize> {
        let owns =
            |number: &usize| matches!(self.all[*number].role, Role::Ephemeral | Role::Service);
        (0..self.all.len()).filter(owns).collect()
    }

    pub(crate) fn pid(&self, number: usize) -> Option<Pid> {
        self.all[number].process.as_ref().map(Process::pid)
    }

    /// Kills a process. Fails if it had ended by itself, which is noted.
    pub(crate) fn kill(&mut self, number: usize) -> Result<(), String> {
        let name = self.name(number);
        let mut process = self.all[number].process.take();
        let ended = process.as_mut().and_then(Process::status);
        drop(process);
        let mut log = self.log.borrow_mut();
        log.note(What::Killed {
            process: name.clone(),
        });
        let Some(status) = ended else {
            return Ok(());
        };
        let text = format!("{name} ended by itself: {status}: see {name}.err");
        log.note(What::Unexpected { text: text.clone() });
        Err(text)
    }

    /// Starts another process in the place of one that was killed.
    pub(crate) fn restart(
        &mut self,
        number: usize,
        network: &Network,
        random: &mut fastrand::Rng,
    ) -> Result<(), String> {
        self.all[number].life += 1;
        self.spawn(number, network, random)
    }

    pub(crate) fn signal(&self, number: usize, signal: Signal) {
        if let Some(process) = &self.all[number].process {
            process.signal(signal);
        }
    }

    /// Tells all to stop, and waits until they have. Who fails or does not stop is noted.
    pub(crate) async fn stop(&mut self) {
        for worker in &mut self.all {
            if let Some(status) = worker.process.as_mut().and_then(Process::status) {
                let name = worker.name();
                let text = format!("{name} ended before it was told to: {status}");
                self.log.borrow_mut().note(What::Unexpected { text });
            }
        }
        self.log.borrow_mut().note(What::Stopping);
        let processes = || self.all.iter().filter_map(|worker| worker.process.as_ref());
        processes().for_each(|process| process.signal(Signal::SIGCONT));
        for worker in &mut self.all {
            if let Some(process) = &mut worker.process {
                process.close_input();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for worker in &mut self.all {
            let name = worker.name();
            let Some(mut process) = worker.process.take() else {
                continue;
            };
            while !process.has_ended() && Instant::now() < deadline {
                sleep(Duration::from_millis(20)).await;
            }
            let text = match process.status() {
                Some(status) if status.success() => continue,
                Some(status) => format!("{name}: {status}: see {name}.err"),
                None => format!("{name} did not stop in {PATIENCE:?}"),
            };
            self.log.borrow_mut().note(What::Unexpected { text });
        }
    }

    fn spawn(
        &mut self,
        number: usize,
        network: &Network,
        random: &mut fastrand::Rng,
    ) -> Result<(), String> {
        let told = |error: std::io::Error| error.to_string();
        let Plan {
            directory,
            ttl,
            rates,
            shim,
        } = &self.plan;
        let worker = &mut self.all[number];
        let name = worker.name();
        let this = env::current_exe().map_err(told)?;
        let role = worker.role.to_possible_value().expect("no role is skipped");
        let errors = File::create(directory.join(format!("{name}.err"))).map_err(told)?;
        let mut command = launch(&this, network.keeper(Node::Clients(worker.group)));
        command
            .args(["worker", "--role", role.get_name(), "--process", &name])
            .args(["--endpoints", &worker.endpoints])
            .arg(format!("--ttl={ttl}"))
            .arg(format!("--seed={}", random.u64(..)))
            .arg("--directory")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors);
        let rate = match shim {
            Some(shim) => {
                let rate = rates[random.usize(..rates.len())];
                command
                    .env("LD_PRELOAD", shim)
                    .env("QUORATE_CLOCK_RATE", rate.to_string());
                rate
            }
            None => 1.0,
        };
        let process = Process::spawn(&mut command)?;
        self.log.borrow_mut().note(What::Started {
            process: name,
            group: worker.group,
            rate,
        });
        worker.process = Some(process);
        Ok(())
    }
}

/// Builds the library that bends the clocks of a process, or says why that is not possible.
pub(crate) fn build_shim(directory: &Path) -> Result<PathBuf, String> {
    let source = directory.join("clock.c");
    let shim = directory.join("clock.so");
    std::fs::write(&source, include_str!("../../shim/clock.c")).map_err(|e| e.to_string())?;
    let status = launch(Path::new("cc"), None)
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&shim)
        .arg(&source)
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(shim),
        Ok(status) => Err(format!("cc: {status}")),
        Err(error) => Err(format!("cc: {error}")),
    }
}

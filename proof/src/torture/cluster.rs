//! The members of the cluster, as processes.

use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use quorate::{Client, ConnectOptions};
use tokio::time::sleep;

use super::{
    data::Data,
    launch::{Process, launch},
    network::{Network, Node},
};

/// The election timeout of members. A short one makes the most of the time.
pub(crate) const ELECTION: Duration = Duration::from_millis(500);

/// How large a database may grow, in bytes: so little that it is filled at once, and more than a short run writes that
/// has no compaction after that.
const QUOTA: u64 = 64 << 20;

/// How long a cluster may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that runs. Its members end when this is dropped, and when this process does.
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// Where the members keep their data. After the members, which end first.
    data: Data,
}

struct Member {
    endpoint: String,
    program: PathBuf,
    flags: Vec<String>,
    /// A process in whose network the member runs.
    beside: Option<Pid>,
    log: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Starts members and waits until each of them sees a leader. Their logs go to `directory`.
    pub(crate) async fn start(
        etcd: &Path,
        members: usize,
        network: &Network,
        directory: &Path,
    ) -> Result<Self, String> {
        let places = places(members, network)?;
        let mut cluster = Self {
            members: Vec::new(),
            data: Data::new()?,
        };
        for index in 0..members {
            let data = cluster.data.path().join(format!("m{index}"));
            cluster.members.push(Member {
                endpoint: places[index].clients.clone(),
                program: etcd.to_owned(),
                flags: flags(index, &places, &data),
                beside: network.keeper(Node::Member(index)),
                log: directory.join(format!("etcd-m{index}.log")),
                process: None,
            });
            cluster.restart(index)?;
        }
        let deadline = Instant::now() + PATIENCE;
        for index in 0..members {
            while !sees_leader(cluster.endpoint(index)).await {
                let has_ended = cluster.members[index]
                    .process
                    .as_mut()
                    .is_some_and(Process::has_ended);
                if has_ended || Instant::now() > deadline {
                    return Err(format!("etcd does not start: see {}", directory.display()));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(cluster)
    }

    /// Where each member is reached.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.endpoint.clone())
            .collect()
    }

    pub(crate) fn endpoint(&self, index: usize) -> &str {
        &self.members[index].endpoint
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Kills a member; it keeps its data. Returns whether it ran.
    pub(crate) fn kill(&mut self, index: usize) -> bool {
        let process = self.members[index].process.take();
        process.is_some_and(|mut process| !process.has_ended())
    }

    /// Starts a member that was killed on its data.
    pub(crate) fn restart(&mut self, index: usize) -> Result<(), String> {
        let member = &mut self.members[index];
        member.process = None;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&member.log);
        let log = log.map_err(|error| format!("{}: {error}", member.log.display()))?;
        let copy = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = launch(&member.program, member.beside);
        command
            .args(&member.flags)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy);
        member.process = Some(Process::spawn(&mut command)?);
        Ok(())
    }

    /// Sends a signal to a member.
    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        if let Some(process) = &self.members[index].process {
            process.signal(signal);
        }
    }

    /// The process of a member.
    pub(crate) fn pid(&self, index: usize) -> Option<Pid> {
        self.members[index].process.as_ref().map(Process::pid)
    }
}

/// A client of one member that gives up soon.
pub(crate) async fn connect(endpoint: &str, timeout: Duration) -> Client {
    let options = ConnectOptions::parse(endpoint)
        .expect("an endpoint is an address")
        .timeout(timeout)
        .attempt_timeout(timeout);
    Client::connect(options)
        .await
        .expect("no connection is made yet")
}

/// Whether a member sees a leader.
pub(crate) async fn sees_leader(endpoint: &str) -> bool {
    let client = connect(endpoint, Duration::from_millis(700)).await;
    matches!(client.status().await, Ok(status) if status.leader != 0)
}

/// The version of an etcd, such as `3.4.23`.
pub(crate) fn version(etcd: &Path) -> Result<String, String> {
    let output = launch(etcd, None)
        .arg("--version")
        .output()
        .map_err(|error| format!("{}: {error}", etcd.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    let version = version.ok_or_else(|| format!("{} tells no version", etcd.display()))?;
    Ok(version.trim().to_owned())
}

/// Whether this version lets a leader that was deposed unawares end leases which live. Fixed in 3.4.31
/// and 3.5.13 (etcd issue 15247).
pub(crate) fn revokes_early(version: &str) -> bool {
    let mut numbers = version
        .split(['.', '-'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch < 31,
        (3, 5, patch) => patch < 13,
        (major, minor, _) => (major, minor) < (3, 4),
    }
}

/// Where a member listens.
struct Place {
    clients: String,
    peers: String,
}

fn places(members: usize, network: &Network) -> Result<Vec<Place>, String> {
    // Ports that are free are bound all at once, so that no two are the same.
    let free: Vec<_> = (0..2 * members)
        .map(|_| {
            TcpListener::bind("127.0.0.1:0").and_then(|bound| Ok((bound.local_addr()?, bound)))
        })
        .collect::<Result<_, _>>()
        .map_err(|error| format!("free ports: {error}"))?;
    let place = |index: usize| match network.address(index) {
        Some(address) => Place {
            clients: format!("http://{address}:2379"),
            peers: format!("http://{address}:2380"),
        },
        None => Place {
            clients: format!("http://{}", free[2 * index].0),
            peers: format!("http://{}", free[2 * index + 1].0),
        },
    };
    Ok((0..members).map(place).collect())
}

fn flags(index: usize, places: &[Place], data: &Path) -> Vec<String> {
    let Place { clients, peers } = &places[index];
    let initial: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(index, place)| format!("m{index}={}", place.peers))
        .collect();
    vec![
        format!("--name=m{index}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster={}", initial.join(",")),
        format!("--initial-cluster-token={}", std::process::id()),
        format!("--heartbeat-interval={}", ELECTION.as_millis() / 10),
        format!("--election-timeout={}", ELECTION.as_millis()),
        format!("--quota-backend-bytes={QUOTA}"),
        // So often that members which were away are sent snapshots.
        "--snapshot-count=2000".to_owned(),
        "--max-snapshots=2".to_owned(),
        "--max-wals=2".to_owned(),
        "--logger=zap".to_owned(),
        "--log-outputs=stderr".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_end_leases_early_are_known() {
        for early in ["3.4.23", "3.4.30", "3.5.12", "3.3.27"] {
            assert!(revokes_early(early), "{early}");
        }
        for right in ["3.4.31", "3.5.13", "3.5.30", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
            assert!(!revokes_early(right), "{right}");
        }
    }
}

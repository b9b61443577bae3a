//! What faults are done to, and how it is looked at.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use quorate::{Client, Revision};
use tokio::time::{Instant, sleep};

use super::{
    cluster::{Cluster, connect, sees_leader},
    launch::{Process, launch},
    network::Network,
    reference::Reference,
    workers::Workers,
};
use crate::history::Log;

/// How long members may take to see a leader again after a fault.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cluster, its clients and what lies between.
pub(crate) struct World {
    pub(crate) cluster: RefCell<Cluster>,
    pub(crate) network: RefCell<Network>,
    pub(crate) workers: RefCell<Workers>,
    /// What follows the store's own history, where that is checked.
    pub(crate) reference: Option<Rc<Reference>>,
    pub(crate) log: Rc<RefCell<Log>>,
    /// The program that administers etcd, for what the library does not offer.
    pub(crate) ctl: PathBuf,
    /// The program that slows system calls down, if it works here.
    pub(crate) strace: Option<PathBuf>,
    pub(crate) ttl: Duration,
}

impl World {
    /// Where a member is reached from here, whatever is cut.
    pub(crate) fn endpoint(&self, member: usize) -> String {
        self.cluster.borrow().endpoint(member).to_owned()
    }

    /// A client of all members.
    pub(crate) async fn client(&self) -> Client {
        let endpoints = self.cluster.borrow().endpoints().join(",");
        connect(&endpoints, Duration::from_secs(3)).await
    }

    /// The revision up to which history is not needed any more.
    pub(crate) async fn known(&self) -> Revision {
        if let Some(reference) = &self.reference {
            return reference.revision();
        }
        let status = self.client().await.status().await;
        status.map_or(Revision(1), |status| status.header.revision)
    }

    /// The member that leads, if one says so.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let endpoints = self.cluster.borrow().endpoints();
        for (member, endpoint) in endpoints.iter().enumerate() {
            let client = connect(endpoint, Duration::from_millis(700)).await;
            if let Ok(status) = client.status().await
                && status.leader == status.header.member_id
            {
                return Some(member);
            }
        }
        None
    }

    /// Waits until each member sees a leader, or for so long that this is not the fault's doing.
    pub(crate) async fn recovery(&self) {
        let endpoints = self.cluster.borrow().endpoints();
        let deadline = Instant::now() + PATIENCE;
        for endpoint in &endpoints {
            while !sees_leader(endpoint).await && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Runs etcdctl against one member. It may fail, as under a fault everything may: that is told by
    /// the inner result.
    pub(crate) async fn etcdctl(
        &self,
        member: usize,
        arguments: &[&str],
    ) -> Result<Result<(), String>, String> {
        let mut command = launch(Path::new(&self.ctl), None);
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint(member)))
            .args(["--dial-timeout=2s", "--command-timeout=10s"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        while !process.has_ended() {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(match process.status() {
            Some(status) if status.success() => Ok(()),
            status => Err(format!("etcdctl {arguments:?}: {status:?}")),
        })
    }
}

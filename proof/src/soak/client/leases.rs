//! Leases, sessions, whole clients, and health.

use std::{cell::RefCell, time::Duration};

use futures_util::{FutureExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{Client, ErrorKind, Health, HealthMonitor, Put, Result, SessionState};
use tokio::time::sleep;

use super::{Agreed, Floor, NAMESPACE, probed};
use crate::torture::worker::{between, millis};

/// How long what ends by itself lives.
const TTL: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Leases {
    monitor: RefCell<Option<HealthMonitor>>,
}

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    let step = async || match lease(floor).await {
        // A process that is not run may find its time over at each step.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    };
    all.push(floor.churn("leases", millis(200), step).boxed_local());
    let step = async || session(floor).await;
    all.push(floor.churn("sessions", millis(300), step).boxed_local());
    let step = async || client(floor).await;
    all.push(floor.churn("clients", millis(500), step).boxed_local());
    let step = async || {
        floor.client.health().check().await;
        Ok(())
    };
    all.push(
        floor
            .churn("health checks", millis(700), step)
            .boxed_local(),
    );
    let once = async || monitor(floor).await;
    all.push(floor.follow("health", millis(4000), once).boxed_local());
}

/// The shared session lives, nothing is left of those that ended, and the cluster is known to be well.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 3] {
    let session = probed(floor.client.session()).await;
    let session = session.and_then(|session| match session.state() {
        SessionState::Live => Ok(()),
        state => Err(format!("the session is {state:?}")),
    });
    let left = probed(floor.probe.list("leased/")).await;
    let left = left.and_then(|left| {
        let left: Vec<_> = left.into_iter().map(|kv| kv.key).collect();
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?} are left"))
    });
    let report = floor
        .leases
        .monitor
        .borrow()
        .as_ref()
        .and_then(HealthMonitor::current);
    let health = match report {
        Some(report) if report.health == Health::Up => Ok(()),
        report => Err(format!("the cluster is said to be {report:?}")),
    };
    [("sessions", session), ("leases", left), ("health", health)]
}

async fn lease(floor: &Floor<'_>) -> Result<()> {
    let name = format!("leased/{:x}", fastrand::u64(..));
    match fastrand::u8(..4) {
        0 => {
            let key = floor.client.put_with_ttl(name, "1", TTL).await?;
            key.refresh().await?;
            key.delete().await
        }
        // It ends by itself.
        1 => floor.client.put_with_ttl(name, "1", TTL).await.map(drop),
        _ => {
            let lease = floor.client.grant_lease(TTL).await?.id;
            floor
                .client
                .put_with(Put::new(name, "1").lease(lease))
                .await?;
            floor.client.revoke_lease(lease).await.map(drop)
        }
    }
}

async fn session(floor: &Floor<'_>) -> Result<()> {
    let session = floor.client.session_with_ttl(floor.desk.ttl).await?;
    let name = format!("leased/{:x}", fastrand::u64(..));
    let put = Put::new(name, "1").lease(session.lease());
    let written = floor.client.put_with(put).await;
    sleep(between(millis(1), floor.desk.ttl / 2)).await;
    if fastrand::bool() {
        session.close().await?;
    }
    drop(session);
    // Under a fault its lease may have ended before.
    let _ = written;
    Ok(())
}

/// A client of its own, which is closed or just dropped, and a hold of it with it.
async fn client(floor: &Floor<'_>) -> Result<()> {
    let client = Client::connect(floor.desk.address.clone()).await?;
    let client = client.namespace(NAMESPACE);
    let name = format!("leased/{:x}", fastrand::u64(..));
    let key = client.ephemeral(name).create("1").await?;
    if fastrand::bool() {
        client.close().await?;
    }
    drop(key);
    Ok(())
}

async fn monitor(floor: &Floor<'_>) -> Result<()> {
    let monitor = floor.client.health().every(millis(500)).monitor();
    floor.leases.monitor.replace(Some(monitor));
    std::future::pending().await
}

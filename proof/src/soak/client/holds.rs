//! Locks, campaigns and detached holds: taken, given back, let go, given up in the midst of it.

use std::time::Duration;

use futures_util::{FutureExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{Contender, ErrorKind, LockGuard, Result};
use tokio::time::{sleep, timeout};

use super::{Agreed, Floor, probed};
use crate::torture::worker::{between, millis};

const LOCK: &str = "lock";
const CAMPAIGN: &str = "campaign";
const DETACHED: &str = "detached";

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    for _ in 0..3 {
        let step = async || lock(floor).await;
        all.push(floor.churn("locks", millis(150), step).boxed_local());
    }
    for _ in 0..2 {
        let step = async || campaign(floor).await;
        all.push(floor.churn("campaigns", millis(200), step).boxed_local());
        let step = async || detached(floor).await;
        all.push(floor.churn("detached", millis(400), step).boxed_local());
    }
}

/// At rest nobody holds or waits.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 3] {
    let locks = floor.probe.lock(LOCK);
    let election = floor.probe.election(CAMPAIGN);
    let detached = floor.probe.lock(DETACHED);
    [
        ("locks", nobody(probed(locks.contenders()).await)),
        ("campaigns", nobody(probed(election.candidates()).await)),
        ("detached", nobody(probed(detached.contenders()).await)),
    ]
}

fn nobody(contenders: Result<Vec<Contender>, String>) -> Agreed {
    let left = contenders?;
    if left.is_empty() {
        return Ok(());
    }
    Err(format!("{left:?} are left"))
}

async fn lock(floor: &Floor<'_>) -> Result<()> {
    let lock = floor.client.lock(LOCK);
    match fastrand::u8(..8) {
        0 => drop(lock.acquire().await?),
        1 => {
            if let Ok(guard) = timeout(between(millis(1), millis(60)), lock.acquire()).await {
                guard?.release().await?;
            }
        }
        2 => {
            if let Some(guard) = lock.try_acquire().await? {
                guard.release().await?;
            }
        }
        3 => lock.run(async |_guard| hold().await).await?,
        4 => write(&lock.ttl(floor.desk.ttl).acquire().await?).await?,
        _ => {
            let guard = lock.acquire().await?;
            write(&guard).await?;
            hold().await;
            guard.release().await?;
        }
    }
    Ok(())
}

/// Writes under the fence. That the hold is lost is no failure.
async fn write(guard: &LockGuard) -> Result<()> {
    match guard.fenced("fenced").set(guard.token().to_string()).await {
        Err(error) if error.kind() == ErrorKind::Lost => Ok(()),
        done => done.map(|_| ()),
    }
}

async fn hold() {
    sleep(between(millis(2), millis(40))).await;
}

async fn campaign(floor: &Floor<'_>) -> Result<()> {
    let election = floor.client.election(CAMPAIGN).value("soak");
    match fastrand::u8(..4) {
        0 => drop(election.campaign().await?),
        1 => {
            let leading = timeout(between(millis(1), millis(60)), election.campaign()).await;
            if let Ok(leading) = leading {
                leading?.resign().await?;
            }
        }
        _ => {
            let mut leadership = election.campaign().await?;
            // Under a fault it may fail.
            let _ = leadership.proclaim("it leads").await;
            hold().await;
            leadership.resign().await?;
        }
    }
    Ok(())
}

async fn detached(floor: &Floor<'_>) -> Result<()> {
    const TTL: Duration = Duration::from_secs(2);
    let lock = floor.client.lock(DETACHED);
    let mut hold = match timeout(TTL * 2, lock.acquire_detached(TTL)).await {
        Ok(hold) => hold?,
        Err(_) => return Ok(()),
    };
    let used = async {
        match fastrand::u8(..4) {
            // It ends by itself.
            0 => Ok(()),
            1 => lock.find_detached(hold.token()).await?.release().await,
            _ => {
                hold.renew(TTL).await?;
                hold.release().await
            }
        }
    };
    match used.await {
        Err(error) if error.kind() == ErrorKind::Lost => Ok(()),
        done => done,
    }
}

//! What many cost: each must cost what one costs, and no more.

use std::{sync::Arc, time::Duration};

use quorate::{
    Client,
    backend::fault::{CallKind, Fault, Faults},
};
use tokio::{sync::mpsc, time::sleep};

use super::{ephemeral as ephemeral_keys, services, watches};
use crate::{
    Result,
    bench::{Bench, TTL},
    exclusion::Exclusion,
    figures::{Figures, Span, memory, rounded},
};

/// Hand-overs among 10, 100 and 1,000 contenders: how many requests each takes.
pub(crate) async fn lock(bench: Bench) -> Result<Figures> {
    let few = queue(&bench, 10).await?;
    let more = queue(&bench, 100).await?;
    let many = queue(&bench, 1000).await?;
    let figures = [
        "n",
        "secs",
        "per_s",
        "cpu_s",
        "p50_us",
        "p99_us",
        "rss_mb",
        "violations",
    ];
    let of_many = figures.into_iter().fold(Figures::default(), |sum, name| {
        sum.with(name, many.get(name))
    });
    Ok(of_many
        .with_all("of_10_", few)
        .with_all("of_100_", more)
        .with_all("of_1000_", many))
}

/// Lets 100 of many waiters hold one after the other, while the others wait on.
async fn queue(bench: &Bench, contenders: usize) -> Result<Figures> {
    const HANDOFFS: usize = 100;

    let (client, faults) = counted(&bench.client);
    let name = bench.key(format!("lock-{contenders}"));
    let session = client.session_with_ttl(TTL).await?;
    let exclusion = Arc::new(Exclusion::default());
    let guard = client
        .lock(name.as_str())
        .session(&session)
        .acquire()
        .await?;
    let before = resident();
    let (holds, mut held) = mpsc::channel(1);
    let mut waiters = Vec::new();
    for _ in 0..contenders {
        let lock = client.lock(name.as_str()).session(&session);
        let (exclusion, holds) = (Arc::clone(&exclusion), holds.clone());
        waiters.push(tokio::spawn(async move {
            loop {
                let guard = lock.acquire().await?;
                let handoff = exclusion.enter();
                if holds.send(handoff).await.is_err() {
                    return Result::Ok(());
                }
                exclusion.leave();
                guard.release().await?;
            }
        }));
    }
    drop(holds);
    let queued = client.lock(name.as_str());
    while queued.contenders().await?.len() <= contenders {
        sleep(Duration::from_millis(50)).await;
    }
    // All of them watch by now, or soon.
    let mut watching = 0;
    while watching < contenders.min(faults.open_streams(CallKind::Watch)) {
        watching = faults.open_streams(CallKind::Watch);
        sleep(Duration::from_millis(200)).await;
    }
    let each = (resident() - before) * 1024.0 / contenders as f64;
    faults.reset_counts();
    let span = Span::begin()?;
    exclusion.enter();
    exclusion.leave();
    guard.release().await?;
    let mut handoffs = Vec::new();
    while handoffs.len() < HANDOFFS {
        handoffs.extend(held.recv().await.ok_or("nobody is left")?);
    }
    let requests = faults.total();
    let figures = span
        .end(HANDOFFS, handoffs)?
        .with("violations", exclusion.violations())
        .with("requests_each", rounded(requests as f64 / HANDOFFS as f64))
        .with("kib_each", rounded(each));
    drop(held);
    for waiter in &waiters {
        waiter.abort();
    }
    for waiter in waiters {
        // They were ended while they waited.
        drop(waiter.await);
    }
    session.close().await?;
    Ok(figures)
}

/// 10,000 keys of one session.
pub(crate) async fn ephemeral(bench: Bench) -> Result<Figures> {
    const KEYS: usize = 10_000;

    bench.warm().await?;
    let before = resident();
    let (registration, figures) = ephemeral_keys::stand(&bench, KEYS, false).await?;
    let each = figures
        .get("rss_mb")
        .as_f64()
        .map(|after| (after - before) * 1024.0 / KEYS as f64);
    Ok(registration
        .with("kib_each", each.map(rounded))
        .with_all("", figures))
}

/// 100,000 instances.
pub(crate) async fn tracker(bench: Bench) -> Result<Figures> {
    services::track(bench, 100_000, "register_100k").await
}

/// 1,000 observers of one key.
pub(crate) async fn observers(bench: Bench) -> Result<Figures> {
    watches::fan_out(bench, 1000, 100).await
}

/// A client whose calls are counted.
fn counted(client: &Client) -> (Client, Faults) {
    let fault = Fault::new(Arc::clone(client.backend()));
    let faults = fault.faults();
    (Client::with_backend(Arc::new(fault)), faults)
}

fn resident() -> f64 {
    memory("VmRSS:").as_f64().unwrap_or_default()
}

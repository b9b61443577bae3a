//! Ephemeral keys.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quorate::EphemeralKey;
use tokio::time::sleep;

use crate::{
    Result,
    bench::{Bench, TASKS, TTL},
    figures::{Figures, Span, memory},
};

const KEYS: usize = 5000;

/// How long the keys stand while nothing is done but keep them.
const STEADY: Duration = Duration::from_secs(15);

/// 5,000 keys of one session, then 5,000 with a lease each.
pub(crate) async fn five_thousand(bench: Bench) -> Result<Figures> {
    bench.warm().await?;
    let (_, shared) = stand(&bench, KEYS, false).await?;
    let (registration, own) = stand(&bench, KEYS, true).await?;
    Ok(registration
        .with("rss_mb", own.get("rss_mb"))
        .with_all("shared_", shared)
        .with_all("own_", own))
}

/// How keys are registered, and what became of them.
pub(crate) async fn stand(
    bench: &Bench,
    count: usize,
    has_lease_each: bool,
) -> Result<(Figures, Figures)> {
    let directory = if has_lease_each { "own/" } else { "shared/" };
    let client = bench.another_client().await?;
    client.count(bench.key("warm")).await?;
    let keys = Arc::new(Mutex::new(Vec::<EphemeralKey>::with_capacity(count)));
    let span = Span::begin()?;
    let (creator, created) = (client.clone(), Arc::clone(&keys));
    let create = move |bench: Bench, number: usize| {
        let (client, keys) = (creator.clone(), Arc::clone(&created));
        async move {
            let mut key = client.ephemeral(bench.key(format!("{directory}{number}")));
            if has_lease_each {
                key = key.ttl(TTL);
            }
            let key = key.create("x").await?;
            keys.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(key);
            Ok(())
        }
    };
    let took = bench.each(count, TASKS, create).await?;
    let registration = span.end(took.len(), took)?;
    if registration.get("n") != count {
        return Err("there was not time enough to register".into());
    }
    let steady = Span::begin()?;
    sleep(STEADY).await;
    let figures = Figures::of("reg_secs", registration.get("secs"))
        .with("cpu_15s", steady.processor()?)
        .with("rss_mb", memory("VmRSS:"))
        .with("alive", bench.count(directory).await?);

    let keys = std::mem::take(&mut *keys.lock().unwrap_or_else(PoisonError::into_inner));
    let lost = keys.iter().filter(|key| !key.is_held()).count();
    let closing = Span::begin()?;
    if has_lease_each {
        let keys = Arc::new(Mutex::new(keys));
        let release = move |_, _| {
            let key = keys.lock().unwrap_or_else(PoisonError::into_inner).pop();
            async move { Ok(key.ok_or("there is no key left")?.release().await?) }
        };
        bench.each(count, TASKS, release).await?;
    } else {
        client.close().await?;
    }
    let closed = closing.secs();
    let begun = Instant::now();
    let mut left = bench.count(directory).await?;
    while left > 0 && begun.elapsed() < TTL + Duration::from_secs(2) {
        sleep(Duration::from_millis(20)).await;
        left = bench.count(directory).await?;
    }
    let figures = figures
        .with("lost", lost)
        .with("close_secs", closed)
        .with("gone_secs", closing.secs())
        .with("left", left);
    Ok((registration, figures))
}

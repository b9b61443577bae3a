//! Ephemeral keys.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quorate::{Client, EphemeralKey, Put, Session};
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

/// 5,000 or more keys that somebody keeps.
pub(crate) enum Kept {
    /// In one session, and they come back by themselves.
    Shared(Client, Vec<EphemeralKey>),
    /// By a session for each, as other clients have it.
    Own(Vec<Session>),
}

impl Kept {
    async fn close(self, bench: &Bench) -> Result<()> {
        match self {
            Self::Shared(client, _) => Ok(client.close().await?),
            Self::Own(sessions) => {
                let count = sessions.len();
                let sessions = Arc::new(Mutex::new(sessions));
                let close = move |_, _| {
                    let session = lock(&sessions).pop();
                    async move { Ok(session.ok_or("there is none left")?.close().await?) }
                };
                bench.each(count, TASKS, close).await.map(drop)
            }
        }
    }

    fn lost(&self) -> usize {
        match self {
            Self::Shared(_, keys) => keys.iter().filter(|key| !key.is_held()).count(),
            Self::Own(sessions) => sessions.iter().filter(|one| one.is_lost()).count(),
        }
    }
}

/// Registers keys, lets them stand for a while and ends them: what the registration took, and the rest.
pub(crate) async fn stand(
    bench: &Bench,
    count: usize,
    has_lease_each: bool,
) -> Result<(Figures, Figures)> {
    let directory = if has_lease_each { "own/" } else { "shared/" };
    let client = bench.another_client().await?;
    client.count(bench.key("warm")).await?;
    let span = Span::begin()?;
    let (kept, took) = match has_lease_each {
        true => own(bench, &client, count, directory).await?,
        false => shared(bench, &client, count, directory).await?,
    };
    let registration = span.end(took.len(), took)?;
    if registration.get("n") != count {
        return Err("there was not time enough to register".into());
    }
    let steady = Span::begin()?;
    sleep(STEADY).await;
    let figures = Figures::of("reg_secs", registration.get("secs"))
        .with("cpu_15s", steady.processor()?)
        .with("rss_mb", memory("VmRSS:"))
        .with("alive", bench.count(directory).await?)
        .with("lost", kept.lost());

    let closing = Span::begin()?;
    kept.close(bench).await?;
    let closed = closing.secs();
    let begun = Instant::now();
    let mut left = bench.count(directory).await?;
    while left > 0 && begun.elapsed() < TTL + Duration::from_secs(2) {
        sleep(Duration::from_millis(20)).await;
        left = bench.count(directory).await?;
    }
    let figures = figures
        .with("close_secs", closed)
        .with("gone_secs", closing.secs())
        .with("left", left);
    Ok((registration, figures))
}

async fn shared(
    bench: &Bench,
    client: &Client,
    count: usize,
    directory: &'static str,
) -> Result<(Kept, Vec<Duration>)> {
    let keys = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let (creator, created) = (client.clone(), Arc::clone(&keys));
    let create = move |bench: Bench, number: usize| {
        let (client, keys) = (creator.clone(), Arc::clone(&created));
        async move {
            let key = client.ephemeral(bench.key(format!("{directory}{number}")));
            let key = key.create("x").await?;
            lock(&keys).push(key);
            Ok(())
        }
    };
    let took = bench.each(count, TASKS, create).await?;
    let keys = std::mem::take(&mut *lock(&keys));
    Ok((Kept::Shared(client.clone(), keys), took))
}

async fn own(
    bench: &Bench,
    client: &Client,
    count: usize,
    directory: &'static str,
) -> Result<(Kept, Vec<Duration>)> {
    let sessions = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let (creator, created) = (client.clone(), Arc::clone(&sessions));
    let create = move |bench: Bench, number: usize| {
        let (client, sessions) = (creator.clone(), Arc::clone(&created));
        async move {
            let session = client.session_with_ttl(TTL).await?;
            let put = Put::new(bench.key(format!("{directory}{number}")), "x");
            client.put_with(put.lease(session.lease())).await?;
            lock(&sessions).push(session);
            Ok(())
        }
    };
    let took = bench.each(count, TASKS, create).await?;
    let sessions = std::mem::take(&mut *lock(&sessions));
    Ok((Kept::Own(sessions), took))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Locks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quorate::{Client, Session};

use crate::{
    Result,
    bench::{Bench, TTL, all},
    exclusion::Exclusion,
    figures::{Figures, Span, rounded},
};

const CONTENDERS: usize = 32;
const ACQUISITIONS: usize = 15;

pub(crate) async fn uncontended(bench: Bench) -> Result<Figures> {
    let session = bench.client.session_with_ttl(TTL).await?;
    let same = session.clone();
    let cycle = move |bench: Bench, _| {
        let session = same.clone();
        async move {
            let lock = bench.client.lock(bench.key("lock")).session(&session);
            Ok(lock.acquire().await?.release().await?)
        }
    };
    bench.each(10, 1, cycle.clone()).await?;
    let span = Span::begin()?;
    let took = bench.each(1000, 1, cycle).await?;
    let figures = span.end(took.len(), took)?;
    session.close().await?;
    Ok(figures)
}

/// One client, a session for each contender.
pub(crate) async fn contended(bench: Bench) -> Result<Figures> {
    let client = bench.client.clone();
    compete(bench, vec![client; CONTENDERS])
        .await
        .map(|figures| figures.with("clients", 1))
}

/// A connection for each contender, as processes have it.
pub(crate) async fn contended_by_processes(bench: Bench) -> Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..CONTENDERS {
        clients.push(bench.another_client().await?);
    }
    compete(bench, clients)
        .await
        .map(|figures| figures.with("clients", CONTENDERS))
}

async fn compete(bench: Bench, clients: Vec<Client>) -> Result<Figures> {
    let exclusion = Arc::new(Exclusion::default());
    let contenders = all(CONTENDERS, |one| {
        let contender = Contender {
            bench: bench.clone(),
            client: clients[one].clone(),
            exclusion: Arc::clone(&exclusion),
        };
        async move {
            let session = contender.client.session_with_ttl(TTL).await?;
            let guard = contender.lock(&session).acquire().await?;
            contender.exclusion.hold().await;
            guard.release().await?;
            Ok((contender, session))
        }
    });
    let contenders = contenders.await?;
    let span = Span::begin()?;
    let outcomes = all(CONTENDERS, |one| {
        let (contender, session) = contenders[one].clone();
        async move { contender.compete(&session).await }
    });
    let outcomes = outcomes.await?;
    let handoffs: Vec<_> = outcomes
        .iter()
        .flat_map(|one| one.handoffs.clone())
        .collect();
    let waits: Vec<_> = outcomes
        .iter()
        .map(|one| one.waited.as_secs_f64())
        .collect();
    let acquired = outcomes.iter().map(|one| one.acquired).sum();
    let figures = span
        .end(acquired, handoffs)?
        .with("violations", exclusion.violations())
        .with("jain", rounded(jain(&waits)));
    for (_, session) in contenders {
        session.close().await?;
    }
    Ok(figures)
}

#[derive(Clone)]
struct Contender {
    bench: Bench,
    client: Client,
    exclusion: Arc<Exclusion>,
}

#[derive(Default)]
struct Outcome {
    /// From each release that was called to the next acquisition that returned.
    handoffs: Vec<Duration>,
    waited: Duration,
    acquired: usize,
}

impl Contender {
    fn lock(&self, session: &Session) -> quorate::Lock {
        self.client.lock(self.bench.key("lock")).session(session)
    }

    async fn compete(&self, session: &Session) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        while outcome.acquired < ACQUISITIONS && !self.bench.is_late() {
            let asked = Instant::now();
            let guard = self.lock(session).acquire().await?;
            outcome.handoffs.extend(self.exclusion.enter());
            outcome.waited += asked.elapsed();
            outcome.acquired += 1;
            self.exclusion.leave();
            guard.release().await?;
        }
        Ok(outcome)
    }
}

/// How evenly something is shared, one being evenly (R. Jain's index).
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

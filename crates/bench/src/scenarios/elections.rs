//! Elections.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    Result,
    bench::{Bench, all},
    exclusion::Exclusion,
    figures::{Figures, Span},
};

const CANDIDATES: usize = 8;
const HANDOFFS: usize = 200;

/// The leader resigns as soon as it is elected, and campaigns again.
pub(crate) async fn handoff(bench: Bench) -> Result<Figures> {
    let exclusion = Arc::new(Exclusion::default());
    let sessions = bench.sessions(CANDIDATES).await?;
    let election = |one: usize| {
        let election = bench.client.election(bench.key("election"));
        election.session(&sessions[one]).value(format!("c{one}"))
    };
    let warmed = all(CANDIDATES, |one| {
        let (election, exclusion) = (election(one), Arc::clone(&exclusion));
        async move {
            let lead = election.campaign().await?;
            exclusion.hold().await;
            Ok(lead.resign().await?)
        }
    });
    warmed.await?;

    let handoffs = Arc::new(Mutex::new(Vec::<Duration>::new()));
    let span = Span::begin()?;
    let mut candidates = JoinSet::new();
    for one in 0..CANDIDATES {
        let (bench, election) = (bench.clone(), election(one));
        let (exclusion, handoffs) = (Arc::clone(&exclusion), Arc::clone(&handoffs));
        candidates.spawn(async move {
            loop {
                let lead = election.campaign().await?;
                let handoff = exclusion.enter();
                {
                    let mut handoffs = handoffs.lock().unwrap_or_else(PoisonError::into_inner);
                    handoffs.extend(handoff);
                    if handoffs.len() >= HANDOFFS || bench.is_late() {
                        let took = handoffs.clone();
                        return span.end(took.len(), took);
                    }
                }
                exclusion.leave();
                lead.resign().await?;
            }
        });
    }
    let first = candidates.join_next().await.ok_or("nobody campaigns")?;
    let figures = first??.with("violations", exclusion.violations());
    // The others are dropped while they campaign.
    candidates.shutdown().await;
    for session in sessions {
        session.close().await?;
    }
    Ok(figures)
}

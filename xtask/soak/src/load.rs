//! Starts all watchers and writers, compacts, and judges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_wire::etcdserverpb::{CompactionRequest, kv_client::KvClient};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    Result, connect,
    memory::Memory,
    stalled,
    watcher::{Range, Watcher},
    writer::{WRITERS, Writer, write_ends},
};

/// How many connections the watchers share, and the writers.
const WATCHER_CONNECTIONS: usize = 20;
const WRITER_CONNECTIONS: usize = 8;

/// How many watchers see everything, and how many one writer's keys; the others see one key each.
const WATCHERS: usize = 200;
const OF_ALL: usize = 8;
const OF_WRITER: usize = 64;

/// Every so many watchers hang up now and then.
const RESTLESS: usize = 10;

/// How many revisions a compaction leaves, and how long it is until the next.
const KEPT: i64 = 2000;
const COMPACTION_INTERVAL: Duration = Duration::from_millis(500);

const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the watchers may take to see the last events.
const CATCH_UP: Duration = Duration::from_secs(60);

/// What all tasks count.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) revision: AtomicI64,
    pub(crate) writes: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) returns: AtomicU64,
}

/// Fails when a watcher missed something, or the server's memory grew.
pub(crate) async fn run(endpoint: &str, pid: u32, span: Duration) -> Result {
    let begun = Instant::now();
    let counts = Arc::new(Counts::default());
    let mut watchers = start_watchers(endpoint, &counts).await?;
    let stalled = stalled::start(endpoint).await?;

    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    let channels = channels(endpoint, WRITER_CONNECTIONS).await?;
    for (number, channel) in channels.iter().cycle().take(WRITERS).enumerate() {
        let writer = Writer::new(number, channel.clone(), Arc::clone(&counts));
        writers.spawn(writer.run(stop.clone()));
    }
    let compacting = tokio::spawn(compact(
        connect(endpoint).await?,
        Arc::clone(&counts),
        stop.clone(),
    ));

    let mut memory = Memory::new(pid, span);
    while begun.elapsed() < span {
        sleep(SAMPLE_INTERVAL.min(span.saturating_sub(begun.elapsed()))).await;
        memory.sample(begun.elapsed(), &counts)?;
        // A task that has ended has failed.
        let ended = [watchers.try_join_next(), writers.try_join_next()];
        if let Some(ended) = ended.into_iter().flatten().next() {
            ended??;
            return Err("a task has ended too early".into());
        }
    }

    stop.cancel();
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    compacting.await??;
    write_ends(connect(endpoint).await?).await?;
    let seen = tokio::time::timeout(CATCH_UP, async {
        while let Some(watcher) = watchers.join_next().await {
            watcher??;
        }
        Result::Ok(())
    });
    seen.await
        .map_err(|_| "some watchers have not seen the end")??;
    drop(stalled);
    println!(
        "{} writes, {} events, {} returns: every watcher saw everything once, in order",
        counts.writes.load(Ordering::Relaxed),
        counts.events.load(Ordering::Relaxed),
        counts.returns.load(Ordering::Relaxed),
    );
    memory.judge()
}

async fn start_watchers(endpoint: &str, counts: &Arc<Counts>) -> Result<JoinSet<Result>> {
    let (ready, mut are_ready) = mpsc::channel(WATCHERS);
    let mut watchers = JoinSet::new();
    let channels = channels(endpoint, WATCHER_CONNECTIONS).await?;
    for number in 0..WATCHERS {
        let range = match number {
            0..OF_ALL => Range::all(),
            number if number < OF_ALL + OF_WRITER => Range::of_writer(number - OF_ALL),
            number => Range::of_key(number),
        };
        let channel = channels[number % channels.len()].clone();
        let is_restless = number % RESTLESS == 0;
        let watcher = Watcher::new(range, channel, is_restless, Arc::clone(counts));
        watchers.spawn(watcher.run(ready.clone()));
    }
    for _ in 0..WATCHERS {
        are_ready.recv().await.ok_or("a watcher has ended")?;
    }
    Ok(watchers)
}

async fn channels(endpoint: &str, count: usize) -> Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(connect(endpoint).await?);
    }
    Ok(channels)
}

/// Compacts what is old until it is told to stop.
async fn compact(channel: Channel, counts: Arc<Counts>, stop: CancellationToken) -> Result {
    let mut client = KvClient::new(channel);
    let mut done = 0;
    while !stop.is_cancelled() {
        sleep(COMPACTION_INTERVAL).await;
        let revision = counts.revision.load(Ordering::Relaxed) - KEPT;
        if revision > done {
            let request = CompactionRequest {
                revision,
                physical: true,
            };
            client.compact(request).await?;
            done = revision;
        }
    }
    Ok(())
}

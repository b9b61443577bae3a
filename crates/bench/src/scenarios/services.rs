//! Services and their trackers.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use quorate::{
    Change, Client, KeyRange, Service, Tracker, WatchRequest,
    backend::fault::{CallKind, Fault, Partition},
};
use tokio::{process::Command, time::sleep};

use crate::{
    Result,
    bench::{Bench, TASKS},
    figures::{Figures, Span, memory, rounded},
};

/// How long an instance is as it is written.
const BYTES: usize = 100;

/// 50,000 instances are read, then 2,000 of them change.
pub(crate) async fn sync(bench: Bench) -> Result<Figures> {
    track(bench, 50_000, "register_50k").await
}

pub(crate) async fn register_50k(bench: Bench) -> Result<Figures> {
    register(&bench, 50_000, "first").await
}

pub(crate) async fn register_100k(bench: Bench) -> Result<Figures> {
    register(&bench, 100_000, "first").await
}

/// Reads all instances, which another process writes so that its memory does not count, and follows changes.
pub(crate) async fn track(bench: Bench, instances: usize, registers: &str) -> Result<Figures> {
    const UPDATES: usize = 2000;

    register_elsewhere(&bench, registers).await?;
    bench.warm().await?;
    let before = memory("VmRSS:");
    let span = Span::begin()?;
    let mut tracker = service(&bench.client, &bench).track().await?;
    let known = tracker.snapshot().len();
    let figures = span.end(known, Vec::new())?;
    if known != instances {
        return Err(format!("{known} instances are known").into());
    }

    let span = Span::begin()?;
    let writing = bench.clone();
    let writer = tokio::spawn(async move {
        let span = Span::begin()?;
        register(&writing, UPDATES, "then").await?;
        Result::Ok(span.secs())
    });
    for _ in 0..UPDATES {
        let change = tracker.next().await?;
        if !matches!(change, Change::Updated(..)) {
            return Err(format!("this is no update: {change:?}").into());
        }
    }
    let updated = span.end(UPDATES, Vec::new())?;
    let writer = writer.await??;
    if (0..=UPDATES).any(|one| is_updated(&mut tracker, one) == (one == UPDATES)) {
        return Err("the instances are not those that were written".into());
    }
    Ok(figures
        .with("rss_before_mb", before)
        .with("entries", tracker.snapshot().len())
        .with("updates", UPDATES)
        .with("updates_secs", updated.get("secs"))
        .with("updates_per_s", updated.get("per_s"))
        .with("updates_cpu_s", updated.get("cpu_s"))
        .with("writer_secs", writer))
}

/// How soon a tracker is current again that was cut off while 20,000 changes were made, and how soon all
/// these changes are told one by one, each from when its watch is opened. The pause before the next attempt
/// to open one is told beside that.
pub(crate) async fn catch_up(bench: Bench) -> Result<Figures> {
    const INSTANCES: usize = 1000;
    const CHANGES: usize = 20_000;

    register(&bench, INSTANCES, "first").await?;
    let fault = Fault::new(Arc::clone(bench.client.backend()));
    let faults = fault.faults();
    let tracking = Client::with_backend(Arc::new(fault));
    let mut tracker = service(&tracking, &bench).track().await?;
    faults.partition(Partition::Refuse);
    tracker.stale_changed(false).await?;
    let begun = bench.client.put(bench.key("warm"), "w").await?;
    let change = |bench: Bench, number: usize| async move {
        put(&bench, number % INSTANCES, "between").await
    };
    bench.each(CHANGES - INSTANCES, TASKS, change).await?;
    register(&bench, INSTANCES, "then").await?;

    let span = Span::begin()?;
    let request = WatchRequest::new(KeyRange::prefix(bench.key("service/"))).start(begun.next());
    let mut watch = bench.client.watch(request);
    let mut told = 0;
    while told < CHANGES {
        told += watch
            .try_next()
            .await?
            .ok_or("the watch ended")?
            .events
            .len();
    }
    let exactly = span.secs();

    let healed = Instant::now();
    faults.heal();
    while faults.open_streams(CallKind::Watch) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let paused = healed.elapsed().as_secs_f64();
    let span = Span::begin()?;
    let opened = Instant::now();
    while !(0..INSTANCES).all(|one| is_updated(&mut tracker, one)) {
        tracker.next().await?;
    }
    let took = opened.elapsed().as_secs_f64();
    let figures = span.end(CHANGES, Vec::new())?;
    tracking.close().await?;
    Ok(figures
        .with("paused_secs", rounded(paused))
        .with("replay_secs", exactly)
        .with("sooner", rounded(exactly / took)))
}

fn service(client: &Client, bench: &Bench) -> Service {
    client.service("service").root(bench.prefix.as_str())
}

fn is_updated(tracker: &mut Tracker, number: usize) -> bool {
    let snapshot = tracker.peek();
    let instance = snapshot.get(&id(number));
    instance.is_some_and(|instance| instance.address.starts_with("then"))
}

fn id(number: usize) -> String {
    format!("{number:06}")
}

/// Writes instances whose addresses begin with `word`.
async fn register(bench: &Bench, count: usize, word: &'static str) -> Result<Figures> {
    let put = move |bench: Bench, number: usize| async move { put(&bench, number, word).await };
    let span = Span::begin()?;
    let took = bench.each(count, TASKS, put).await?;
    if took.len() < count {
        return Err("there was not time enough to register".into());
    }
    span.end(count, Vec::new())
}

async fn put(bench: &Bench, number: usize, word: &str) -> Result<()> {
    let begin = format!(r#"{{"address":"{word}-{number:06}:7000","metadata":{{"zone":""#);
    let end = r#""},"weight":1,"draining":false}"#;
    let zone = "z".repeat(BYTES.saturating_sub(begin.len() + end.len()));
    let key = bench.key(format!("service/{}", id(number)));
    bench
        .client
        .put(key, [&begin, zone.as_str(), end].concat())
        .await?;
    Ok(())
}

async fn register_elsewhere(bench: &Bench, scenario: &str) -> Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .args(["--endpoint", &bench.endpoint, "--scenario", scenario])
        .args(["--prefix", &bench.prefix])
        .args(["--seconds-cap", &bench.left().as_secs_f64().to_string()])
        .stdout(Stdio::null())
        .status()
        .await?;
    match status.success() {
        true => Ok(()),
        false => Err("the instances were not registered".into()),
    }
}

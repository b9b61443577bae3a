//! Watches and observers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use quorate::{KeyRange, Observed, Observer, WatchRequest};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    Result,
    bench::{Bench, TASKS, value},
    figures::{Figures, Span},
};

/// From a put that is called to the event that a watch tells.
pub(crate) async fn latency(bench: Bench) -> Result<Figures> {
    const WARM: usize = 20;
    const PUTS: usize = 1000;

    let keys = bench.key("w/");
    // A watch opens when it is read, and says nothing of that: the first put is repeated until it is told.
    let mut watch = bench.client.watch(KeyRange::prefix(keys.as_str()));
    loop {
        tokio::select! {
            biased;
            batch = watch.try_next() => break drop(batch?),
            () = sleep(Duration::from_millis(10)) => {
                bench.client.put(bench.key("w/open"), "").await?;
            }
        }
    }
    let called = Arc::new(Mutex::new(vec![None::<Instant>; WARM + PUTS]));
    let sent = Arc::clone(&called);
    let reader = tokio::spawn(async move {
        let mut took = vec![Duration::ZERO; WARM + PUTS];
        let mut seen = 0;
        while seen < took.len() {
            let batch = watch.try_next().await?.ok_or("the watch ended")?;
            let now = Instant::now();
            for event in &batch.events {
                let number = &event.key()[keys.len()..];
                let Ok(number) = std::str::from_utf8(number)?.parse::<usize>() else {
                    continue;
                };
                let called = called.lock().unwrap_or_else(PoisonError::into_inner)[number];
                took[number] = now - called.ok_or("it is told before it is put")?;
                seen += 1;
            }
        }
        Result::Ok(took)
    });
    let mut span = Span::begin()?;
    for number in 0..WARM + PUTS {
        if number == WARM {
            span = Span::begin()?;
        }
        if bench.is_late() {
            return Err("there was not time enough".into());
        }
        let key = bench.key(format!("w/{number}"));
        sent.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(Instant::now());
        bench.client.put(key, value(64)).await?;
        sleep(Duration::from_millis(1)).await;
    }
    let took = reader.await??;
    span.end(PUTS, took[WARM..].to_vec())
}

/// Everything that has happened, one by one.
pub(crate) async fn replay(bench: Bench) -> Result<Figures> {
    const EVENTS: usize = 20_000;

    let begun = bench.client.put(bench.key("warm"), "w").await?;
    let write = Span::begin()?;
    if bench.fill(EVENTS, TASKS, "w/", value(64)).await?.len() < EVENTS {
        return Err("there was not time enough to write".into());
    }
    let write = write.secs();
    let span = Span::begin()?;
    let request = WatchRequest::new(KeyRange::prefix(bench.key("w/"))).start(begun.next());
    let mut watch = bench.client.watch(request);
    let mut seen = 0;
    while seen < EVENTS {
        let batch = watch.try_next().await?.ok_or("the watch ended")?;
        seen += batch.events.len();
    }
    Ok(span.end(seen, Vec::new())?.with("write_secs", write))
}

/// Many observers of one key.
pub(crate) async fn fanout(bench: Bench) -> Result<Figures> {
    fan_out(bench, 500, 100).await
}

pub(crate) async fn fan_out(bench: Bench, observers: usize, puts: usize) -> Result<Figures> {
    bench.warm().await?;
    let setup = Span::begin()?;
    let mut open = Vec::new();
    for _ in 0..observers {
        let mut observer = bench.client.observe(bench.key("w")).from_now();
        observer.opened().await?;
        open.push(observer);
    }
    let setup = setup.secs();
    let (warmed, mut warm) = mpsc::channel(observers);
    let mut readers = JoinSet::new();
    for mut observer in open {
        let warmed = warmed.clone();
        readers.spawn(async move {
            changes(&mut observer).await?;
            warmed.send(()).await?;
            let mut told = 0;
            while told < puts {
                told += changes(&mut observer).await?.events().len();
            }
            Result::Ok((told, observer))
        });
    }
    bench.client.put(bench.key("w"), "warm").await?;
    for _ in 0..observers {
        warm.recv().await;
    }
    let span = Span::begin()?;
    for _ in 0..puts {
        bench.client.put(bench.key("w"), value(64)).await?;
    }
    let put = span.secs();
    let (mut told, mut open) = (0, Vec::new());
    while let Some(reader) = readers.join_next().await {
        let (seen, observer) = reader??;
        told += seen;
        open.push(observer);
    }
    Ok(span
        .end(told, Vec::new())?
        .with("watchers", observers)
        .with("setup_secs", setup)
        .with("puts_secs", put))
}

/// The next changes of an observer that begins with none.
async fn changes(observer: &mut Observer) -> Result<quorate::Changes> {
    match observer.try_next().await? {
        Some(Observed::Changes(changes)) => Ok(changes),
        other => Err(format!("this is no change: {other:?}").into()),
    }
}

//! Plain keys that are written all the time, and observers and watches of them.

use std::{cell::RefCell, collections::BTreeMap};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{ErrorKind, KeyRange, KeyValue, Observed, Op, Range, Result, WatchRequest};
use tokio::time::timeout;

use super::{Agreed, Floor, keys::text, probed, same};
use crate::torture::worker::{between, millis};

const PREFIX: &str = "kv/";
const KEYS: usize = 12;
const OBSERVERS: usize = 3;
const WATCHES: usize = 2;

#[derive(Default)]
pub(super) struct Copies {
    /// What each observer was told.
    observed: RefCell<BTreeMap<usize, BTreeMap<String, String>>>,
}

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    for part in 0..2 {
        let step = async move || write(floor, part).await;
        all.push(floor.churn("plain keys", millis(80), step).boxed_local());
    }
    let step = async || glance(floor).await;
    all.push(
        floor
            .churn("short observers", millis(200), step)
            .boxed_local(),
    );
    for slot in 0..OBSERVERS {
        let once = async move || observe(floor, slot).await;
        all.push(floor.follow("observers", millis(4000), once).boxed_local());
    }
    for _ in 0..WATCHES {
        let once = async move || watch(floor).await;
        all.push(floor.follow("watches", millis(3000), once).boxed_local());
    }
}

/// Every observer's copy is what is stored.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 1] {
    let agreed = async {
        let stored = copy(probed(floor.probe.list(PREFIX)).await?);
        let observed = floor.copies.observed.borrow();
        if observed.len() != OBSERVERS {
            return Err(format!("only {} were told", observed.len()));
        }
        for (slot, told) in observed.iter() {
            same(told, &stored).map_err(|why| format!("observer {slot}: {why}"))?;
        }
        Ok(())
    };
    [("observers", agreed.await)]
}

fn copy(kvs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let texts = kvs.into_iter().map(|kv| (text(&kv.key), text(&kv.value)));
    texts.collect()
}

/// Writes in one of several ways, after which all keys of this part are there.
async fn write(floor: &Floor<'_>, part: usize) -> Result<()> {
    let client = &floor.client;
    let value = fastrand::u32(..).to_string();
    let name = |number: usize| format!("{PREFIX}{part}-{number}");
    let key = name(fastrand::usize(..KEYS));
    match fastrand::u8(..7) {
        0 => floor.replace(&key, Op::delete(key.as_str())).await?,
        1 => drop(
            client
                .update(key.as_str(), |_| Some(value.as_str()))
                .await?,
        ),
        2 => {
            let put = Op::put(key.as_str(), value.as_str());
            floor.replace(&key, put).await?;
        }
        3 => {
            let mut pages = client.pages(Range::prefix(PREFIX).limit(5));
            while let Some(page) = pages.next().await {
                match page {
                    // The history may go while its pages are read.
                    Err(error) if error.kind() == ErrorKind::Compacted => break,
                    page => drop(page?),
                }
            }
        }
        _ => drop(client.put(key.as_str(), value.as_str()).await?),
    }
    // What this one or an earlier one that failed deleted.
    for number in 0..KEYS {
        if !floor.pace.is_going() || fastrand::usize(..KEYS) == 0 {
            drop(client.put_if_absent(name(number), "made again").await?);
        }
    }
    Ok(())
}

/// Observers that live for one change, if for that.
async fn glance(floor: &Floor<'_>) -> Result<()> {
    let observer = floor.client.observe(KeyRange::prefix(PREFIX));
    let time = between(millis(1), millis(400));
    let told = if fastrand::bool() {
        timeout(time, observer.next_change())
            .await
            .map(|told| told.map(drop))
    } else {
        let never = observer.wait_for(|present| present.is_empty());
        timeout(time, never).await.map(|told| told.map(drop))
    };
    told.unwrap_or(Ok(()))
}

async fn observe(floor: &Floor<'_>, slot: usize) -> Result<()> {
    let mut observer = floor.client.observe(KeyRange::prefix(PREFIX));
    floor.copies.observed.borrow_mut().remove(&slot);
    while let Some(told) = observer.next().await {
        let mut observed = floor.copies.observed.borrow_mut();
        match told? {
            Observed::Reset(snapshot) => drop(observed.insert(slot, copy(snapshot.kvs))),
            Observed::Changes(changes) => {
                let own = observed.entry(slot).or_default();
                for event in &changes {
                    apply(own, event);
                }
            }
        }
    }
    Ok(())
}

fn apply(copy: &mut BTreeMap<String, String>, event: &quorate::Event) {
    match event {
        quorate::Event::Put { kv, .. } => copy.insert(text(&kv.key), text(&kv.value)),
        quorate::Event::Delete { key, .. } => copy.remove(&text(key)),
    };
}

/// A watch. That its history is compacted away is no failure.
async fn watch(floor: &Floor<'_>) -> Result<()> {
    let request = WatchRequest::new(KeyRange::prefix(PREFIX));
    let mut watch = floor.client.watch(request);
    while let Some(batch) = watch.next().await {
        match batch {
            Err(error) if error.kind() == ErrorKind::Compacted => return Ok(()),
            batch => drop(batch?),
        }
    }
    Ok(())
}

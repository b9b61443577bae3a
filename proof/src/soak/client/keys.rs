//! Ephemeral keys, registrations, and the trackers that follow them.

use std::{cell::RefCell, collections::BTreeMap};

use futures_util::{FutureExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{EphemeralKey, Instance, Instances, Registration, Result, Strategy, Tracker};

use super::{Agreed, Floor, probed, same};
use crate::torture::worker::millis;

const SERVICE: &str = "api";
const PREFIX: &str = "eph/";
const KEYS: usize = 4;
const INSTANCES: usize = 5;
const TRACKERS: usize = 3;

#[derive(Default)]
pub(super) struct Keys {
    /// Each key with its name and the value it was given.
    ephemeral: RefCell<BTreeMap<usize, (String, String, EphemeralKey)>>,
    registered: RefCell<BTreeMap<usize, Registration>>,
    trackers: RefCell<BTreeMap<usize, Tracker>>,
}

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    for slot in 0..KEYS {
        let step = async move || keep(floor, slot).await;
        all.push(
            floor
                .churn("ephemeral keys", millis(200), step)
                .boxed_local(),
        );
    }
    for slot in 0..INSTANCES {
        let step = async move || register(floor, slot).await;
        all.push(
            floor
                .churn("registrations", millis(200), step)
                .boxed_local(),
        );
    }
    for slot in 0..TRACKERS {
        let once = async move || track(floor, slot).await;
        all.push(floor.follow("trackers", millis(4000), once).boxed_local());
    }
}

/// Everything stands as it was left, and every tracker knows it.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 3] {
    let stored = probed(floor.probe.list(PREFIX)).await.map(|kvs| {
        let texts = kvs.into_iter().map(|kv| (text(&kv.key), text(&kv.value)));
        texts.collect()
    });
    let instances = probed(floor.probe.service(SERVICE).instances()).await;
    let instances = instances.map(|instances| addresses(&instances));
    [
        (
            "ephemeral keys",
            stored.and_then(|stored| all_stand(floor, &stored)),
        ),
        (
            "registrations",
            instances
                .clone()
                .and_then(|there| all_registered(floor, &there)),
        ),
        (
            "trackers",
            instances.and_then(|there| all_know(floor, &there)),
        ),
    ]
}

fn all_stand(floor: &Floor<'_>, stored: &BTreeMap<String, String>) -> Agreed {
    let ephemeral = floor.keys.ephemeral.borrow();
    if let Some((name, _, key)) = { ephemeral.values() }.find(|(_, _, key)| !key.is_held()) {
        return Err(format!("{name} is {:?}", key.state()));
    }
    let ours = ephemeral
        .values()
        .map(|(name, value, _)| (name.clone(), value.clone()));
    same(&ours.collect(), stored)
}

fn all_registered(floor: &Floor<'_>, stored: &BTreeMap<String, String>) -> Agreed {
    let registered = floor.keys.registered.borrow();
    if let Some(lost) = { registered.values() }.find(|registration| !registration.is_held()) {
        return Err(format!("{} is {:?}", lost.id(), lost.state()));
    }
    let ours =
        { registered.values() }.map(|own| (own.id().to_owned(), own.instance().address.clone()));
    same(&ours.collect(), stored)
}

fn all_know(floor: &Floor<'_>, stored: &BTreeMap<String, String>) -> Agreed {
    let trackers = floor.keys.trackers.borrow();
    if trackers.len() != TRACKERS {
        return Err(format!("only {} are there", trackers.len()));
    }
    for (slot, tracker) in trackers.iter() {
        if tracker.is_stale() {
            return Err(format!("tracker {slot} is stale"));
        }
        same(&addresses(&tracker.peek()), stored)
            .map_err(|why| format!("tracker {slot}: {why}"))?;
    }
    Ok(())
}

fn addresses(instances: &Instances) -> BTreeMap<String, String> {
    let addresses = instances.iter();
    addresses
        .map(|(id, instance)| (id.to_string(), instance.address.clone()))
        .collect()
}

/// Bytes as text, of which all of ours consist.
pub(super) fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// Gives a key another value, or gives it up and makes another one.
async fn keep(floor: &Floor<'_>, slot: usize) -> Result<()> {
    let value = fastrand::u32(..).to_string();
    let former = floor.keys.ephemeral.borrow_mut().remove(&slot);
    if let Some((name, _, key)) = former {
        match fastrand::u8(..4) {
            0 => key.release().await?,
            1 => drop(key),
            _ => {
                let set = key.set(value.as_str()).await;
                let kept = (name, value, key);
                floor.keys.ephemeral.borrow_mut().insert(slot, kept);
                return set;
            }
        }
    }
    let name = format!("{PREFIX}{slot}-{:x}", fastrand::u64(..));
    let key = floor.client.ephemeral(&name).create(value.as_str()).await?;
    let kept = (name, value, key);
    floor.keys.ephemeral.borrow_mut().insert(slot, kept);
    Ok(())
}

/// Changes an instance, or withdraws it and registers another one.
async fn register(floor: &Floor<'_>, slot: usize) -> Result<()> {
    let former = floor.keys.registered.borrow_mut().remove(&slot);
    let id = format!("{slot}-{:x}", fastrand::u64(..));
    if let Some(mut registration) = former {
        let kept = match fastrand::u8(..5) {
            0 => registration.release().await.map(|()| None)?,
            1 => None,
            2 => {
                let drained = registration.drain().await;
                Some((drained.and(registration.undrain().await), registration))
            }
            _ => {
                let changed = Instance::new(format!("{id}:2")).weight(2);
                Some((registration.set(changed).await, registration))
            }
        };
        if let Some((done, registration)) = kept {
            let mut registered = floor.keys.registered.borrow_mut();
            registered.insert(slot, registration);
            return done;
        }
    }
    let service = floor.client.service(SERVICE);
    let registration = service
        .register(&id, Instance::new(format!("{id}:1")))
        .await?;
    floor
        .keys
        .registered
        .borrow_mut()
        .insert(slot, registration);
    Ok(())
}

async fn track(floor: &Floor<'_>, slot: usize) -> Result<()> {
    floor.keys.trackers.borrow_mut().remove(&slot);
    let mut tracker = floor.client.service(SERVICE).track().await?;
    let own = tracker.clone();
    floor.keys.trackers.borrow_mut().insert(slot, own);
    let picker = tracker.picker(Strategy::RoundRobin);
    loop {
        tracker.changed().await?;
        let _ = picker.pick().map(quorate::Pick::succeeded);
    }
}

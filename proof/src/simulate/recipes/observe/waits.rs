//! Waits for a state or a change, each of which has to end.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, Event, Key, KeyRange, Observed, Op, Present, Revision, Txn, backend::Backend,
};
use tokio::time::{sleep, sleep_until};

use crate::simulate::{recipes::history::History, world::World};

/// What is put and deleted again and again at the end, so that all waits end.
const END: &str = "end";

/// How often that is.
const ROUNDS: u32 = 20;

/// Ends all waits.
pub(super) async fn end_all(world: Arc<World>) {
    sleep_until(world.over).await;
    for _ in 0..ROUNDS {
        write(&world, Txn::new().then(Op::put(END, "")));
        sleep(Duration::from_secs(1)).await;
        write(&world, Txn::new().then(Op::delete(END)));
        sleep(Duration::from_secs(1)).await;
    }
}

/// Writes at once, past all faults.
pub(super) fn write(world: &World, txn: Txn) -> Revision {
    let written = world.store.txn(txn).now_or_never();
    let written = written.and_then(Result::ok);
    written.expect("the store answers at once").header.revision
}

/// Waits for something that comes after the storm, or before.
pub(super) async fn wait(
    world: &World,
    history: &History,
    client: &Client,
    random: &mut fastrand::Rng,
) {
    let since = history.now().revision();
    let broken = |what: &dyn std::fmt::Debug| {
        world.broken(
            "I7",
            format_args!("a wait since {since} ended with {what:?}"),
        );
    };
    match random.u8(..4) {
        0 => {
            let keys = KeyRange::from("e");
            let end = Key::from(END);
            let there = |present: &Present| present.contains_key(&end);
            match client.observe(keys.clone()).wait_for(there).await {
                Ok(present) => {
                    let past = history.now();
                    let present: Vec<_> = present.into_values().collect();
                    let mut moments = past.moments(&keys, since, past.revision());
                    if !moments.any(|at| past.present(&keys, at) == present) {
                        broken(&present);
                    }
                }
                Err(error) => broken(&error),
            }
        }
        1 => {
            let change = client.observe(END).next_change().await;
            match change {
                Ok(Observed::Changes(changes)) if changes.revision() > since => {}
                // It was lost to a compaction.
                Ok(Observed::Reset(all)) if all.revision > since => {}
                told => broken(&told),
            }
        }
        2 => {
            let change = client.observe(END).from(since.next()).next_change().await;
            let past = history.now();
            let keys = KeyRange::key(END);
            let first = past.moments(&keys, since, past.revision()).nth(1);
            match change {
                Ok(Observed::Changes(changes)) if Some(changes.revision()) == first => {}
                Ok(Observed::Reset(_)) if since.next() < past.oldest() => {}
                told => broken(&told),
            }
        }
        _ => {
            let mut observer = client.observe(END).until_deleted();
            let mut last = None;
            while let Some(told) = observer.next().await {
                last = Some(told);
            }
            match last {
                Some(Ok(Observed::Changes(changes)))
                    if matches!(changes.events(), [Event::Delete { .. }]) => {}
                Some(Ok(Observed::Reset(all))) if all.kvs.is_empty() => {}
                told => broken(&told),
            }
        }
    }
    world.count("waited");
}

//! Configurations that are written, well and badly, and those who follow them.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use quorate::{Op, Txn, backend::Backend};
use tokio::time::{Instant, sleep};

use self::{follower::Follower, writer::Writer};
use super::{Recipe, history::History};
use crate::simulate::world::{World, lock};

mod document;
mod follower;
mod writer;

/// How long it may take to agree with the store once all is well.
const AGREES: Duration = Duration::from_secs(20);

/// The recipe, and who follows to the end.
#[derive(Default)]
pub(crate) struct Config {
    history: OnceLock<Arc<History>>,
    followers: Mutex<Vec<Follower>>,
}

impl Recipe for Config {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        self.history
            .get_or_init(|| Arc::new(History::new(&world.store)));
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let random = world.random(client, worker);
                let writer = Writer::new(world, self.history(), client, worker, random);
                world.work(client, writer.run());
            }
            for worker in 0..2 {
                let random = world.random(client, u64::MAX - worker);
                let follower = Follower::new(world, self.history(), client, random);
                let this = Arc::clone(&self);
                world.work(client, async move {
                    let follower = follower.run().await;
                    lock(&this.followers).push(follower);
                });
            }
        }
    }

    fn look(&self, _world: &World) {
        // A compaction must not overtake the history.
        drop(self.history().now());
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut followers = std::mem::take(&mut *lock(&self.followers));
            self.agree(&world, &mut followers).await;
            // What is good now is taken over by all, and what is bad by nobody.
            for (count, limit) in [(1, 7), (2, 0), (3, 9)] {
                write(&world, count, limit);
                self.agree(&world, &mut followers).await;
            }
            drop(followers);
            world.nothing_left().await;
        })
    }
}

impl Config {
    fn history(&self) -> &Arc<History> {
        self.history.get().expect("it is there from the start on")
    }

    /// Waits until everybody who follows agrees with the store.
    async fn agree(&self, world: &World, followers: &mut [Follower]) {
        let deadline = Instant::now() + AGREES;
        for follower in followers {
            while let Err(why) = follower.agrees() {
                if Instant::now() >= deadline {
                    world.broken("I8", format_args!("{why}"));
                    return;
                }
                follower.look().await;
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Writes both configurations at once, past all faults.
fn write(world: &World, count: u64, limit: u32) {
    let txn = Txn::new()
        .then(Op::put(document::KEY, document::text("end", count, limit)))
        .then(Op::put(document::field("limit"), limit.to_string()))
        .then(Op::put(document::field("count"), count.to_string()))
        .then(Op::put(document::field("by/name"), "end"));
    let written = world.store.txn(txn).now_or_never();
    written
        .expect("the store answers at once")
        .expect("it is valid");
}

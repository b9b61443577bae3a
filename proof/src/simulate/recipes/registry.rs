//! Instances of a service that come and go, and those who track them.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use quorate::{Instance, KeyRange, Revision};
use tokio::time::{Instant, sleep, timeout};

use self::{follower::Follower, owner::Owner};
use super::{
    Recipe,
    history::{History, Past},
};
use crate::simulate::{
    glance::wake,
    world::{World, lock},
};

mod follower;
mod owner;

const SERVICE: &str = "api";
const PREFIX: &str = "services/api/";

/// How long everything may take to be as it should once all is well.
const AGREES: Duration = Duration::from_secs(20);

/// The recipe, and what is known of its instances.
#[derive(Default)]
pub(crate) struct Registry {
    history: OnceLock<Arc<History>>,
    /// What is registered, as its owners know.
    registered: Mutex<Vec<Arc<owner::Registered>>>,
    /// Who follows to the end.
    followers: Mutex<Vec<Follower>>,
}

impl Recipe for Registry {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        wake(world, KeyRange::prefix(PREFIX));
        self.history
            .get_or_init(|| Arc::new(History::new(&world.store)));
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let random = world.random(client, worker);
                let owner = Owner::new(&self, world, client, worker, random);
                world.work(client, owner.run());
            }
            let random = world.random(client, u64::MAX);
            let follower = Follower::new(world, self.history(), client, random);
            let this = Arc::clone(&self);
            world.work(client, async move {
                let follower = follower.run().await;
                lock(&this.followers).push(follower);
            });
        }
    }

    /// What its owner believes to be registered is.
    fn look(&self, world: &World) {
        let past = self.history().now();
        if world.schedule.assumed {
            let registered = lock(&self.registered);
            registered.iter().for_each(|it| it.look(world, &past));
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let registered = std::mem::take(&mut *lock(&self.registered));
            let mut followers = std::mem::take(&mut *lock(&self.followers));
            self.agree(&world, &registered).await;
            for follower in &mut followers {
                follower.agree().await;
            }
            for registered in registered {
                registered.release(&world, self.history()).await;
            }
            self.agree(&world, &[]).await;
            for follower in &mut followers {
                follower.agree().await;
            }
            drop(followers);
            world.nothing_left().await;
        })
    }
}

impl Registry {
    fn history(&self) -> &Arc<History> {
        self.history.get().expect("it is there from the start on")
    }

    /// Waits until exactly what lives is in the store, as it was set last.
    async fn agree(&self, world: &World, registered: &[Arc<owner::Registered>]) {
        let keys = KeyRange::prefix(PREFIX);
        let mut living: Vec<_> = Vec::new();
        let agreed = async {
            loop {
                let present = {
                    let past = self.history().now();
                    decode(&past, past.revision())
                };
                living = registered.iter().filter_map(|it| it.living()).collect();
                living.sort_by(|(a, _), (b, _)| a.cmp(b));
                if present == living {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let begun = Instant::now();
        if timeout(AGREES, agreed).await.is_err() {
            let past = self.history().now();
            let present = past.present(&keys, past.revision());
            let left: Vec<_> = present.iter().map(|kv| &kv.value).collect();
            let what = format_args!("registered is {living:?}, and there is {left:?}");
            world.broken("I9", what);
        }
        if begun.elapsed() > Duration::from_secs(5) {
            world.count("slow agreements");
        }
    }
}

/// The instances of the service at a revision, with their ids.
fn decode(past: &Past, at: Revision) -> Vec<(String, Instance)> {
    let present = past.present(&KeyRange::prefix(PREFIX), at);
    let decoded = present.iter().filter_map(|kv| {
        let id = kv.key.as_str()?.strip_prefix(PREFIX)?;
        Some((id.to_owned(), instance(&kv.value)?))
    });
    decoded.collect()
}

/// An instance, from what is in its key.
fn instance(value: &quorate::Value) -> Option<Instance> {
    let decoded = quorate::Layout::Quorate.decode(value);
    decoded.ok().flatten()
}

//! Observers and watches of keys that everybody writes.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use quorate::{Delete, Key, KeyRange, Op, Revision, Txn, Value, backend::Backend};
use tokio::time::{sleep, timeout};

use self::{raw::Raw, subject::Subject};
use super::{Recipe, history::History};
use crate::simulate::{
    cut::cut_after,
    scheduler::MachineId,
    world::{OUTSIDE, World, lock},
};

mod raw;
mod sight;
mod subject;
mod waits;

/// How many keys there are.
const KEYS: u8 = 6;

/// How many observers a task has at once.
const SUBJECTS: usize = 3;

/// A few values of this size push one another out of what is kept for those who are slow.
const LARGE: usize = 300 << 10;

/// The recipe, and what its clients follow.
pub(crate) struct Observe {
    history: OnceLock<Arc<History>>,
    large: Value,
    /// What is followed to the end.
    left: Mutex<Vec<Followed>>,
}

/// Who follows the keys.
enum Followed {
    Observer(Box<Subject>),
    Watch(Box<Raw>),
}

impl Default for Observe {
    fn default() -> Self {
        Self {
            history: OnceLock::new(),
            large: vec![b'x'; LARGE].into(),
            left: Mutex::default(),
        }
    }
}

impl Recipe for Observe {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        let history = (self.history).get_or_init(|| Arc::new(History::new(&world.store)));
        world.aside(waits::end_all);
        world.aside({
            let this = Arc::clone(&self);
            move |world| this.storm(world)
        });
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    history: Arc::clone(history),
                    client,
                    random: world.random(client, worker),
                };
                world.work(client, worker.run());
            }
            let waits = (Arc::clone(world), Arc::clone(history));
            let mut random = world.random(client, u64::MAX);
            world.work(client, async move {
                sleep(Duration::from_millis(random.u64(..20_000))).await;
                let (world, history) = waits;
                let client = world.members[client].client();
                waits::wait(&world, &history, &client, &mut random).await;
            });
        }
    }

    fn look(&self, _world: &World) {
        // A compaction must not overtake the history.
        if let Some(history) = self.history.get() {
            drop(history.now());
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut left = std::mem::take(&mut *lock(&self.left));
            finish(&mut left).await;
            // What comes now is told by all, though all that is open stays silent for good.
            for member in &world.members {
                member.faults.silence_watches();
            }
            let mut random = world.random(OUTSIDE, 1);
            for _ in 0..6 {
                waits::write(&world, self.draw(&mut random));
            }
            finish(&mut left).await;
            drop(left);
            world.nothing_left().await;
        })
    }
}

impl Observe {
    /// Writes and compacts past all faults.
    async fn storm(self: Arc<Self>, world: Arc<World>) {
        let mut random = world.random(OUTSIDE, 0);
        while world.storms() {
            match random.u8(..12) {
                0 => {
                    let present = world.store.revision();
                    let at = Revision(random.i64(present.0.max(6) - 5..=present.0.max(6)));
                    // It may have been compacted already.
                    drop(world.store.compact(at, false).now_or_never());
                }
                1 => {
                    for _ in 0..random.u8(..30) {
                        waits::write(&world, self.draw(&mut random));
                    }
                }
                2 if random.u8(..4) == 0 => {
                    for _ in 0..20 {
                        let put = Op::put(key(&mut random), self.large.clone());
                        waits::write(&world, Txn::new().then(put));
                    }
                }
                _ => drop(waits::write(&world, self.draw(&mut random))),
            }
            sleep(Duration::from_millis(random.u64(..600))).await;
        }
    }

    /// A put, a deletion of a range, or both and more at once.
    fn draw(&self, random: &mut fastrand::Rng) -> Txn {
        let value = random.u8(..).to_string();
        match random.u8(..6) {
            0 => Txn::new().then(Op::delete(key(random))),
            1 if random.bool() => Txn::new().then(Delete::new(KeyRange::prefix("k/"))),
            2 => Txn::new()
                .then(Op::put("k/0", value.clone()))
                .then(Delete::new(KeyRange::between("k/1", "k/3")))
                .then(Op::put("k/7", value.clone()))
                .then(Op::put("k/3", value)),
            _ => Txn::new().then(Op::put(key(random), value)),
        }
    }
}

/// Has everybody tell all that is left to be told.
async fn finish(left: &mut [Followed]) {
    for followed in left {
        followed.finish().await;
    }
}

fn key(random: &mut fastrand::Rng) -> Key {
    Key::from(format!("k/{}", random.u8(..KEYS)))
}

/// Writes, and follows what is written.
struct Worker {
    recipe: Arc<Observe>,
    world: Arc<World>,
    history: Arc<History>,
    client: MachineId,
    random: fastrand::Rng,
}

impl Worker {
    async fn run(mut self) {
        let mut followed: Vec<Followed> = Vec::new();
        while self.world.storms() {
            match self.random.u8(..12) {
                0 | 1 if followed.len() < SUBJECTS => {
                    let new = self.follow();
                    followed.push(new);
                }
                2 if !followed.is_empty() => {
                    let nth = self.random.usize(..followed.len());
                    let dropped = followed.swap_remove(nth);
                    if let Followed::Observer(subject) = dropped
                        && self.random.bool()
                    {
                        let client = self.world.members[self.client].client();
                        let again = subject.resume(&client);
                        followed.push(Followed::Observer(Box::new(again)));
                    }
                }
                3 | 4 => self.write().await,
                _ if !followed.is_empty() => {
                    let nth = self.random.usize(..followed.len());
                    followed[nth].read(&mut self.random).await;
                    if followed[nth].has_ended() {
                        drop(followed.swap_remove(nth));
                    }
                }
                _ => {}
            }
            // Some are slow.
            let pause = if self.random.u8(..12) == 0 { 6000 } else { 300 };
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
        }
        lock(&self.recipe.left).extend(followed);
    }

    fn follow(&mut self) -> Followed {
        let client = self.world.members[self.client].client();
        let (world, history) = (&self.world, &self.history);
        if self.random.u8(..4) == 0 {
            let raw = Raw::new(world, history, &client, &mut self.random);
            return Followed::Watch(Box::new(raw));
        }
        let subject = Subject::new(world, history, &client, &mut self.random);
        Followed::Observer(Box::new(subject))
    }

    /// Writes through the faults: what became of it, the history tells.
    async fn write(&mut self) {
        let client = self.world.members[self.client].client();
        let drawn = self.recipe.draw(&mut self.random);
        let mut txn = client.txn();
        for op in drawn.success {
            txn = txn.then(op);
        }
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..8));
        let patience = Duration::from_millis(self.random.u64(1..1500));
        if let Ok(Some(Ok(_))) = timeout(patience, cut_after(steps, txn.commit())).await {
            self.world.count("written");
        }
    }
}

impl Followed {
    async fn read(&mut self, random: &mut fastrand::Rng) {
        match self {
            Self::Observer(subject) => subject.read(random).await,
            Self::Watch(raw) => raw.read(random).await,
        }
    }

    async fn finish(&mut self) {
        match self {
            Self::Observer(subject) => subject.finish().await,
            Self::Watch(raw) => raw.finish().await,
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Observer(subject) => subject.has_ended(),
            Self::Watch(raw) => raw.has_ended(),
        }
    }
}

//! Locks and elections on one name, strangers among them, and a ledger that only the holder writes.

use std::sync::{Arc, Mutex, Weak};

use futures_core::future::BoxFuture;
use quorate::{KeyRange, Revision};
use tokio::time::Instant;

use self::{
    held::{Held, Waiter},
    worker::Worker,
};
use super::Recipe;
use crate::simulate::{
    glance::{Due, Pauses, wake},
    ledger::Ledger,
    world::{World, lock},
};

mod held;
mod settle;
mod stranger;
mod worker;

const NAME: &str = "name";

/// The recipe, and what is known of its holders.
pub(crate) struct Hold {
    books: Mutex<Books>,
    ledger: Ledger,
}

#[derive(Default)]
struct Books {
    /// Who was told that it holds and has not given up, and whether it ought to know by now that it
    /// holds no more.
    holds: Vec<(Weak<Held>, Due)>,
    /// Who waits, and whether it ought to have failed by now.
    waiters: Vec<(Weak<Waiter>, Due)>,
    /// The newest of those who were told that they hold.
    last: Revision,
    /// Who has to be told by the end of the instant that it holds no more, since that one holds.
    to_be_told: Vec<(Instant, Weak<Held>, Revision)>,
    /// All who ever were told so.
    told: Vec<Revision>,
    pauses: Pauses,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            books: Mutex::default(),
            ledger: Ledger::new(NAME),
        }
    }
}

impl Recipe for Hold {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        wake(world, KeyRange::prefix(NAME));
        world.aside(stranger::come_and_go);
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    random: world.random(client, worker),
                };
                world.work(client, worker.run());
            }
        }
    }

    fn look(&self, world: &World) {
        self.ledger.look(world);
        let mut books = lock(&self.books);
        books.pauses.look(world);
        books.over(world);
        if world.schedule.assumed {
            books.overlap(world);
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let sessions = super::sessions(&world).await;
            self.queue_empties(&world).await;
            self.keys_stood(&world);
            self.queue_works(&world).await;
            self.waiters_fail(&world).await;
            self.holders_learn(&world).await;
            drop(sessions);
            world.nothing_left().await;
        })
    }
}

impl Books {
    /// Whose time is up, or whose session, is told so at once, whether it holds or waits.
    fn over(&mut self, world: &World) {
        self.holds.retain_mut(|(held, due)| {
            let Some(held) = held.upgrade() else {
                return false;
            };
            let is_due = held.is_over(world) && !held.is_told() && !world.is_stopped(held.client);
            if due.is_late(is_due) {
                let token = held.token;
                world.broken("I3", format_args!("{token} is over, and nobody is told"));
            }
            true
        });
        self.waiters.retain_mut(|(waiter, due)| {
            let Some(waiter) = waiter.upgrade() else {
                return false;
            };
            let is_due = waiter.is_over(world) && !world.is_stopped(waiter.client);
            if due.is_late(is_due) {
                let session = &waiter.session;
                let what = format_args!("somebody waits though his session is over: {session:?}");
                world.broken("I4", what);
            }
            true
        });
    }

    /// No two hold, by their own clocks, and who held before is told first.
    fn overlap(&mut self, world: &World) {
        let now = Instant::now();
        for (_, held, successor) in self.to_be_told.extract_if(.., |(at, ..)| *at < now) {
            if let Some(held) = held.upgrade()
                && !held.is_told()
                && !world.is_stopped(held.client)
            {
                let token = held.token;
                let what = format_args!("{successor} holds before {token} is told");
                world.broken("I3", what);
            }
        }
        if self.holds.len() > 1 {
            let held = self.holds.iter().filter_map(|(held, _)| held.upgrade());
            let held = held.filter(|held| held.believes(world));
            let held: Vec<_> = held.map(|held| held.token).collect();
            if held.len() > 1 {
                world.broken("I1", format_args!("{held:?} hold at once"));
            }
        }
    }
}

impl Hold {
    /// Everything that must be true when somebody has just been told that it holds.
    fn acquired(&self, world: &World, held: &Arc<Held>) {
        let (client, token) = (held.client, held.token);
        world.count("acquired");
        world.trace.say(format_args!("{client} holds by {token}"));
        // It was looked at in this very step.
        if !held.is_held() {
            let what = format_args!("{token} holds, and is lost: {:?}", held.session);
            world.broken("I4", what);
        }
        let (first, stands) = (self.ledger).ask(world, |line| (line.first(), line.stands(token)));
        if stands && first != Some(token) {
            world.broken("I6", format_args!("{token} holds, {first:?} came before"));
        }
        let mut books = lock(&self.books);
        if world.schedule.assumed {
            if !stands {
                world.broken("I4", format_args!("{token} holds, and its key is gone"));
            }
            let last = books.last;
            if token <= last {
                world.broken("I2", format_args!("{token} holds after {last}"));
            }
            let Books {
                holds, to_be_told, ..
            } = &mut *books;
            let others = holds.iter().map(|(other, _)| Weak::clone(other));
            to_be_told.extend(others.map(|other| (Instant::now(), other, token)));
        }
        books.last = books.last.max(token);
        books.told.push(token);
        books.holds.push((Arc::downgrade(held), Due::default()));
    }

    /// Somebody gives up what it held.
    fn forget(&self, held: &Arc<Held>) {
        let mut books = lock(&self.books);
        let is_it = |other: &Weak<Held>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(held));
        books.holds.retain(|(other, _)| !is_it(other));
        books.to_be_told.retain(|(_, other, _)| !is_it(other));
    }
}

//! What clients do during a storm, and what must be true of it.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use quorate::{Error, ErrorKind, Session};

use super::world::World;

mod config;
mod detached;
mod elector;
mod ephemeral;
mod history;
mod hold;
mod kv;
mod observe;
mod registry;
mod session;

/// What the clients of a run do. It is judged while it runs, and when all is well again.
pub(crate) trait Recipe: Send + Sync + 'static {
    /// Gives the clients their tasks.
    fn start(self: Arc<Self>, world: &Arc<World>);

    /// Judges, after every step of every task.
    fn look(&self, _world: &World) {}

    /// Judges once all faults have ended and all tasks with them.
    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()>;
}

/// A recipe's name, and how it begins.
type Entry = (&'static str, fn() -> Arc<dyn Recipe>);

/// All recipes.
pub(crate) const RECIPES: [Entry; 9] = [
    ("config", || Arc::<config::Config>::default()),
    ("detached", || Arc::<detached::Holds>::default()),
    ("elector", || Arc::<elector::Electors>::default()),
    ("ephemeral", || Arc::<ephemeral::Ephemeral>::default()),
    ("hold", || Arc::<hold::Hold>::default()),
    ("kv", || Arc::<kv::Kv>::default()),
    ("observe", || Arc::<observe::Observe>::default()),
    ("registry", || Arc::<registry::Registry>::default()),
    ("session", || Arc::<session::Sessions>::default()),
];

impl World {
    /// An error is of one of these kinds.
    fn expect(&self, error: &Error, kinds: &[ErrorKind]) {
        if !kinds.contains(&error.kind()) {
            self.broken("I13", format_args!("an error that nobody expects: {error}"));
        }
    }
}

/// The shared sessions of all clients, so that what goes does not go with them.
async fn sessions(world: &World) -> Vec<Session> {
    let mut sessions = Vec::new();
    for member in &world.members {
        let mut tries = 0;
        loop {
            // That of the storm may be past saving.
            match member.client().session().await {
                Ok(session) => {
                    sessions.push(session);
                    break;
                }
                Err(_) if tries < 3 => tries += 1,
                Err(error) => {
                    world.broken("I12", format_args!("no session is made: {error}"));
                    break;
                }
            }
        }
    }
    sessions
}

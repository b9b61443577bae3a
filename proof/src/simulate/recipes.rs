//! What clients do during a storm, and what must be true of it.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use quorate::Session;

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

/// The shared sessions of all clients, so that what goes does not go with them.
async fn sessions(world: &World) -> Vec<Session> {
    let mut sessions = Vec::new();
    for member in &world.members {
        for _ in 0..10 {
            if let Ok(session) = member.client().session().await {
                sessions.push(session);
                break;
            }
        }
    }
    sessions
}

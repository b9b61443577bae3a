//! What clients do during a storm, and what must be true of it.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use quorate::Session;

use super::world::World;

mod detached;
mod elector;
mod ephemeral;
mod hold;
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

/// The names of all recipes, and how one begins.
#[allow(clippy::type_complexity)] // it is a table
pub(crate) const RECIPES: [(&str, fn() -> Arc<dyn Recipe>); 5] = [
    ("detached", || Arc::<detached::Holds>::default()),
    ("elector", || Arc::<elector::Electors>::default()),
    ("ephemeral", || Arc::<ephemeral::Ephemeral>::default()),
    ("hold", || Arc::<hold::Hold>::default()),
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

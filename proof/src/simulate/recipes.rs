//! What clients do during a storm, and what must be true of it.

use std::sync::Arc;

use futures_core::future::BoxFuture;

use super::world::World;

mod config;
mod history;
mod hold;
mod kv;
mod observe;
mod registry;

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
pub(crate) const RECIPES: [Entry; 5] = [
    ("config", || Arc::<config::Config>::default()),
    ("hold", || Arc::<hold::Hold>::default()),
    ("kv", || Arc::<kv::Kv>::default()),
    ("observe", || Arc::<observe::Observe>::default()),
    ("registry", || Arc::<registry::Registry>::default()),
];

//! The library, unchanged, on the store in memory under virtual time: random schedules of faults, and what
//! must be true all the same.
//!
//! Everything of a run follows from its seed, byte for byte: the clients and the rates of their clocks, what
//! happens to them and when, which task runs next of all that could.

mod cut;
mod glance;
mod ledger;
mod line;
mod machine;
mod recipes;
mod schedule;
mod scheduler;
mod trace;
mod trouble;
mod wire;
mod world;

use std::sync::Arc;

use quorate::mutant::{Mutant, plant};

pub use self::world::{Counts, Violation};
use self::{
    recipes::{RECIPES, Recipe},
    schedule::Schedule,
    trace::{Keep, Trace},
    world::World,
};

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// How often what happened.
    pub counts: Counts,
    digest: u64,
}

/// The names of the recipes that can be simulated.
pub fn recipes() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|(name, _)| *name)
}

/// Runs one schedule of a recipe, on a library with a bug planted if one is given.
///
/// # Panics
///
/// There is no such recipe.
pub fn simulate(recipe: &str, seed: u64, mutant: Option<Mutant>) -> Outcome {
    let schedule = Schedule::new(seed);
    run(recipe, schedule, mutant, Keep::Nothing).0
}

/// Runs one schedule of a recipe, and tells a number that differs if anything in it did.
///
/// # Panics
///
/// There is no such recipe.
pub fn digest(recipe: &str, seed: u64) -> u64 {
    run(recipe, Schedule::new(seed), None, Keep::Digest)
        .0
        .digest
}

/// Runs a schedule that failed again and again with less of it, and tells what is left with the trace.
pub fn explain(recipe: &str, seed: u64, mutant: Option<Mutant>) -> String {
    let schedule = shrink(recipe, Schedule::new(seed), mutant);
    let (outcome, text) = run(recipe, schedule.clone(), mutant, Keep::Text);
    let violation = outcome.violation.map(|violation| violation.to_string());
    let violation = violation.unwrap_or_else(|| "no promise is broken".to_owned());
    format!("recipe {recipe}, {schedule}\n{text}\n{violation}\n")
}

/// Leaves out of a schedule what its failure does not need.
fn shrink(recipe: &str, schedule: Schedule, mutant: Option<Mutant>) -> Schedule {
    let fails = |schedule: &Schedule| {
        let (outcome, _) = run(recipe, schedule.clone(), mutant, Keep::Nothing);
        outcome.violation.map(|violation| violation.invariant)
    };
    let Some(invariant) = fails(&schedule) else {
        return schedule;
    };
    let mut least = schedule;
    let mut size = least.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let before = least.steps.len();
        while from < least.steps.len() {
            let mut less = least.clone();
            let to = (from + size).min(less.steps.len());
            less.steps.drain(from..to);
            if fails(&less) == Some(invariant) {
                least = less;
            } else {
                from = to;
            }
        }
        // One by one until there is no one left that is not needed.
        if size > 1 || least.steps.len() == before {
            size /= 2;
        }
    }
    least
}

fn run(recipe: &str, schedule: Schedule, mutant: Option<Mutant>, keep: Keep) -> (Outcome, String) {
    let (_, recipe) = RECIPES
        .into_iter()
        .find(|(name, _)| *name == recipe)
        .expect("the recipe is one of those there are");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without a driver for sockets");
    fastrand::seed(schedule.seed);
    plant(mutant);
    let outcome = runtime.block_on(async {
        let trace = Trace::new(keep);
        let world = World::new(schedule, trace.clone());
        let recipe: Arc<dyn Recipe> = recipe();
        Arc::clone(&recipe).start(&world);
        let settle = Arc::clone(&recipe).settle(Arc::clone(&world));
        let violation = world.run(|| recipe.look(&world), settle).await;
        let outcome = Outcome {
            violation,
            counts: world.counts(),
            digest: trace.digest(),
        };
        (outcome, trace.text())
    });
    plant(None);
    outcome
}

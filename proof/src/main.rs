//! `proof simulate` and `proof torture`, behind `cargo xtask`.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::{Args, Parser, Subcommand};
use proof::simulate::{Counts, explain, recipes, simulate};
use quorate::mutant::Mutant;

/// Tries to break quorate's promises.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs random schedules of faults in virtual time.
    Simulate(Simulate),
}

#[derive(Args)]
struct Simulate {
    /// How many schedules of each recipe.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This recipe alone.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes()))]
    recipe: Option<String>,
    /// With this bug planted into the library, which is to be found.
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Print all that happens in the first schedule, and run no more.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Simulate(simulate) => simulate.run(),
    }
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let named = |mutant: &Mutant| format!("{mutant:?}") == name;
    let found = Mutant::ALL.into_iter().find(named);
    found.ok_or_else(|| format!("there are {:?}", Mutant::ALL))
}

impl Simulate {
    fn run(&self) -> ExitCode {
        let mut broken = false;
        for recipe in recipes().filter(|name| self.recipe.as_deref().is_none_or(|one| one == *name))
        {
            if self.trace {
                print!("{}", explain(recipe, self.from, self.mutant));
                continue;
            }
            broken |= self.storms(recipe);
        }
        ExitCode::from(u8::from(broken))
    }

    /// Runs all schedules of a recipe on all processors, and tells of the first that broke a promise.
    fn storms(&self, recipe: &str) -> bool {
        let begun = Instant::now();
        let next = AtomicU64::new(self.from);
        let sum = Mutex::new(Counts::new());
        let failed = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.from + self.seeds {
                    return;
                }
                let outcome = simulate(recipe, seed, self.mutant);
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                for (what, count) in outcome.counts {
                    *sum.entry(what).or_default() += count;
                }
                if let Some(violation) = outcome.violation {
                    println!("{recipe} {seed}: {violation}");
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.insert(seed, violation);
                }
            }
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..processors {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!(
            "{recipe}: {} schedules from seed {} in {:.1?}, {} of them broke a promise: {sum:?}",
            self.seeds,
            self.from,
            begun.elapsed(),
            failed.len()
        );
        if let Some(seed) = failed.keys().next() {
            println!("{}", explain(recipe, *seed, self.mutant));
        }
        !failed.is_empty()
    }
}

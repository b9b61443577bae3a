//! Many schedules of the simulator, on all processors.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use proof::simulate::{Counts, explain, recipes, simulate};
use quorate::mutant::Mutant;

/// Which schedules.
#[derive(clap::Args)]
pub(crate) struct Options {
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

fn mutant(name: &str) -> Result<Mutant, String> {
    let named = |mutant: &Mutant| format!("{mutant:?}") == name;
    let found = Mutant::ALL.into_iter().find(named);
    found.ok_or_else(|| format!("there are {:?}", Mutant::ALL))
}

/// Runs them, recipe by recipe.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    options.run()
}

impl Options {
    fn run(&self) -> Result<(), String> {
        let mut broken = false;
        for recipe in recipes().filter(|name| self.recipe.as_deref().is_none_or(|one| one == *name))
        {
            if self.trace {
                print!("{}", explain(recipe, self.from, self.mutant));
                continue;
            }
            broken |= self.storms(recipe);
        }
        if broken {
            return Err("a promise was broken".to_owned());
        }
        Ok(())
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

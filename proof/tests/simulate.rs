//! Simulated schedules of every recipe.

use proof::simulate::{digest, explain, recipes, simulate};

#[test]
fn no_schedule_breaks_a_promise() {
    let from = number("FROM").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(100);
    for recipe in recipes() {
        let mut sum = std::collections::BTreeMap::new();
        for seed in from..from + seeds {
            let outcome = simulate(recipe, seed, None);
            if outcome.violation.is_some() {
                panic!("{}", explain(recipe, seed, None));
            }
            for (what, count) in outcome.counts {
                *sum.entry(what).or_insert(0) += count;
            }
        }
        println!("{recipe}: {sum:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for recipe in recipes() {
        for seed in 0..20 {
            assert_eq!(
                digest(recipe, seed),
                digest(recipe, seed),
                "{recipe} {seed}"
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

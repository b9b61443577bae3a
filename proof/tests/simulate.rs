//! Simulated schedules of every recipe.

use std::collections::BTreeMap;

use proof::simulate::{digest, explain, recipes, simulate};

/// How many schedules of each recipe.
const SEEDS: u64 = 560;

macro_rules! schedules {
    ($($recipe:ident $what:literal;)*) => {
        /// No schedule breaks a promise.
        mod no_schedule_breaks_a_promise {
            $(#[test]
            fn $recipe() {
                super::all_keep(stringify!($recipe), $what);
            })*
        }

        #[test]
        fn every_recipe_has_its_schedules() {
            let tested = [$(stringify!($recipe)),*];
            assert_eq!(recipes().collect::<Vec<_>>(), tested);
        }
    };
}

// With what must have happened, lest a promise is kept because nothing put it to the test.
schedules! {
    config "changes,followed,reads,refused,rejections,set,shown,updated";
    detached "acquired,cancelled,found,given back,kept,refused,refused writes,released,renewed,written";
    elector "asked to stop,at risk,cancelled,dawdled,ended,panicked,refused writes,seen,terms,written";
    ephemeral "cancelled,conflicts,created,gaps,interfered,judged dead,judged timed,made,present,refreshed,released,set,taken";
    hold "acquired,broken,cancelled,closed clients,closed sessions,cut releases,lost,proclaimed,refused,refused writes,released,strangers,written";
    kv "pages,reads,refused,unknown,written";
    observe "changes,compacted,cut reads,ended,later resets,resets,resumed,waited,watched,written";
    registry "changes,closed clients,over,picks,registered,released,set,snapshots,tracked";
    session "cancelled,closed,expired,replaced,sessions,unreachable";
}

fn all_keep(recipe: &str, expected: &str) {
    let from = number("FROM").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let mut sum = BTreeMap::new();
    for seed in from..from + seeds {
        let outcome = simulate(recipe, seed, None);
        if outcome.violation.is_some() {
            panic!("{}", explain(recipe, seed, None));
        }
        for (what, count) in outcome.counts {
            *sum.entry(what).or_insert(0_u64) += count;
        }
    }
    println!("{recipe}: {sum:?}");
    let count = |what: &&str| sum.get(what).copied().unwrap_or_default();
    let seldom = expected.split(',').filter(|what| count(what) < seeds / 100);
    let seldom: Vec<_> = seldom.collect();
    assert!(seldom.is_empty(), "{seldom:?} hardly happened: {sum:?}");
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

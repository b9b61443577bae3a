//! Simulated schedules of every recipe.

use std::collections::BTreeMap;

use proof::simulate::{digest, explain, recipes, simulate};

/// How many schedules of each recipe.
const SEEDS: u64 = 560;

macro_rules! schedules {
    ($($recipe:ident $what:expr;)*) => {
        /// No schedule breaks a promise.
        mod no_schedule_breaks_a_promise {
            $(#[test]
            fn $recipe() {
                super::all_keep(stringify!($recipe), &$what);
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
    config [];
    detached [];
    elector [];
    ephemeral [];
    hold [];
    kv [];
    observe [];
    registry [];
    session [];
}

fn all_keep(recipe: &str, expected: &[&str]) {
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
    let often = |what: &&&str| sum.get(**what).is_some_and(|count| *count >= seeds / 100);
    let seldom: Vec<_> = expected.iter().filter(|what| !often(what)).collect();
    assert!(seldom.is_empty(), "{seldom:?} hardly happened: {sum:?}");
}

/// Schedules that broke a promise once, and by what.
const REGRESSIONS: [(&str, u64, &str); 11] = [
    (
        "config",
        1138,
        "who had caught up by a watch of its own was stale until the next change",
    ),
    (
        "observe",
        90,
        "a watch of a revision to come took its start for one that it had seen",
    ),
    (
        "observe",
        121,
        "what was kept from the oldest on was counted from an older watch of others",
    ),
    (
        "observe",
        489,
        "a watch of a revision to come took its start for one that it had seen",
    ),
    (
        "registry",
        13,
        "a key whose lease had gone was reported as not found",
    ),
    (
        "session",
        1,
        "a lease was asked for beyond the deadline of calls",
    ),
    (
        "session",
        1284,
        "a session closed when it was made was waited for anew",
    ),
    (
        "session",
        3405,
        "a session closed when it was made was waited for anew",
    ),
    (
        "ephemeral",
        342,
        "a key stayed away for what had kept its owner from the store before",
    ),
    (
        "elector",
        0,
        "nobody was told that a term was over whose task had ended",
    ),
    (
        "detached",
        1250,
        "a renewal failed whose new lease ended on the way",
    ),
];

#[test]
fn what_broke_a_promise_once_keeps_it() {
    for (recipe, seed, cause) in REGRESSIONS {
        let outcome = simulate(recipe, seed, None);
        assert_eq!(outcome.violation, None, "{recipe} {seed}: {cause}");
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

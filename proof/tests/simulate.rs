//! Simulated schedules of every recipe.

use proof::simulate::{digest, explain, recipes, simulate};

#[test]
fn no_schedule_breaks_a_promise() {
    let from = number("FROM").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(100);
    for recipe in recipes() {
        let mut sum = std::collections::BTreeMap::new();
        for seed in from..from + seeds {
            let outcome = simulate(recipe, seed);
            if outcome.violation.is_some() {
                panic!("{}", explain(recipe, seed));
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

/// Schedules that once broke a promise.
const BROKEN_ONCE: [(&str, u64, &str); 6] = [
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
fn what_was_broken_once_is_not_any_more() {
    for (recipe, seed, how) in BROKEN_ONCE {
        let outcome = simulate(recipe, seed);
        assert_eq!(outcome.violation, None, "{recipe} {seed}: {how}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

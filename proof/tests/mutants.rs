//! Bugs that are planted into the library: simulated schedules find every one of them.

use std::{collections::BTreeSet, fs};

use proof::simulate::simulate;
use quorate::mutant::Mutant;

/// Which recipe finds which bug, and within how many schedules at most.
const FOUND: [(Mutant, &str, u64); 26] = [
    (Mutant::DeadlineFromReceipt, "session", 40),
    (Mutant::NoDriftMargin, "session", 20),
    (Mutant::NoDriftMargin, "detached", 20),
    (Mutant::NoDriftMargin, "elector", 100),
    (Mutant::NoDriftMargin, "ephemeral", 40),
    (Mutant::NoDriftMargin, "registry", 20),
    (Mutant::OwnKeyNotVerified, "hold", 300),
    (Mutant::OwnKeyUnwatched, "hold", 20),
    (Mutant::OwnKeyUnwatched, "elector", 20),
    (Mutant::OrphanOnCancel, "hold", 20),
    (Mutant::OrphanOnCancel, "elector", 20),
    (Mutant::OrphanOnCancel, "detached", 20),
    (Mutant::WatchNotResumed, "hold", 20),
    (Mutant::WatchNotResumed, "elector", 20),
    (Mutant::WatchNotResumed, "ephemeral", 20),
    (Mutant::WatchNotResumed, "observe", 20),
    (Mutant::WatchNotResumed, "registry", 20),
    (Mutant::WatchResumedLate, "observe", 20),
    (Mutant::WatchResumedLate, "config", 100),
    (Mutant::UnfencedRelease, "ephemeral", 200),
    (Mutant::BlindRetry, "kv", 20),
    (Mutant::BlindRetry, "hold", 40),
    (Mutant::EventTwice, "observe", 20),
    (Mutant::ResetMissed, "observe", 20),
    (Mutant::HealOverAnother, "ephemeral", 20),
    (Mutant::TaskNotJoined, "elector", 20),
];

#[test]
fn every_bug_is_found() {
    for (mutant, recipe, within) in FOUND {
        let mut seeds = 0..within;
        let found = seeds.find(|seed| simulate(recipe, *seed, Some(mutant)).violation.is_some());
        assert!(
            found.is_some(),
            "{recipe} does not find {mutant:?} in {within} schedules"
        );
    }
    let known: BTreeSet<_> = FOUND.iter().map(|(mutant, ..)| *mutant).collect();
    assert_eq!(known, Mutant::ALL.into_iter().collect());
}

#[test]
fn the_table_says_so() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../RELIABILITY.md");
    let text = fs::read_to_string(text).expect("the table is there");
    for (mutant, recipe, within) in FOUND {
        let row = format!("| `{mutant:?}` | {recipe} | {within} |");
        assert!(text.contains(&row), "RELIABILITY.md lacks {row}");
    }
}

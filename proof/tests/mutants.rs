//! Bugs that are planted into the library: simulated schedules find every one of them.

use std::{collections::BTreeSet, fs};

use proof::simulate::simulate;
use quorate::mutant::Mutant::{self, *};

/// Which recipe finds which bug, and within how many schedules at most.
const FOUND: [(Mutant, &str, u64); 0] = [];

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

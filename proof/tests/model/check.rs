//! Runs the checker, and tells what it found.

use std::time::Instant;

use stateright::{Checker, Expectation, Model};

use crate::protocol::{Mutant, Protocol, Value};

impl Protocol {
    pub(crate) const fn new(ticks: u8, acquires: u8, troubles: u8, value: Value) -> Self {
        Self {
            ttl: 3,
            ticks,
            acquires,
            troubles,
            early: false,
            value,
            mutant: None,
            only: None,
            mirror: false,
        }
    }

    /// Visits every state, and fails if one breaks a promise, or if a witness is missing.
    #[track_caller]
    pub(crate) fn exhaust(self) {
        let protocol = Self {
            ticks: bound("HORIZON", self.ticks),
            acquires: bound("ACQUIRES", self.acquires),
            troubles: bound("TROUBLES", self.troubles),
            mirror: true,
            ..self
        };
        let start = Instant::now();
        let checker = protocol.checker().threads(2).spawn_bfs().join();
        println!(
            "{} states, {} steps deep, {:.1?}: {protocol:?}",
            checker.unique_state_count(),
            checker.max_depth(),
            start.elapsed(),
        );
        for property in protocol.properties() {
            let found = checker.discovery(property.name);
            match property.expectation {
                Expectation::Sometimes => assert!(found.is_some(), "never: {}", property.name),
                _ => {
                    if found.is_some() {
                        let steps = self.shortest(property.name);
                        panic!("{} is broken in {steps} steps", property.name);
                    }
                }
            }
        }
        assert!(checker.is_done());
    }

    /// Finds the shortest way to break this promise, and tells how many steps it has.
    #[track_caller]
    pub(crate) fn shortest(self, promise: &'static str) -> usize {
        let protocol = Self {
            only: Some(promise),
            ..self
        };
        let start = Instant::now();
        // One thread visits the states in the order of their distance.
        let checker = protocol.checker().spawn_bfs().join();
        let states = checker.unique_state_count();
        let Some(path) = checker.discovery(promise) else {
            panic!("{promise:?} holds in all {states} states of {protocol:?}");
        };
        let steps = path.into_actions();
        println!(
            "{} steps, {states} states, {:.1?}: {protocol:?}",
            steps.len(),
            start.elapsed()
        );
        for step in &steps {
            println!("  {}", step.describe());
        }
        steps.len()
    }

    /// With a value that is protected in this way.
    pub(crate) fn of(self, value: Value) -> Self {
        Self { value, ..self }
    }

    pub(crate) fn with(self, mutant: Mutant) -> Self {
        Self {
            mutant: Some(mutant),
            ..self
        }
    }
}

/// A bound that the environment may set.
fn bound(name: &str, otherwise: u8) -> u8 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a bound is a small number"),
        Err(_) => otherwise,
    }
}

//! Stores to measure.
#![allow(dead_code)] // each bench uses a part

use quorate_engine::{Op, Store, Txn};

/// One key of many.
pub(crate) fn key(number: usize) -> String {
    format!("key/{number:012}")
}

/// A store with so many keys.
pub(crate) fn filled(keys: usize) -> Store {
    let mut store = Store::new(1, 1);
    let numbers: Vec<usize> = (0..keys).collect();
    for some in numbers.chunks(100) {
        let puts = some.iter().map(|number| Op::put(key(*number), "value"));
        let txn = puts.fold(Txn::new(), Txn::then);
        store.txn(&txn).expect("they are written");
    }
    store
}

/// Numbers in an order that no cache foresees, the same in every run.
pub(crate) struct Numbers {
    below: usize,
    state: u64,
}

impl Numbers {
    pub(crate) fn below(below: usize) -> Self {
        Self { below, state: 1 }
    }

    pub(crate) fn next(&mut self) -> usize {
        // Knuth's constants for a linear congruence; the high bits are the better ones.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.state >> 33) as usize % self.below
    }
}

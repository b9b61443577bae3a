//! How much memory does a key take, and each further revision of one?
//!
//! Keys of 16 bytes, values of 64. It measures what the process has resident, so it needs Linux.

mod support;

use std::fs;

use quorate_engine::{Op, Store, Txn};
use support::key;

const KEYS: usize = 1_000_000;

fn main() {
    let value = "v".repeat(64);
    let mut store = Store::new(1, 1);
    let mut put = |number: usize| {
        let put = Txn::new().then(Op::put(key(number), value.clone()));
        store.txn(&put).expect("it is written");
    };
    let empty = resident();
    (0..KEYS).for_each(&mut put);
    let once = resident();
    (0..KEYS).for_each(&mut put);
    let twice = resident();
    let each = |bytes: u64| bytes / KEYS as u64;
    println!(
        "a key with its first revision: {} bytes",
        each(once - empty)
    );
    println!(
        "each further revision of a key: {} bytes",
        each(twice - once)
    );
}

/// The bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let of_line = |line: &str| {
        line.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let kib: Option<u64> = status.lines().find_map(of_line);
    kib.expect("it is told") * 1024
}

//! The store in memory, our server and a real etcd answer the same: random programs run on all three,
//! and every answer, refusal and event is compared. Server and etcd are asked over the network, by the
//! same client.
//!
//! A program is made from a seed as it goes, from what the store in memory answered so far, so the same
//! seed makes the same program. `QUORATE_OPS` says how many operations are done in all,
//! `QUORATE_FIRST_SEED` with which seed the programs begin, and `QUORATE_SEED` runs the one program of
//! that seed alone. `cargo xtask differential` runs programs that nobody has run before.
//!
//! # What is not compared
//!
//! - Ids of clusters and members, terms, byte sizes, and how events are put into batches.
//! - How much time a lease has left; leases are long enough not to expire, and not to be raised.
//! - The order in which leases, and the keys of a lease, are listed.
//! - The order of keys that are equal under a sort of more than twelve keys, and with a limit which of
//!   them are returned: etcd's sort is not stable.
//!
//! # What is not done
//!
//! - A compaction while a watch of etcd may still be catching up with the past: what it misses is a
//!   matter of timing.
//! - A put that keeps value or lease, in a transaction that deletes to the end: it can panic etcd.
//! - A compaction at a revision that changed a key twice: etcd 3.5 dies of the next read.
//! - With etcd 3.4, a watch from a negative revision, which 3.4 takes for the present one, and a watch
//!   from the very revision of the last compaction if that deleted keys, which 3.4 does not tell.
#![cfg(feature = "etcd")]
#![allow(unreachable_pub, clippy::unwrap_used)] // here a panic is a failed test

#[path = "../support/mod.rs"]
mod support;

mod auth;
mod compare;
mod program;
mod run;

use std::{
    env,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use support::etcd;

/// How many operations are done on each store unless `QUORATE_OPS` says otherwise.
const OPS: usize = 12_500;

/// How many operations one program has, on an etcd of its own.
const PROGRAM: usize = 2_500;

/// How many programs run at a time.
const WORKERS: usize = 2;

/// The seed of the first program unless `QUORATE_FIRST_SEED` says otherwise.
const FIRST_SEED: u64 = 0;

#[test]
fn the_store_in_memory_and_the_server_do_what_a_real_etcd_does() {
    compare_with(&etcd::server());
}

#[test]
fn the_store_in_memory_and_the_server_do_what_etcd_3_5_does() {
    for_etcd_35(compare_with);
}

#[test]
fn the_books_of_users_and_roles_are_kept_as_a_real_etcd_keeps_them() {
    auth::compare_with(&etcd::server());
}

#[test]
fn the_books_of_users_and_roles_are_kept_as_etcd_3_5_keeps_them() {
    for_etcd_35(auth::compare_with);
}

fn for_etcd_35(test: fn(&Path)) {
    match etcd::server_35() {
        Some(server) => test(&server),
        None => eprintln!("not compared with etcd 3.5: ETCD_BIN_35 names none"),
    }
}

/// Runs programs until enough operations are done.
fn compare_with(server: &Path) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect(name));
    let ops = number("QUORATE_OPS").map_or(OPS, |ops: u64| ops as usize);
    if let Some(seed) = number("QUORATE_SEED") {
        return run::program(server, seed, ops);
    }
    let programs = ops.div_ceil(PROGRAM) as u64;
    let first = number("QUORATE_FIRST_SEED").unwrap_or(FIRST_SEED);
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + programs {
                return;
            }
            run::program(server, seed, PROGRAM.min(ops));
        }
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
}

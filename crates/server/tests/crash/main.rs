//! A server that is killed at any moment loses nothing that it told anybody.
//!
//! Each round lets clients write, read and watch, kills the server, starts it again on the same
//! directory and compares what it then says with all that was told in the rounds before. Five rounds
//! are run as a test; `cargo xtask crash` runs more. The process to be killed is this one, started
//! anew with a directory in its environment.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod check;
mod clients;
mod process;
mod told;

use std::{env, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::{check::check, clients::Clients, process::Process, told::Told};

/// How many rounds are run.
const ROUNDS: &str = "QUORATE_ROUNDS";

/// The seed of them.
const SEED: &str = "QUORATE_SEED";

/// How many rounds use one directory.
const ROUNDS_OF_A_DIRECTORY: u64 = 10;

/// How long the clients are left alone at most.
const LONGEST_ROUND: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_that_it_told() {
    if let Some(directory) = env::var_os(process::DIRECTORY) {
        return process::serve(directory.into()).await;
    }
    let rounds = number(ROUNDS).unwrap_or(5);
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    println!("{rounds} rounds, {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut total = 0;
    let mut left = rounds;
    while left > 0 {
        let in_this = left.min(ROUNDS_OF_A_DIRECTORY);
        total += run(&mut random, in_this).await;
        left -= in_this;
        println!(
            "{} rounds done, {total} changes told and kept",
            rounds - left
        );
    }
    assert!(total > 0, "nothing was told");
}

/// Runs rounds on a directory, and returns how many changes were told.
async fn run(random: &mut fastrand::Rng, rounds: u64) -> usize {
    let directory = TempDir::new().unwrap();
    let told = Arc::new(Told::default());
    for round in 0..rounds {
        if random.u8(..) < 50 {
            // At its start it is at its most delicate, the more so if it was not there before.
            let process = Process::spawn(directory.path());
            sleep(Duration::from_millis(random.u64(..40))).await;
            process.kill().await;
        }
        let mut process = Process::spawn(directory.path());
        let url = process.url().await;
        check(&url, &told).await;
        let clients = Clients::start(&url, &told, round, random).await;
        sleep(Duration::from_millis(random.u64(..LONGEST_ROUND))).await;
        process.kill().await;
        clients.end().await;
    }
    let mut process = Process::spawn(directory.path());
    check(&process.url().await, &told).await;
    process.kill().await;
    told.count()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

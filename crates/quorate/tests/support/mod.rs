//! What tests need around them: real etcd servers, certificates, and a faulty network.
#![allow(dead_code)] // each test program uses a part
#![allow(unreachable_pub, clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // tests stand outside the client and its runtime

pub mod certificates;
pub mod etcd;
pub mod lagging;
pub mod machine;
pub mod proxy;
pub mod world;

use std::{env, future::Future, time::Duration};

/// Waits until `condition` holds, and fails the test if it does not within 30 s.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let patience = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(patience.await.is_ok(), "waited in vain until {what}");
}

/// Runs random schedules on paused time: that of the variable `SEED` alone, or from zero as many as
/// `SEEDS` says.
pub fn each_seed<F: Future<Output = ()>>(default: u64, run: impl Fn(u64) -> F) {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    };
    for seed in seeds {
        println!("SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}

/// The number in an environment variable, if it is set.
pub fn number(variable: &str) -> Option<u64> {
    Some(env::var(variable).ok()?.parse().unwrap())
}

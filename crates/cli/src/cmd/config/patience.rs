//! Waiting for a store that is not there yet.

use std::time::Duration;

use quorate::{Client, KeyRange, Range, Result};
use tokio::time::sleep;

use crate::failure::complain;

/// Waits until the store answers, and says so if it does not at once.
pub(super) async fn reach(client: &Client, keys: &KeyRange) -> Result<()> {
    let mut told = false;
    loop {
        let probe = Range::new(keys.clone()).keys_only().limit(1);
        match client.range(probe).await {
            Err(error) if error.is_retryable() => wait(&error, &mut told).await,
            answer => return answer.map(drop),
        }
    }
}

/// Waits a little before the next attempt; says why, but once.
pub(super) async fn wait(error: &quorate::Error, told: &mut bool) {
    if !*told {
        complain(&format!("{error}; it is waited for"));
        *told = true;
    }
    sleep(Duration::from_secs(1)).await;
}

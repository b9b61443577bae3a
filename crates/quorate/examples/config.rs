//! A service that takes a new value without a restart, and keeps the last good one.
//!
//! `cargo run --features config --example config [URL]`; the URL is `mem:` if none is given.

use std::time::Duration;

use quorate::{Client, Result, Update};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
struct Limits {
    requests_per_second: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-config");
    let limits = client
        .config::<Limits>("limits.toml")
        .validate(|limits: &Limits| match limits.requests_per_second {
            0 => Err("at least one request a second"),
            _ => Ok(()),
        })
        .debounce(Duration::from_millis(50));
    limits
        .set(&Limits {
            requests_per_second: 100,
        })
        .await?;

    let mut watch = limits.watch().await?;
    println!("serving with {:?}", watch.current());

    // What somebody does elsewhere: by this library, or `quorate config edit limits.toml`.
    let operator = async {
        limits
            .update(|limits| limits.requests_per_second *= 2)
            .await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.put("limits.toml", "requests_per_second = 0").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.put("limits.toml", "requests_per_second = 300").await
    };
    let service = async {
        loop {
            match watch.next().await? {
                Update::Changed(limits) => println!("now with {limits:?}"),
                Update::Rejected(rejected) => println!("not taken: {rejected}"),
                _ => {}
            }
            if watch.current().requests_per_second == 300 {
                return Ok(());
            }
        }
    };
    tokio::try_join!(operator, service).map(drop)
}

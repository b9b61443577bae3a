//! A job that runs wherever the leader is, three times over, and moves when the leader is lost.
//!
//! `cargo run --example elector [URL]`; the URL is `mem:` if none is given.

use std::time::Duration;

use quorate::{Client, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-elector");

    let rounds = client
        .election("cleaner")
        .value("this process")
        .run(|term| async move {
            let mut rounds = 0;
            while rounds < 3 {
                tokio::select! {
                    () = term.stopping() => break,
                    () = tokio::time::sleep(Duration::from_millis(100)) => rounds += 1,
                }
                println!("round {rounds} under token {}", term.token());
            }
            rounds
        })
        .await?;
    println!("done after {rounds} rounds");
    client.close().await
}

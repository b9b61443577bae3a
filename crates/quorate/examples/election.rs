//! Two candidates: the second leads when the first steps down, and an observer sees it all.
//!
//! `cargo run --example election [URL]`; the URL is `mem:` if none is given.

use futures_util::StreamExt;
use quorate::{Client, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-election");

    let mut leaders = client.election("scheduler").observe();
    println!(
        "at first: {:?}",
        leaders.next().await.transpose()?.flatten()
    );

    let first = client
        .election("scheduler")
        .value("10.0.0.1:9000")
        .campaign()
        .await?;
    println!("leads: {}", leader(&mut leaders).await?);

    let rival = client.clone();
    let second = tokio::spawn(async move {
        rival
            .election("scheduler")
            .value("10.0.0.2:9000")
            .campaign()
            .await
    });
    first.resign().await?;
    let second = second.await.expect("the candidate does not panic")?;
    while leader(&mut leaders).await? != "10.0.0.2:9000" {}
    println!("leads: 10.0.0.2:9000 under token {}", second.token());
    second.resign().await?;
    client.close().await
}

/// The next leader's value.
async fn leader(leaders: &mut quorate::Leaders) -> Result<String> {
    loop {
        if let Some(leader) = leaders.next().await.transpose()?.flatten() {
            return Ok(leader.value.to_string());
        }
    }
}

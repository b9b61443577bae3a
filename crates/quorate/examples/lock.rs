//! Several workers take turns under one lock, and write only what its fence lets through.
//!
//! `cargo run --example lock [URL]`; the URL is `mem:` if none is given.

use quorate::{Client, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-lock");
    client.delete("total").await?;

    let mut workers = Vec::new();
    for worker in 1..=4 {
        let client = client.clone();
        workers.push(tokio::spawn(async move { work(&client, worker).await }));
    }
    for worker in workers {
        worker.await.expect("a worker does not panic")?;
    }

    let total = client.get("total").await?.map(|kv| kv.value.to_string());
    println!("total: {}", total.unwrap_or_default());
    client.close().await
}

async fn work(client: &Client, worker: u32) -> Result<()> {
    for _ in 0..3 {
        let guard = client
            .lock("turns")
            .holder(format!("worker {worker}"))
            .acquire()
            .await?;
        let total = guard.fenced("total");
        let before: u32 = match total.get().await? {
            Some(kv) => kv
                .value
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            None => 0,
        };
        total.set((before + 1).to_string()).await?;
        println!(
            "worker {worker} under token {}: {before} -> {}",
            guard.token(),
            before + 1
        );
        guard.release().await?;
    }
    Ok(())
}

//! Workers that are listed as long as they live, one of which is deleted by hand and comes back.
//!
//! `cargo run --example ephemeral [URL]`; the URL is `mem:` if none is given.

use quorate::{Client, EphemeralState, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-ephemeral");

    let _running = client.temp_key("app").await?;
    let mut first = client.ephemeral("workers/1").create("idle").await?;
    let second = client.ephemeral("workers/2").create("idle").await?;
    first.set("busy").await?;
    list(&client, "two workers").await?;

    client.delete("workers/1").await?;
    loop {
        match first.changed().await {
            EphemeralState::Lost(loss) => {
                println!("somebody else has it: {loss}");
                break;
            }
            EphemeralState::Present { token } => {
                println!("worker 1 is back under token {token}");
                break;
            }
            _ => println!("worker 1 was deleted by hand"),
        }
    }
    list(&client, "two workers again").await?;

    second.release().await?;
    list(&client, "one worker").await?;
    client.close().await?; // and with it the rest
    println!("in the end: {:?}", first.lost().await);
    Ok(())
}

async fn list(client: &Client, title: &str) -> Result<()> {
    println!("{title}:");
    for kv in client.list("workers/").await? {
        println!("  {} = {}", kv.key, kv.value);
    }
    Ok(())
}

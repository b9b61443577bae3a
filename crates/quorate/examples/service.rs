//! Two instances of a service register; a client tracks them as they come, drain and go.
//!
//! `cargo run --example service [URL]`; the URL is `mem:` if none is given.

use quorate::{Change, Client, Instance, Result, Strategy};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-service");
    let api = client.service("api").take_over();

    let mut tracker = api.track().await?;
    println!("at first there are {}", tracker.snapshot().len());

    let first = Instance::new("10.0.0.1:8080").meta("zone", "a");
    let mut first = api.register("api-1", first).await?;
    tell(tracker.next().await?);
    let second = Instance::new("10.0.0.2:8080").meta("zone", "b");
    let second = api.register("api-2", second).await?;
    tell(tracker.next().await?);

    let picker = tracker.picker(Strategy::RoundRobin);
    for call in 1..=4 {
        if let Some(pick) = picker.pick() {
            println!("call {call} goes to {}", pick.instance().address);
            pick.succeeded(); // or failed(), and it is left alone for a while
        }
    }

    first.drain().await?; // no new calls
    tell(tracker.next().await?);
    first.release().await?;
    tell(tracker.next().await?);
    second.release().await?;
    tell(tracker.next().await?);
    client.close().await
}

fn tell(change: Change) {
    match change {
        Change::Joined(id, instance) => {
            let zone = instance.metadata("zone").unwrap_or_default();
            println!("{id} joined at {} in zone {zone}", instance.address);
        }
        Change::Updated(id, instance) if instance.draining => println!("{id} drains"),
        Change::Updated(id, _) => println!("{id} changed"),
        Change::Left(id) => println!("{id} left"),
    }
}

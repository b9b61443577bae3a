//! How a cluster is, and then each change of that for ten seconds: stop a member and start it again.
//!
//! `cargo run --example health [URL]`; the URL is `mem:` if none is given.

use std::time::Duration;

use quorate::{Client, Health, HealthReport, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?;

    let report = client.health().check().await;
    for member in &report.members {
        match (&member.status, &member.error) {
            (Some(status), _) => println!(
                "{}: etcd {}, {} bytes{}",
                member.label,
                status.version,
                status.db_size,
                if member.is_leader { ", leads" } else { "" },
            ),
            (None, Some(error)) => println!("{}: {error}", member.label),
            (None, None) => println!("{}: not asked", member.label),
        }
    }

    let mut monitor = client.health().every(Duration::from_secs(1)).monitor();
    let follow = async {
        loop {
            tell(&*monitor.changed().await?);
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), follow).await {
        Ok(ended) => ended,
        Err(_) => client.close().await,
    }
}

fn tell(report: &HealthReport) {
    match report.health {
        Health::Up => println!("up: acquire and serve"),
        Health::Degraded => println!("degraded: go on, and call somebody"),
        Health::Down => println!("down: start nothing new"),
    }
    for reason in &report.reasons {
        println!("  {reason}");
    }
}

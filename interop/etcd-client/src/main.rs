//! Asks an etcd v3 endpoint everything that the crate `etcd-client` can ask, and prints the answers.
//!
//! What it prints of a real etcd and of our server must be equal: `cargo xtask test` compares it. The
//! store must be fresh, since revisions are printed as they are. Left out or masked is what no two
//! stores have in common, such as ids of members, and what `transcript` names.
//!
//! usage: interop-etcd-client ENDPOINT VERSION, with the version of the etcd to be compared with: what
//! came after it is not asked.

mod auth;
mod kv;
mod lease;
mod maintenance;
mod recipes;
mod transcript;
mod watch;

use std::{env, time::Duration};

use etcd_client::Client;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let mut arguments = env::args().skip(1);
    let (Some(endpoint), Some(version)) = (arguments.next(), arguments.next()) else {
        return Err("usage: interop-etcd-client ENDPOINT VERSION".into());
    };
    let is_35 = !version.starts_with("3.4");
    tokio::time::timeout(PATIENCE, run(&endpoint, is_35)).await?
}

async fn run(endpoint: &str, is_35: bool) -> Result {
    let mut client = Client::connect([endpoint], None).await?;
    kv::run(&mut client).await?;
    watch::run(&mut client).await?;
    lease::run(&mut client).await?;
    recipes::run(&mut client).await?;
    maintenance::run(&mut client, is_35).await?;
    auth::run(&mut client, endpoint, is_35).await
}

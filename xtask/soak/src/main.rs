//! Many watchers and writers against a server in a process of its own, for long.
//!
//! - Every watcher sees every event of its range, in order, exactly once. Each key's versions count its
//!   writes, so a gap, a repetition or a wrong order shows at once. Some watchers hang up again and again,
//!   and go on where they were.
//! - What is old is compacted all the time.
//! - Two clients stop reading, one its stream, one its socket.
//! - The memory of the server stays what it was once it is warm.
//!
//! usage: soak SECONDS; `soak serve` is the server.
#![allow(clippy::disallowed_methods)] // a program of its own, with its own runtime and clock

mod load;
mod memory;
mod server;
mod stalled;
mod watcher;
mod writer;

use std::{env, time::Duration};

use tonic::transport::{Channel, Endpoint};

use crate::server::Process;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T = ()> = std::result::Result<T, Error>;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => server::serve().await,
        [seconds] => {
            let server = Process::start()?;
            let span = Duration::from_secs(seconds.parse()?);
            load::run(&server.url, server.id(), span).await
        }
        _ => Err("usage: soak SECONDS".into()),
    }
}

async fn connect(endpoint: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(PATIENCE);
    Ok(endpoint.connect().await?)
}

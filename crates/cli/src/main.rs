//! The command line of quorate.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use quorate::Client;

mod args;
mod child;
mod cmd;
mod connection;
mod detached;
mod etcd_test;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guardian;
mod hold;
mod hook;
mod output;
mod owned;
mod signals;
mod tree;

use crate::{
    args::{Args, Connect, Verb},
    failure::{Failure, invalid},
    output::{Format, Output},
};

fn main() -> ExitCode {
    if let Some(call) = etcd_test::Call::find(std::env::args_os()) {
        return call.run();
    }
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return failure::usage(&error),
    };
    // The guardian must not share the fate of what it guards against: no runtime, no threads.
    if let Verb::Guardian = args.verb {
        return guardian::run();
    }
    if let Verb::Dev(dev) = args.verb {
        if args.connect != Connect::default() || args.output != Format::Text {
            let error = invalid(
                "dev starts a server: it takes no option of a connection, and no --output; \
                 see quorate dev --help",
            );
            return Failure::Store(error).report(&[]);
        }
        return cmd::dev::run(dev);
    }
    match args.verb {
        // It needs nothing, whatever the environment says.
        Verb::Demo if args.connect.url.is_none() && args.connect.servers.is_empty() => {
            args.connect.url = Some("mem:".to_owned());
        }
        // To this verb it says how long to wait for the lock, wherever it stands.
        Verb::Lock(_) => args.connect.timeout = None,
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Failure::System(error).report(&[]),
    }
}

/// Connects, runs the verb, and gives back what it held.
async fn run(args: Args) -> ExitCode {
    let options = connection::options(&args.connect, connection::environment);
    let client = match options {
        Ok(options) => Client::connect(options).await,
        Err(error) => Err(error),
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return Failure::Store(error).report(&[]),
    };
    let mut out = Output::new(args.output);
    let done = cmd::run(&client, &mut out, args.verb).await;
    let done = done.and_then(|code| out.flush().map(|()| code));
    // Best effort: a session that is not closed ends by itself.
    let _ = tokio::time::timeout(Duration::from_secs(1), client.close()).await;
    done.unwrap_or_else(|failure| failure.report(&client.endpoints()))
}

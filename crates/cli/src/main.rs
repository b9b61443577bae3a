//! The command line of quorate.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[expect(dead_code, reason = "for the verbs that run a command")]
mod child;
#[expect(dead_code, reason = "for the verbs that run a command")]
mod guardian;
#[expect(dead_code, reason = "for the verbs that run a command")]
mod signals;

#[derive(Debug, Parser)]
#[command(name = "quorate", version, about)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Guards the command of another quorate process.
    #[command(name = guardian::SUBCOMMAND, hide = true)]
    Guardian,
}

fn main() -> ExitCode {
    match Args::parse().verb {
        Verb::Guardian => guardian::run(),
    }
}

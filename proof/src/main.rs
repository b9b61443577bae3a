//! `proof simulate` and `proof torture`, behind `cargo xtask`.

use clap::{Parser, Subcommand};

/// Tries to break quorate's promises.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

fn main() {
    match Arguments::parse().command {}
}

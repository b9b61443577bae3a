//! `proof torture`, `proof check` and their kin, behind `cargo xtask`.

mod check;
mod history;
mod schedules;
mod soak;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tries to break quorate's promises.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs random schedules of faults in virtual time.
    Simulate(schedules::Options),
    /// Runs recipes on a real cluster under faults, and checks what they saw.
    Torture(torture::Options),
    /// Uses all recipes at once in one process for long, and looks whether anything leaks or does not converge.
    Soak(soak::Options),
    /// Checks the history of a run again.
    Check(check::Options),
    /// One process of a run.
    #[command(hide = true)]
    Worker(torture::worker::Options),
    /// Becomes another program that dies with its parent.
    #[command(hide = true)]
    Launch(torture::launch::Options),
    /// Keeps a network namespace.
    #[command(hide = true)]
    Namespace,
    /// Tries whether there can be a network of namespaces.
    #[command(hide = true)]
    TryNamespaces,
    /// Removes a directory when its input ends.
    #[command(hide = true)]
    Tidy(torture::data::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Simulate(options) => schedules::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Worker(options) => torture::worker::run(&options),
        Command::Launch(options) => torture::launch::run(&options),
        Command::Namespace => torture::launch::keep_namespace(),
        Command::TryNamespaces => torture::network::try_namespaces(),
        Command::Tidy(options) => torture::data::tidy(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("proof: {why}");
            ExitCode::FAILURE
        }
    }
}

//! Measures quorate on a real etcd: one scenario or all, one line of JSON each.
//!
//! # Layout
//!
//! - `bench`: what a scenario is given: a client, keys of its own, a bound on its time
//! - `figures`: what is measured, and how
//! - `exclusion`: looks whether two ever hold at once, and times hand-overs
//! - `scenarios`: one file a subject; its table names all of them

mod bench;
mod exclusion;
mod figures;
mod scenarios;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::{
    bench::Bench,
    figures::Figures,
    scenarios::{SCENARIOS, Scenario},
};

/// What a scenario may fail with.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// How long a scenario may take beyond its cap, for what is not measured.
const GRACE: Duration = Duration::from_secs(35);

/// Measures quorate on a real etcd, and prints one line of JSON for each scenario.
#[derive(Parser)]
#[command(name = "quorate-bench")]
struct Args {
    /// The etcd, as any address that quorate takes
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2379")]
    endpoint: String,
    /// A scenario, or all
    #[arg(long, value_name = "NAME", default_value = "all")]
    scenario: String,
    /// What is measured is cut short after so many seconds
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    seconds_cap: f64,
    /// Put the keys of a scenario there, and leave them: for what a scenario runs in another process
    #[arg(long, hide = true)]
    prefix: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| match args.scenario.as_str() {
            "all" => !scenario.hidden,
            name => scenario.name == name,
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().filter(|one| !one.hidden).collect();
        let names: Vec<_> = names.iter().map(|one| one.name).collect();
        eprintln!(
            "quorate-bench: there is no scenario {}; there are {}, and all of them",
            args.scenario,
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let Ok(cap) = Duration::try_from_secs_f64(args.seconds_cap) else {
        eprintln!("quorate-bench: --seconds-cap takes a number of seconds");
        return ExitCode::FAILURE;
    };
    let mut status = ExitCode::SUCCESS;
    for scenario in chosen {
        let outcome = run(scenario, &args, cap).await;
        let figures = outcome.unwrap_or_else(|error| {
            status = ExitCode::FAILURE;
            Figures::of("error", error.to_string())
        });
        println!("{}", figures.line(scenario));
    }
    status
}

/// Runs one scenario, and removes its keys.
async fn run(scenario: &Scenario, args: &Args, cap: Duration) -> Result<Figures> {
    let bench = Bench::new(&args.endpoint, scenario.name, args.prefix.as_deref(), cap).await?;
    let task = tokio::spawn((scenario.run)(bench.clone()));
    let outcome = match tokio::time::timeout(cap + GRACE, task).await {
        Ok(joined) => joined?,
        Err(_) => Err("it hangs: it should have ended long ago".into()),
    };
    if args.prefix.is_none() {
        bench.clean().await?;
    }
    outcome
}

//! Fuzzing, guided by coverage, with the stable compiler.

use std::{env, fs, process::Command};

use crate::{
    run::{cargo, output, root, run, target},
    tools::{install, locate},
};

/// How many minutes it takes unless told otherwise.
const MINUTES: f64 = 5.0;

/// What is fuzzed, each for an equal share of the time.
const TARGETS: [&str; 4] = ["authority", "connection", "json", "requests"];

/// What makes the compiler count for libFuzzer which code is run.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// How long one input may take, how long it may be, and how much memory all of them may take.
const LIMITS: [&str; 4] = [
    "-timeout=20",
    "-max_len=4096",
    "-len_control=0",
    "-rss_limit_mb=1024",
];

const NO_COMPILER: &str = "there is no C++ compiler here, which libFuzzer is built with";
const HOW_COMPILER: &str = "\
put c++ on the PATH, or set CXX to one; it comes from the package g++ of Debian and Ubuntu";

/// Fuzzes all targets, or the one that is named.
pub(crate) fn fuzz(flags: &[&str]) -> Result<(), String> {
    let (mut minutes, mut targets) = (MINUTES, TARGETS.to_vec());
    let mut flags = flags.iter();
    while let Some(&flag) = flags.next() {
        let number = (flag == "--minutes").then(|| flags.next()?.parse().ok());
        match number {
            Some(Some(number)) if number > 0.0 => minutes = number,
            None if TARGETS.contains(&flag) => targets = vec![flag],
            _ => {
                let targets = TARGETS.join("|");
                return Err(format!("usage: cargo xtask fuzz [--minutes N] [{targets}]"));
            }
        }
    }
    if locate("CXX", "c++").is_none() {
        install(&["g++"], NO_COMPILER, HOW_COMPILER)?;
    }
    let host = host()?;
    let built = target().join("fuzz");
    // With a target, so that what runs while building is built without coverage.
    run(cargo()
        .args(["build", "--release", "--locked", "--target", &host])
        .current_dir(root().join("fuzz"))
        .env("CARGO_TARGET_DIR", &built)
        .env("RUSTFLAGS", COVERAGE))?;
    let seconds = (minutes * 60.0 / targets.len() as f64).ceil();
    for name in targets {
        let corpus = built.join("corpus").join(name);
        fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
        let findings = format!("{}/found-{name}-", built.display());
        let mut fuzzer = Command::new(built.join(&host).join("release").join(name));
        fuzzer
            .arg(&corpus)
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={findings}"))
            .arg("-print_final_stats=1");
        run(&mut fuzzer).map_err(|why| {
            format!("{why}\nthe input is in {findings}*; run the same program on it to repeat it")
        })?;
    }
    Ok(())
}

/// What the compiler builds for here.
fn host() -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = output(Command::new(rustc).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc does not tell its host".to_owned())
}

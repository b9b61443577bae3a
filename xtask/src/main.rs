//! The chores of the workspace, each behind `cargo xtask <chore>`.
//!
//! This crate depends on nothing, so that every chore starts at once.
//!
//! # Layout
//!
//! - `differential`: compares the store in memory with a real etcd, at length
//! - `etcd`: finds the etcd that tests run against
//! - `generate`: generates the code of the wire crate and the C header
//! - `install`: puts the C library in place
//! - `lint`: everything that is checked without running the code
//! - `races`: the threaded test of the C library under a race detector
//! - `run`: runs commands
//! - `shared`: one etcd for all tests that are content with keys of their own
//! - `test`: everything
//! - `tools`: the compilers and interpreters that tests of the C library need

mod differential;
mod etcd;
mod generate;
mod install;
mod lint;
mod races;
mod run;
mod shared;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

chores:
  test [FILTER...]  run every test and every check; a filter runs the tests that match it, and no more
  lint              check format, lints, docs and generated code
  gen [--check]     generate the code of the wire crate and the C header, or check that they are up to date
  differential [--ops N] [--seed SEED]
                    compare the store in memory with a real etcd by random programs
  install --prefix DIR [--destdir DIR] [--debug]
                    build the C library and install it with headers, pkg-config file and manual page
  races [--helgrind]
                    run the threaded test of the C library under a race detector
  etcd              print the etcd that tests run against, installing it if that is possible";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["differential", flags @ ..] => differential::compare(flags),
        ["etcd"] => etcd::print(),
        ["install", flags @ ..] => install::install(flags),
        ["races", flags @ ..] => races::look(flags),
        ["gen", flags @ ..] => generate::generate(flags),
        ["lint"] => lint::run_all(),
        ["test", filters @ ..] => test::run_all(filters),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

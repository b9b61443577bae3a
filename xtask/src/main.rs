//! The chores of the workspace, each behind `cargo xtask <chore>`.
//!
//! This crate depends on nothing, so that every chore starts at once.
//!
//! # Layout
//!
//! - `bench`: what is measured: the library, the server, the engine
//! - `crash`: kills servers, which must lose nothing
//! - `differential`: compares the store in memory and the server with a real etcd, at length
//! - `etcd`: finds the etcd that tests run against
//! - `fuzz`: random input, guided by coverage
//! - `generate`: generates the code of the wire crate and the C header
//! - `install`: puts the C library in place
//! - `interop`: compares our server with a real etcd by the clients of others
//! - `lint`: everything that is checked without running the code
//! - `races`: the threaded test of the C library under a race detector
//! - `run`: runs commands
//! - `serve`: our server in a process of its own
//! - `shared`: one etcd for all tests that are content with keys of their own
//! - `simulate`: the recipes under random schedules of faults, in virtual time
//! - `soak`: all recipes in one process for long, or the server under load
//! - `test`: everything
//! - `tools`: finds programs, such as the compilers and interpreters that tests of the C library need
//! - `torture`: recipes on a real cluster under faults

mod bench;
mod crash;
mod differential;
mod etcd;
mod fuzz;
mod generate;
mod install;
mod interop;
mod lint;
mod races;
mod run;
mod serve;
mod shared;
mod simulate;
mod soak;
mod test;
mod tools;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

chores:
  test [FILTER...]  run every test and every check; a filter runs the tests that match it, and no more
  bench [--scenario NAME|all] [--seconds-cap S] [--endpoint URL]
                    measure the library on an etcd, one line of JSON a scenario
  bench --server [--scenario NAME|all]
                    the same on an etcd and on our server
  bench --engine [FILTER...]
                    measure the engine alone
  lint              check format, lints, docs and generated code
  gen [--check]     generate the code of the wire crate and the C header, or check that they are up to date
  differential [--ops N] [--seed SEED]
                    compare the store in memory and the server with a real etcd by random programs
  interop           compare the server with a real etcd by clients in Rust, Go, Python and Node
  fuzz [--minutes N] [--keep] [TARGET]
                    give every door bad input, N minutes each: addresses, keys, documents, words, calls of C,
                    answers of a server that lies, requests; --keep puts what was found of use into
                    fuzz/corpus, which every test run tries
  soak [--minutes N] [--etcd 3.4|3.5] [--seed SEED]
                    run all recipes in one process on a real cluster under faults: nothing may leak, and
                    everything must agree with the store whenever the faults pause
  soak --server [SECONDS]
                    run watchers and writers against the server, and watch its memory
  simulate [--seeds N] [--from SEED] [--recipe NAME] [--trace]
                    run the recipes under random schedules of faults, in virtual time
  crash [--rounds N] [--seed SEED]
                    kill servers at any moment, which must lose nothing that they told
  torture [--minutes N] [--members N] [--etcd 3.4|3.5] [FLAG...]
                    run recipes on a real cluster under faults, and check what they saw
  install --prefix DIR [--destdir DIR] [--debug]
                    build the C library and install it with headers, pkg-config file and manual page
  races [--helgrind]
                    run the threaded test of the C library under a race detector
  etcd              print the etcd that tests run against, installing it if that is possible";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["bench", flags @ ..] => bench::bench(flags),
        ["crash", flags @ ..] => crash::crash(flags),
        ["differential", flags @ ..] => differential::compare(flags),
        ["etcd"] => etcd::print(),
        ["fuzz", flags @ ..] => fuzz::fuzz(flags),
        ["install", flags @ ..] => install::install(flags),
        ["races", flags @ ..] => races::look(flags),
        ["gen", flags @ ..] => generate::generate(flags),
        ["interop"] => interop::all(),
        ["lint"] => lint::run_all(),
        ["simulate", flags @ ..] => simulate::simulate(flags),
        ["soak", flags @ ..] => soak::soak(flags),
        ["test", filters @ ..] => test::run_all(filters),
        ["torture", flags @ ..] => torture::torture(flags),
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

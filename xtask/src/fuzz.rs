//! Fuzzing, guided by coverage, with the stable compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    run::{cargo, output, root, run, target},
    tools::{install, locate},
};

/// How many minutes each target takes unless told otherwise.
const MINUTES: f64 = 5.0;

/// What makes the compiler count for libFuzzer which code is run.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// How long one input may take, how long it may be, how much memory all of them may take, and how much
/// one piece of it.
const LIMITS: [&str; 5] = [
    "-timeout=20",
    "-max_len=4096",
    "-len_control=0",
    "-rss_limit_mb=1024",
    "-malloc_limit_mb=256",
];

/// What the corpus of a target may come to, of what is kept with the sources.
const KEPT_INPUTS: usize = 20;
const KEPT_BYTES: u64 = 1024;

const NO_COMPILER: &str = "there is no C++ compiler here, which libFuzzer is built with";
const HOW_COMPILER: &str = "\
put c++ on the PATH, or set CXX to one; it comes from the package g++ of Debian and Ubuntu";

/// Fuzzes all targets one after another, or the one that is named.
pub(crate) fn fuzz(flags: &[&str]) -> Result<(), String> {
    let known = targets()?;
    let (mut minutes, mut chosen, mut keeps) = (MINUTES, None, false);
    let mut flags = flags.iter();
    while let Some(&flag) = flags.next() {
        let number = (flag == "--minutes").then(|| flags.next()?.parse().ok());
        match number {
            Some(Some(number)) if number > 0.0 => minutes = number,
            None if flag == "--keep" => keeps = true,
            None if known.iter().any(|name| name == flag) => chosen = Some(flag.to_owned()),
            _ => {
                let known = known.join("|");
                return Err(format!(
                    "usage: cargo xtask fuzz [--minutes N] [--keep] [{known}]"
                ));
            }
        }
    }
    let fuzzer = Fuzzer::build()?;
    for name in chosen.map_or(known, |name| vec![name]) {
        if keeps {
            fuzzer.keep(&name)?;
        } else {
            fuzzer.run(&name, minutes)?;
        }
    }
    Ok(())
}

/// The targets: each has a corpus.
fn targets() -> Result<Vec<String>, String> {
    let entries = files(&root().join("fuzz/corpus"))?;
    let mut names: Vec<_> = entries
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |error| format!("{}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(told)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(told))
        .collect()
}

/// The program that fuzzes, and where it keeps what it finds.
struct Fuzzer {
    program: PathBuf,
    built: PathBuf,
}

impl Fuzzer {
    fn build() -> Result<Self, String> {
        if locate("CXX", "c++").is_none() {
            install(&["g++"], NO_COMPILER, HOW_COMPILER)?;
        }
        let (host, built) = (host()?, target().join("fuzz"));
        // With a target, so that what runs while building is built without coverage.
        run(cargo()
            .args(["build", "--package", "fuzz", "--bin", "fuzz", "--locked"])
            .args(["--profile", "fuzz", "--target", &host])
            .env("CARGO_TARGET_DIR", &built)
            .env("RUSTFLAGS", COVERAGE))?;
        Ok(Self {
            program: built.join(host).join("fuzz/fuzz"),
            built,
        })
    }

    /// Fuzzes a target, beginning with what is known.
    fn run(&self, name: &str, minutes: f64) -> Result<(), String> {
        let corpus = self.corpus(name)?;
        let findings = format!("{}/found-{name}-", self.built.display());
        let seconds = (minutes * 60.0).ceil();
        let mut fuzzer = self.command(name);
        fuzzer
            .args([&corpus, &kept(name)])
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={findings}"))
            .arg("-print_final_stats=1");
        run(&mut fuzzer).map_err(|why| {
            format!(
                "{why}\nthe input is in {findings}*; `cargo run -p fuzz -- {name} FILE` repeats it"
            )
        })
    }

    /// Puts the smallest inputs of the corpus that reach most into what is kept with the sources.
    fn keep(&self, name: &str) -> Result<(), String> {
        let (corpus, smallest) = (self.corpus(name)?, self.built.join("smallest").join(name));
        fs::create_dir_all(&smallest).map_err(|error| error.to_string())?;
        let mut merge = self.command(name);
        merge.args(["-merge=1", "-max_len=1024"]);
        run(merge.arg(&smallest).arg(kept(name)).arg(corpus))?;
        let size = |path: &PathBuf| fs::metadata(path).map_or(u64::MAX, |it| it.len());
        let mut inputs = files(&smallest)?;
        inputs.retain(|path| size(path) <= KEPT_BYTES);
        // The largest of the small do most.
        inputs.sort_by_key(|path| std::cmp::Reverse(size(path)));
        for input in inputs.iter().take(KEPT_INPUTS) {
            let to = kept(name).join(input.file_name().unwrap_or_default());
            fs::copy(input, to).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("FUZZ_TARGET", name);
        command
    }

    fn corpus(&self, name: &str) -> Result<PathBuf, String> {
        let corpus = self.built.join("corpus").join(name);
        fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
        Ok(corpus)
    }
}

/// The inputs of a target that every test run tries.
fn kept(name: &str) -> PathBuf {
    root().join("fuzz/corpus").join(name)
}

/// What the compiler builds for here.
fn host() -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = output(Command::new(rustc).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc does not tell its host".to_owned())
}

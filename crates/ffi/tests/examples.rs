//! The examples run, on both stores, and say what they are to say.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Language, Workshop, cluster, crate_file, memory, succeed, watched};

/// What each says; `*` is what differs from run to run.
const SAYS: [(&str, &str); 10] = [
    ("config", "{\"rps\":100}\nrefused: not TOML*"),
    (
        "election",
        "10.0.0.7:9000 leads\n10.0.0.7:9001 leads\nnobody leads\n",
    ),
    ("elector", "*we lead with token *\ncleaned\n"),
    ("ephemeral", "it is back\n"),
    ("health", "up\n* leads\n"),
    ("kv", "swapped: yes\ncfg/limit = 11\nit was 10\n"),
    ("lock", "held with token *\nwritten under the fence\n"),
    ("observer", "cfg/a = 1\ndeleted cfg/a\n"),
    (
        "service",
        "api-7 joined at 10.0.0.7:8080\ncall 10.0.0.7:8080\n",
    ),
    ("session", "reliable for * s\nlost: *\n"),
];

#[test]
fn every_example_runs_and_says_so() {
    let workshop = Workshop::open();
    let mut found = BTreeSet::new();
    for file in fs::read_dir(crate_file("examples")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let program = workshop.compile(&path, Language::C99);
        let says = SAYS.iter().find(|(example, _)| *example == name);
        if let Some((_, says)) = says {
            for url in [memory(), cluster(&format!("example-{name}"))] {
                let said = succeed(watched(&program).arg(&url));
                assert!(matches(says, &said), "{name} on {url} says:\n{said}");
            }
        }
        found.insert(name);
    }
    let expected: BTreeSet<_> = SAYS
        .iter()
        .map(|(name, _)| *name)
        .chain(["leader"])
        .collect();
    assert_eq!(
        found.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        expected
    );
}

/// Three candidates: the first leads, the others tell its name and fitness; it dies, and the next leads
/// when its lease is over; that one resigns when it is told to end, and the last leads at once.
#[test]
fn candidates_follow_one_another_as_leaders() {
    let workshop = Workshop::open();
    let program = workshop.compile(&crate_file("examples/leader.c"), Language::C99);
    let url = cluster("leader");
    let candidate = |name: &str, fitness: &str| {
        Candidate::start(
            Command::new(&program).args(["-s", &url, "-k", "nsr", "-n", name, "-f", fitness]),
        )
    };
    let mut first = candidate("first", "1");
    first.says("we lead, with token ");
    let mut second = candidate("second", "2");
    second.says("leader is first,1");
    let mut third = candidate("third", "3");
    third.says("leader is first,1");
    first.end(Signal::SIGKILL);
    second.says("we lead, with token ");
    third.says("leader is second,2");
    assert_eq!(second.end(Signal::SIGTERM), Some(0));
    third.says("we lead, with token ");
    assert_eq!(third.end(Signal::SIGINT), Some(0));
}

/// Whether a text is as a pattern says, in which `*` is anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| matches(rest, &text[at..]))
        }),
    }
}

struct Candidate {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Candidate {
    fn start(command: &mut Command) -> Self {
        support::sanitize(command);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads until a line that begins so.
    fn says(&mut self, beginning: &str) {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "it ends and never says {beginning:?}");
        }
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! What the samples and the times of a run tell: whether anything grew, and how fast all agreed.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::wire::{Quiet, Sample};
use crate::history::Stamp;

/// How many more or fewer of each there may be than at first. Connections are made when they are needed,
/// one to each member, and a watch stays on the stream on which it was opened; so the first member that
/// fails makes for more of both.
const DESCRIPTORS: i64 = 6;
const STREAMS: i64 = 6;

/// As many more watches there may be, each with a task: an observer that had to catch up keeps a watch of
/// its own until something changes, which at rest nothing does.
const WATCHES: i64 = 3;

/// How many tasks drive a connection, and a stream of watches.
const TASKS_OF_CONNECTION: i64 = 1;
const TASKS_OF_STREAM: i64 = 1;

/// How much more memory there may be than in the first third of the run: a part of it, and this many KiB.
const MEMORY: f64 = 0.15;
const MEMORY_LEAST: u64 = 6 << 10;

/// What was seen at each rest.
#[derive(Default)]
pub(crate) struct Report {
    /// When, since the begin of the run.
    rests: Vec<(Duration, Sample)>,
    /// How long each recipe took to agree with the store.
    times: BTreeMap<String, Vec<Stamp>>,
    /// What is wrong.
    pub(crate) wrong: Vec<String>,
}

impl Report {
    /// Takes note of how all came to agree.
    pub(crate) fn agreed(&mut self, quiet: &Quiet) {
        for (recipe, time) in &quiet.times {
            self.times.entry(recipe.clone()).or_default().push(*time);
        }
        let wrong = quiet.disagreements.iter();
        self.wrong
            .extend(wrong.map(|why| format!("no agreement: {why}")));
    }

    /// Whether there is as much of everything as at first, or, with slack, so much that it may be. With
    /// slack, this may be the first time.
    pub(crate) fn is_level(&self, sample: &Sample, slack: bool) -> bool {
        self.rests.first().map_or(slack, |(_, first)| {
            let mut levels = levels(first).into_iter().zip(levels(sample));
            levels.all(|(first, now)| now.is_as(&first, if slack { now.slack } else { 0 }))
        })
    }

    /// Takes a sample into account.
    pub(crate) fn sampled(&mut self, at: Duration, sample: Sample) {
        if let Some((_, first)) = self.rests.first() {
            for (first, now) in levels(first).into_iter().zip(levels(&sample)) {
                if !now.is_as(&first, now.slack) {
                    self.wrong.push(format!(
                        "after {} s: {} {}, {} at first; it may be {} off",
                        at.as_secs(),
                        now.count,
                        now.name,
                        first.count,
                        now.slack,
                    ));
                }
            }
        }
        self.rests.push((at, sample));
    }

    /// Judges what can only be judged at the end.
    pub(crate) fn finish(&mut self) {
        let (warm_up, rest) = self.rests.split_at(self.rests.len().div_ceil(3));
        let warm = { warm_up.iter() }.map(|(_, sample)| sample.memory).max();
        let Some(warm) = warm else {
            self.wrong.push("nothing was sampled".to_owned());
            return;
        };
        let bound = bound(warm);
        let above = { rest.iter() }.filter(|(_, sample)| sample.memory > bound);
        let above = above.map(|(at, sample)| {
            let at = at.as_secs();
            format!(
                "after {at} s: {} KiB of memory, {bound} may be",
                sample.memory
            )
        });
        self.wrong.extend(above);
    }

    /// The tables.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:>8} {:>10} {:>11} {:>6} {:>5} {:>6} {:>7} {:>7} {:>10} {:>5}",
            "second",
            "memory KiB",
            "descriptors",
            "tasks",
            "keys",
            "leases",
            "watches",
            "streams",
            "operations",
            "CPU %",
        );
        let mut before = (Duration::ZERO, 0);
        for (at, sample) in &self.rests {
            let span = (*at - before.0).as_secs_f64();
            let used = Duration::from_nanos(sample.used - before.1).as_secs_f64();
            before = (*at, sample.used);
            let _ = writeln!(
                text,
                "{:>8} {:>10} {:>11} {:>6} {:>5} {:>6} {:>7} {:>7} {:>10} {:>5.0}",
                at.as_secs(),
                sample.memory,
                sample.descriptors,
                sample.tasks,
                sample.keys,
                sample.leases,
                sample.watches,
                sample.streams,
                sample.operations.values().sum::<u64>(),
                100.0 * used / span,
            );
        }
        let _ = writeln!(
            text,
            "\n{:<18} {:>10} {:>16} {:>16}",
            "recipe", "operations", "agreement, max", "median"
        );
        for (recipe, operations, times) in self.recipes() {
            let shown = |time: Option<Stamp>| {
                time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time / 1_000_000))
            };
            let _ = writeln!(
                text,
                "{recipe:<18} {operations:>10} {:>16} {:>16}",
                shown(times.last().copied()),
                shown(times.get(times.len() / 2).copied()),
            );
        }
        text
    }

    /// Each recipe, how often it was used, and the times that it took to agree, in their order.
    fn recipes(&self) -> Vec<(&str, u64, Vec<Stamp>)> {
        let mut recipes = BTreeMap::<&str, (u64, Vec<Stamp>)>::new();
        if let Some((_, last)) = self.rests.last() {
            for (recipe, count) in &last.operations {
                recipes.entry(recipe).or_default().0 = *count;
            }
        }
        for (recipe, times) in &self.times {
            let sorted = &mut recipes.entry(recipe).or_default().1;
            sorted.clone_from(times);
            sorted.sort_unstable();
        }
        let recipes = recipes.into_iter();
        recipes
            .map(|(recipe, (count, times))| (recipe, count, times))
            .collect()
    }
}

/// What must stay as it was.
struct Level {
    name: &'static str,
    count: i64,
    slack: i64,
    /// Whether fewer are as good.
    may_fall: bool,
}

impl Level {
    fn is_as(&self, first: &Self, slack: i64) -> bool {
        let more = self.count - first.count;
        more <= slack && (self.may_fall || -more <= slack)
    }
}

fn levels(sample: &Sample) -> [Level; 6] {
    let count = |count: u64| i64::try_from(count).expect("there are not that many");
    let (descriptors, streams) = (count(sample.descriptors), count(sample.streams));
    let transport = TASKS_OF_CONNECTION * descriptors + TASKS_OF_STREAM * streams;
    [
        ("descriptors", descriptors, DESCRIPTORS),
        ("streams", streams, STREAMS),
        // Less than none, as not each descriptor is a connection; what counts is that this stays.
        (
            "tasks without those of connections",
            count(sample.tasks) - transport,
            WATCHES,
        ),
        ("keys", count(sample.keys), 0),
        ("leases", count(sample.leases), 0),
        ("watches", count(sample.watches), WATCHES),
    ]
    .map(|(name, count, slack)| Level {
        name,
        count,
        slack,
        // etcd 3.4 counts a watch down twice that is cancelled while its stream closes. Who lacks a watch
        // does not agree with the store.
        may_fall: name == "watches",
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn bound(warm: u64) -> u64 {
    warm + ((warm as f64 * MEMORY) as u64).max(MEMORY_LEAST)
}

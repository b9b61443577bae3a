//! Watches and observers tell every change once, in order, and in time.

use std::collections::BTreeMap;

use super::{
    Case,
    faults::Whom,
    verdict::{Verdict, shown},
};
use crate::history::{Change, Record, Stamp, What};

/// How long a change may take to be told: a stream that fell silent is noticed after 5 s and given up
/// 2.5 s later.
pub(super) const LAG: Stamp = 12_000_000_000;

type Changes<'a> = BTreeMap<i64, (Stamp, Vec<&'a Change>)>;

/// Checks every process that watches.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    for (process, records) in &case.history.processes {
        let prefix = records.iter().find_map(|record| match &record.what {
            What::Watching { prefix } => Some(prefix),
            _ => None,
        });
        if let Some(prefix) = prefix {
            let changes = case.store.changes(prefix);
            follow(case, process, prefix, records, &changes, verdict);
        }
    }
}

/// Goes through what one process was told.
fn follow(
    case: &Case<'_>,
    process: &str,
    prefix: &str,
    records: &[Record],
    changes: &Changes<'_>,
    verdict: &mut Verdict,
) {
    let started = case
        .faults
        .process(process)
        .map_or(0, |process| process.started);
    // Up to where everything is known.
    let (mut known, mut has_begun) = (0, false);
    for Record { at, what } in records {
        let told = match what {
            What::Told {
                revision,
                changes: told,
            } => {
                let next = changes.range(known + 1..).next();
                let right = next.is_some_and(|(due, (_, due_changes))| {
                    due == revision && due_changes.iter().copied().eq(told)
                });
                if !right {
                    let due = next.map(|(due, _)| due);
                    let text =
                        format!("{process} was told of {revision} and not of {due:?}: {told:?}");
                    verdict.violation("watch", text);
                }
                verdict.count("changes told by watches", 1);
                *revision
            }
            What::Reset { revision, keys } => {
                if *revision < known || *keys != case.store.state_at(prefix, *revision) {
                    let text = format!("{process} began anew with what was not so at {revision}");
                    verdict.violation("watch", text);
                }
                if has_begun {
                    had_to_begin_anew(case, process, known, *at, verdict);
                }
                verdict.count("resets of watches", 1);
                *revision
            }
            _ => continue,
        };
        has_begun = true;
        let since = changes.range(known + 1..).next();
        let since = since.filter(|(revision, _)| **revision <= told);
        if let Some((revision, (changed, _))) = since {
            let from = started.max(*changed);
            late(case, ("watch", process), *revision, from, Ok(*at), verdict);
        }
        known = known.max(told);
    }
    if let Some(stopped) = stopped(records)
        && let Some((revision, (changed, _))) = changes.range(known + 1..).next()
    {
        let (from, end) = (started.max(*changed), Err(stopped));
        late(case, ("watch", process), *revision, from, end, verdict);
    }
}

/// When a process had stopped, as it was told to.
pub(super) fn stopped(records: &[Record]) -> Option<Stamp> {
    let stopped = records
        .iter()
        .rev()
        .find(|record| record.what == What::Stopped);
    stopped.map(|record| record.at)
}

/// Whoever began anew had to: what it would have been told next had been compacted.
fn had_to_begin_anew(case: &Case<'_>, process: &str, known: i64, at: Stamp, verdict: &mut Verdict) {
    let records = case.history.orchestrator().iter();
    let compactions = records.filter_map(|record| match record.what {
        What::Compacted { revision } if record.at <= at => Some(revision),
        _ => None,
    });
    let compacted = compactions.max().unwrap_or(0);
    if known + 1 >= compacted {
        let text = format!("{process} began anew after {known}, compacted was {compacted}");
        verdict.violation("watch", text);
    }
}

/// Looks how late a change was told, or that it was not by the end.
pub(super) fn late(
    case: &Case<'_>,
    (what, process): (&str, &str),
    revision: i64,
    changed: Stamp,
    told: Result<Stamp, Stamp>,
    verdict: &mut Verdict,
) {
    let (Ok(end) | Err(end)) = told;
    let lag = end.saturating_sub(changed);
    verdict.lasted("time until a change was told", lag);
    let span = (changed, LAG, Whom::Process(process));
    if case.is_late(&format!("{what} in time"), span, told, verdict) {
        let text = format!("{process} knew of {revision} {} after it", shown(lag));
        verdict.violation("convergence", text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{Change, What};

    fn told(at: f64, revision: i64, changes: &[Change]) -> (&'static str, f64, What) {
        (
            "o",
            at,
            What::Told {
                revision,
                changes: changes.to_vec(),
            },
        )
    }

    fn reset(at: f64, revision: i64, keys: &[(&str, &str)]) -> (&'static str, f64, What) {
        let keys = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        (
            "o",
            at,
            What::Reset {
                revision,
                keys: keys.collect(),
            },
        )
    }

    fn with(records: &[(&'static str, f64, What)]) -> Vec<(&'static str, f64, What)> {
        let begun = [
            changed(1.0, 2, &[put("w/a", "1", 2)]),
            changed(2.0, 3, &[put("w/b", "1", 3), put("w/c", "1", 3)]),
            changed(3.0, 4, &[deleted("w/a")]),
            (
                "o",
                0.5,
                What::Watching {
                    prefix: "w/".to_owned(),
                },
            ),
        ];
        [&begun[..], records].concat()
    }

    #[test]
    fn every_change_in_order_is_right() {
        assert_right(&with(&[
            told(1.1, 2, &[put("w/a", "1", 2)]),
            told(2.1, 3, &[put("w/b", "1", 3), put("w/c", "1", 3)]),
            told(3.1, 4, &[deleted("w/a")]),
        ]));
        let state = reset(2.1, 3, &[("w/a", "1"), ("w/b", "1"), ("w/c", "1")]);
        assert_right(&with(&[state, told(3.1, 4, &[deleted("w/a")])]));
    }

    #[test]
    fn a_missing_change_is_found() {
        let hole = [
            told(1.1, 2, &[put("w/a", "1", 2)]),
            told(3.1, 4, &[deleted("w/a")]),
        ];
        assert_found(&with(&hole), "watch");
    }

    #[test]
    fn half_of_a_revision_is_found() {
        let half = [
            told(1.1, 2, &[put("w/a", "1", 2)]),
            told(2.1, 3, &[put("w/b", "1", 3)]),
        ];
        assert_found(&with(&half), "watch");
    }

    #[test]
    fn a_change_that_is_told_twice_is_found() {
        let once = told(1.1, 2, &[put("w/a", "1", 2)]);
        assert_found(&with(&[once.clone(), once]), "watch");
    }

    #[test]
    fn a_wrong_reset_is_found() {
        assert_found(
            &with(&[reset(2.1, 3, &[("w/a", "1"), ("w/b", "1")])]),
            "watch",
        );
        let all = reset(2.1, 3, &[("w/a", "1"), ("w/b", "1"), ("w/c", "1")]);
        assert_found(&with(&[all, reset(2.2, 2, &[("w/a", "1")])]), "watch");
    }

    #[test]
    fn a_reset_that_no_compaction_excuses_is_found() {
        let state = reset(2.1, 3, &[("w/a", "1"), ("w/b", "1"), ("w/c", "1")]);
        let compacted = |revision| ("orchestrator", 2.0, What::Compacted { revision });
        let first = told(1.1, 2, &[put("w/a", "1", 2)]);
        let rest = [first, state, told(3.1, 4, &[deleted("w/a")])];
        assert_found(&with(&rest), "watch");
        assert_found(&with(&[&[compacted(3)][..], &rest].concat()), "watch");
        assert_right(&with(&[&[compacted(4)][..], &rest].concat()));
    }

    #[test]
    fn a_change_that_is_told_late_or_never_is_found() {
        let first = told(1.1, 2, &[put("w/a", "1", 2)]);
        let second = told(30.0, 3, &[put("w/b", "1", 3), put("w/c", "1", 3)]);
        assert_found(&with(&[first.clone(), second]), "convergence");
        assert_found(&with(&[first, ("o", 30.0, What::Stopped)]), "convergence");
    }
}

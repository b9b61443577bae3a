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
    let mut known = 0;
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
                verdict.count("resets of watches", 1);
                *revision
            }
            _ => continue,
        };
        let since = changes.range(known + 1..).next();
        let since = since.filter(|(revision, _)| **revision <= told);
        if let Some((revision, (changed, _))) = since {
            late(
                case,
                process,
                *revision,
                started.max(*changed),
                *at,
                verdict,
            );
        }
        known = known.max(told);
    }
    if let Some((stopped, _)) = records.iter().rev().find_map(stopped)
        && let Some((revision, (changed, _))) = changes.range(known + 1..).next()
    {
        late(
            case,
            process,
            *revision,
            started.max(*changed),
            stopped,
            verdict,
        );
    }
}

/// When a process had stopped, as it was told to.
pub(super) fn stopped(record: &Record) -> Option<(Stamp, ())> {
    (record.what == What::Stopped).then_some((record.at, ()))
}

/// Looks how late a change was told.
pub(super) fn late(
    case: &Case<'_>,
    process: &str,
    revision: i64,
    changed: Stamp,
    told: Stamp,
    verdict: &mut Verdict,
) {
    let lag = told.saturating_sub(changed);
    verdict.lasted("time until a change was told", lag);
    if told > case.faults.deadline(changed, LAG, Whom::Process(process)) {
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
    fn a_change_that_is_told_late_or_never_is_found() {
        let first = told(1.1, 2, &[put("w/a", "1", 2)]);
        let second = told(30.0, 3, &[put("w/b", "1", 3), put("w/c", "1", 3)]);
        assert_found(&with(&[first.clone(), second]), "convergence");
        assert_found(&with(&[first, ("o", 30.0, What::Stopped)]), "convergence");
    }
}

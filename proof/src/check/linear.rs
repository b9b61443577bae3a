//! Reads and writes are linearizable: revisions are their order, so a sort and a scan show it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, verdict::Verdict};
use crate::history::{Action, Outcome, Stamp, What};

const REGISTERS: &str = "reg/";

/// One operation, as who called it knows it.
struct Operation<'a> {
    process: &'a str,
    key: &'a str,
    called: Stamp,
    returned: Stamp,
    action: &'a Action,
    outcome: &'a Outcome,
}

/// Checks every register.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    let operations: Vec<_> = operations(case).collect();
    verdict.count("reads and writes", operations.len());
    let written = written(case, verdict);
    let mut known = BTreeSet::new();
    for operation in &operations {
        if let Some(value) = value(operation.action) {
            known.insert(value);
        }
        agrees(case, operation, &written, verdict);
    }
    for (value, (key, _)) in &written {
        // A process that was killed could not tell of its last writes.
        let writer = value.split('-').take(2).collect::<Vec<_>>().join("-");
        let was_killed = case
            .faults
            .process(&writer)
            .is_some_and(|writer| writer.killed.is_some());
        if !known.contains(value) && !was_killed {
            verdict.violation("linear", format!("{key}: nobody wrote {value}"));
        }
    }
    real_time(&operations, &written, verdict);
}

fn operations<'a>(case: &Case<'a>) -> impl Iterator<Item = Operation<'a>> {
    case.history
        .all()
        .filter_map(|(process, record)| match &record.what {
            What::Operation {
                key,
                called,
                action,
                outcome,
            } => Some(Operation {
                process,
                key,
                called: *called,
                returned: record.at,
                action,
                outcome,
            }),
            _ => None,
        })
}

/// The key and the revision of each value that was written. Each value is written once, unless the
/// library repeated a write.
fn written<'a>(case: &Case<'a>, verdict: &mut Verdict) -> BTreeMap<&'a str, (&'a str, i64)> {
    let mut written = BTreeMap::new();
    for (key, versions) in case.store.under(REGISTERS) {
        for version in versions {
            let Some(value) = version.value.as_deref() else {
                continue;
            };
            if let Some((_, before)) = written.insert(value, (key, version.revision)) {
                let text = format!(
                    "{key}: {value} written at {before} and {}",
                    version.revision
                );
                verdict.violation("twice", text);
            }
        }
    }
    written
}

/// What an operation saw is what the store was like.
fn agrees(
    case: &Case<'_>,
    operation: &Operation<'_>,
    written: &BTreeMap<&str, (&str, i64)>,
    verdict: &mut Verdict,
) {
    let Operation {
        process,
        key,
        action,
        outcome,
        ..
    } = operation;
    let there = value(action).and_then(|value| written.get(value));
    if let Action::Swap { expected, .. } = action {
        let held = match outcome {
            Outcome::Written { revision } => Some((
                true,
                case.store.value_at(key, *revision - 1) == Some(expected),
            )),
            Outcome::Read { value, .. } => Some((false, value.as_ref() == Some(expected))),
            // If it was done after all, it was done rightly.
            _ => there.map(|(key, at)| (true, case.store.value_at(key, at - 1) == Some(expected))),
        };
        verdict.count("swaps", 1);
        if let Some((done, due)) = held.filter(|(done, due)| done != due) {
            let text = format!("{process}: {action:?} of {key}: done: {done}, but due: {due}");
            verdict.violation("swap", text);
        }
    }
    match outcome {
        Outcome::Written { revision } if there != Some(&(key, *revision)) => {
            let text = format!("{process}: {action:?} to {key} at {revision} is not there");
            verdict.violation("lost write", text);
        }
        Outcome::Read { revision, value } => {
            let right = case.store.value_at(key, *revision);
            if right != value.as_deref() {
                let text =
                    format!("{process} read {value:?} of {key} at {revision}, not {right:?}");
                verdict.violation("linear", text);
            }
        }
        Outcome::Failed { .. } | Outcome::Lost => {
            verdict.count("writes that failed", 1);
            if there.is_some() {
                let text =
                    format!("{process}: {action:?} to {key} failed, and was done: {outcome:?}");
                verdict.violation("definite", text);
            }
        }
        Outcome::Unknown { .. } => {
            verdict.count("writes of unknown fate", 1);
            verdict.count(
                "writes of unknown fate that were done",
                usize::from(there.is_some()),
            );
        }
        Outcome::Written { .. } => {}
    }
}

/// Whoever is called after another one returned sees what that saw, or later.
fn real_time(
    operations: &[Operation<'_>],
    written: &BTreeMap<&str, (&str, i64)>,
    verdict: &mut Verdict,
) {
    let revision = |operation: &Operation<'_>| match operation.outcome {
        Outcome::Written { revision } | Outcome::Read { revision, .. } => Some(*revision),
        // What it wrote, if it did, came after all that was before.
        _ => Some(written.get(value(operation.action)?)?.1),
    };
    let mut by_call: Vec<_> = operations.iter().collect();
    by_call.sort_by_key(|operation| operation.called);
    let mut by_return: Vec<_> = operations
        .iter()
        .filter(|operation| {
            matches!(
                operation.outcome,
                Outcome::Written { .. } | Outcome::Read { .. }
            )
        })
        .collect();
    by_return.sort_by_key(|operation| operation.returned);
    let mut returned = by_return.into_iter().peekable();
    let mut seen = 0;
    for operation in by_call {
        while let Some(before) = returned.next_if(|before| before.returned < operation.called) {
            seen = seen.max(revision(before).unwrap_or(0));
        }
        let Some(revision) = revision(operation) else {
            continue;
        };
        let writes = !matches!(operation.outcome, Outcome::Read { .. });
        if revision < seen || writes && revision == seen {
            let Operation {
                process,
                key,
                action,
                outcome,
                ..
            } = operation;
            let text =
                format!("{process}: {action:?} of {key} gave {outcome:?} after {seen} was seen");
            verdict.violation("linear", text);
        }
    }
}

fn value(action: &Action) -> Option<&str> {
    match action {
        Action::Read => None,
        Action::Write { value } | Action::Swap { value, .. } => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{Action, Outcome, What};

    fn operation(
        called: f64,
        returned: f64,
        action: Action,
        outcome: Outcome,
    ) -> (&'static str, f64, What) {
        let (key, called) = ("reg/0".to_owned(), seconds(called));
        (
            "register-0.0",
            returned,
            What::Operation {
                key,
                called,
                action,
                outcome,
            },
        )
    }

    fn write(called: f64, returned: f64, value: &str, revision: i64) -> (&'static str, f64, What) {
        let action = Action::Write {
            value: value.to_owned(),
        };
        operation(called, returned, action, Outcome::Written { revision })
    }

    fn read(called: f64, returned: f64, value: &str, revision: i64) -> (&'static str, f64, What) {
        let value = Some(value.to_owned());
        operation(
            called,
            returned,
            Action::Read,
            Outcome::Read { revision, value },
        )
    }

    fn with(records: &[(&'static str, f64, What)]) -> Vec<(&'static str, f64, What)> {
        let store = [
            changed(1.0, 2, &[put("reg/0", "a", 2)]),
            changed(2.0, 3, &[put("reg/0", "b", 2)]),
        ];
        [
            &store[..],
            &[write(0.5, 1.1, "a", 2), write(1.5, 2.1, "b", 3)],
            records,
        ]
        .concat()
    }

    #[test]
    fn reads_of_the_present_are_right() {
        assert_right(&with(&[read(1.2, 1.8, "a", 2), read(2.2, 2.3, "b", 3)]));
    }

    #[test]
    fn a_stale_read_is_found() {
        assert_found(&with(&[read(2.2, 2.3, "a", 2)]), "linear");
    }

    #[test]
    fn a_read_of_what_was_not_there_is_found() {
        assert_found(&with(&[read(2.2, 2.3, "a", 3)]), "linear");
    }

    #[test]
    fn a_lost_write_is_found() {
        assert_found(&with(&[write(2.2, 2.3, "c", 4)]), "lost write");
    }

    #[test]
    fn a_failed_write_that_was_done_is_found() {
        let action = Action::Write {
            value: "c".to_owned(),
        };
        let failed = operation(
            2.2,
            2.3,
            action,
            Outcome::Failed {
                error: String::new(),
            },
        );
        let done = changed(2.5, 4, &[put("reg/0", "c", 2)]);
        assert_found(&with(&[failed, done]), "definite");
    }

    #[test]
    fn a_write_that_was_done_twice_is_found() {
        assert_found(&with(&[changed(2.5, 4, &[put("reg/0", "a", 2)])]), "twice");
    }

    #[test]
    fn a_swap_against_its_condition_is_found() {
        let swap = |expected: &str, outcome| {
            let action = Action::Swap {
                expected: expected.to_owned(),
                value: "c".to_owned(),
            };
            operation(2.2, 2.6, action, outcome)
        };
        let done = changed(2.5, 4, &[put("reg/0", "c", 2)]);
        let written = Outcome::Written { revision: 4 };
        let unknown = Outcome::Unknown {
            error: String::new(),
        };
        assert_right(&with(&[swap("b", written.clone()), done.clone()]));
        assert_found(&with(&[swap("a", written), done.clone()]), "swap");
        assert_found(&with(&[swap("a", unknown), done]), "swap");
        let refused = Outcome::Read {
            revision: 3,
            value: Some("b".to_owned()),
        };
        assert_right(&with(&[swap("a", refused.clone())]));
        assert_found(&with(&[swap("b", refused)]), "swap");
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        assert_found(&with(&[changed(2.5, 4, &[put("reg/0", "z", 2)])]), "linear");
    }
}

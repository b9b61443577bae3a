//! No update under a fence is lost, and no former holder writes.

use std::collections::BTreeMap;

use super::{
    Case,
    store::{Version, incarnations},
    verdict::Verdict,
};
use crate::history::{Outcome, What};

const COUNTERS: &str = "count/";
const PLAIN: &str = "plain/";

/// Checks every counter.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    let calls = calls(case, verdict);
    for (counter, versions) in case.store.under(COUNTERS) {
        let name = &counter[COUNTERS.len()..];
        let ends = ends(case, name);
        let (mut last, mut highest) = (0, 0);
        for version in versions {
            let text = version.value.as_deref().unwrap_or_default();
            let Some((number, token)) = parse(text) else {
                verdict.violation("counter", format!("{counter} was set to {text:?}"));
                continue;
            };
            let at = format!("{counter} at {}", version.revision);
            if number != last + 1 {
                verdict.violation("counter", format!("{at} went from {last} to {number}"));
            }
            if token < highest {
                let text = format!("{at}: {token} wrote after {highest} had");
                verdict.violation("fence", text);
            }
            if ends.get(&token).is_none_or(|end| *end < version.revision) {
                let text = format!("{at}: {token} wrote when its key was gone");
                verdict.violation("fence", text);
            }
            (last, highest) = (number, token.max(highest));
        }
        verdict.count("fenced writes", versions.len());
        definite(case, counter, versions, verdict);
        acknowledged(case, counter, calls.get(counter), verdict);
    }
    unfenced(case, verdict);
}

/// What writers know of each counter: the revisions at which they wrote, with their tokens.
fn calls<'a>(case: &Case<'a>, verdict: &mut Verdict) -> BTreeMap<&'a str, Vec<(i64, i64)>> {
    let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, record) in case.history.all() {
        let What::Raised {
            counter,
            token,
            outcome,
            ..
        } = &record.what
        else {
            continue;
        };
        match outcome {
            Outcome::Written { revision } => {
                calls
                    .entry(counter.as_str())
                    .or_default()
                    .push((*revision, *token));
            }
            Outcome::Lost => verdict.count("fenced writes of former holders, refused", 1),
            Outcome::Unknown { .. } => verdict.count("fenced writes of unknown fate", 1),
            Outcome::Failed { .. } | Outcome::Read { .. } => {}
        }
    }
    calls
}

/// No write is there that failed for certain, and none twice.
fn definite(case: &Case<'_>, counter: &str, versions: &[Version], verdict: &mut Verdict) {
    let mut marks = BTreeMap::new();
    for version in versions {
        let value = version.value.as_deref().unwrap_or_default();
        let mark = value.rsplit(' ').next().unwrap_or(value);
        if let Some(before) = marks.insert(mark, version.revision) {
            let text = format!("{counter}: {mark} is at {before} and {}", version.revision);
            verdict.violation("twice", text);
        }
    }
    for (process, record) in case.history.all() {
        if let What::Raised {
            counter: raised,
            outcome: outcome @ (Outcome::Failed { .. } | Outcome::Lost),
            mark,
            ..
        } = &record.what
            && raised == counter
            && let Some(revision) = marks.get(mark.as_str())
        {
            let text = format!("{process}: {mark} is at {revision}, although {outcome:?}");
            verdict.violation("definite", text);
        }
    }
}

/// Every write that was confirmed is there.
fn acknowledged(
    case: &Case<'_>,
    counter: &str,
    calls: Option<&Vec<(i64, i64)>>,
    verdict: &mut Verdict,
) {
    for (revision, token) in calls.into_iter().flatten() {
        let changes = case
            .store
            .revision(*revision)
            .map(|revision| &revision.changes);
        let mut changes = changes.into_iter().flatten();
        let is_there = changes.any(|change| {
            let written = change.value.as_deref().and_then(parse);
            change.key == counter && written.is_some_and(|(_, by)| by == *token)
        });
        if !is_there {
            let text = format!("{counter}: the write of {token} at {revision} is not there");
            verdict.violation("counter", text);
        }
    }
}

/// When the keys of the holders of a name were gone, by their tokens.
fn ends(case: &Case<'_>, name: &str) -> BTreeMap<i64, i64> {
    let prefix = format!("{name}/");
    let keys = case
        .store
        .under(&prefix)
        .flat_map(|(_, versions)| incarnations(versions));
    keys.map(|contender| {
        let end = contender
            .deleted
            .map_or(i64::MAX, |deleted| deleted.revision);
        (contender.created.revision, end)
    })
    .collect()
}

/// What holders write without a fence comes late now and then; where that never happens the fence is
/// not tested either.
fn unfenced(case: &Case<'_>, verdict: &mut Verdict) {
    verdict.count("writes of former holders without a fence", 0);
    for (_, versions) in case.store.under(PLAIN) {
        let tokens = versions
            .iter()
            .filter_map(|version| version.value.as_deref()?.parse::<i64>().ok());
        let mut highest = 0;
        for token in tokens {
            if token < highest {
                verdict.count("writes of former holders without a fence", 1);
            }
            highest = token.max(highest);
        }
    }
}

/// The number and the token in a counter's value.
fn parse(text: &str) -> Option<(u64, i64)> {
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{Outcome, What};

    fn store(writes: &[(i64, &str)]) -> Vec<(&'static str, f64, What)> {
        let mut records = vec![
            changed(0.1, 2, &[put("l/a", "", 2)]),
            changed(0.2, 3, &[put("l/b", "", 3)]),
        ];
        for (revision, value) in writes {
            let change = match *value {
                "gone" => deleted("l/a"),
                value => put("count/l", value, 4),
            };
            records.push(changed(*revision as f64, *revision, &[change]));
        }
        records
    }

    #[test]
    fn numbers_that_follow_each_other_are_right() {
        assert_right(&store(&[
            (4, "1 2 a"),
            (5, "2 2 b"),
            (6, "gone"),
            (7, "3 3 c"),
        ]));
    }

    #[test]
    fn a_lost_update_is_found() {
        assert_found(
            &store(&[(4, "1 2 a"), (5, "gone"), (6, "1 3 b")]),
            "counter",
        );
    }

    #[test]
    fn a_write_after_the_successors_is_found() {
        let late = [(4, "1 2 a"), (5, "2 3 b"), (6, "3 2 a"), (7, "gone")];
        assert_found(&store(&late), "fence");
    }

    #[test]
    fn a_write_of_who_has_no_key_any_more_is_found() {
        assert_found(&store(&[(4, "1 2 a"), (5, "gone"), (6, "2 2 a")]), "fence");
    }

    #[test]
    fn a_confirmed_write_that_is_not_there_is_found() {
        let mut records = store(&[(4, "1 2 a")]);
        let outcome = Outcome::Written { revision: 5 };
        let counter = "count/l".to_owned();
        records.push((
            "a",
            6.0,
            What::Raised {
                counter,
                token: 2,
                called: 0,
                outcome,
                mark: String::new(),
            },
        ));
        assert_found(&records, "counter");
    }

    #[test]
    fn a_write_that_failed_and_is_there_or_is_there_twice_is_found() {
        let raised = |outcome| What::Raised {
            counter: "count/l".to_owned(),
            token: 2,
            called: 0,
            outcome,
            mark: "a-1".to_owned(),
        };
        let error = String::new();
        for outcome in [Outcome::Lost, Outcome::Failed { error }] {
            let mut records = store(&[(4, "1 2 a-1")]);
            records.push(("a", 5.0, raised(outcome)));
            assert_found(&records, "definite");
        }
        assert_found(&store(&[(4, "1 2 a-1"), (5, "2 2 a-1")]), "twice");
    }
}

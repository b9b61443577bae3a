//! Trackers show what the store had at one revision, never go back, and catch up in time; so does who
//! follows a leader.

use super::{
    Case,
    faults::Whom,
    store::incarnations,
    verdict::Verdict,
    watch::{LAG, late, stopped},
};
use crate::history::{Record, Stamp, What};

/// Checks every process that tracks, or follows a leader.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    for (process, records) in &case.history.processes {
        views(case, process, records, verdict);
        leaders(case, process, records, verdict);
    }
}

fn views(case: &Case<'_>, process: &str, records: &[Record], verdict: &mut Verdict) {
    let mut known = 0;
    let mut followed = None;
    for Record { at, what } in records {
        let What::View {
            prefix,
            revision,
            keys,
            ..
        } = what
        else {
            continue;
        };
        if *revision < known {
            let text = format!("{process} went back from {known} to {revision}");
            verdict.violation("tracker", text);
        }
        let right = case.store.state_at(prefix, *revision);
        if *keys != right {
            let text = format!("{process} showed {keys:?} at {revision}, not {right:?}");
            verdict.violation("tracker", text);
        }
        verdict.count("views of trackers", 1);
        let (changes, started) = followed.get_or_insert_with(|| (case.store.changes(prefix), *at));
        // The first view shows all that was before.
        if let Some((missed, (changed, _))) = changes.range(known + 1..).next()
            && missed <= revision
        {
            late(
                case,
                process,
                *missed,
                (*changed).max(*started),
                *at,
                verdict,
            );
        }
        known = known.max(*revision);
    }
    if let (Some((stopped, ())), Some((changes, started))) =
        (records.iter().rev().find_map(stopped), followed)
        && let Some((missed, (changed, _))) = changes.range(known + 1..).next()
    {
        late(
            case,
            process,
            *missed,
            (*changed).max(started),
            stopped,
            verdict,
        );
    }
}

/// Later leaders have higher tokens, and once all is quiet the leader is known.
fn leaders(case: &Case<'_>, process: &str, records: &[Record], verdict: &mut Verdict) {
    let (mut highest, mut last, mut followed) = (0, None, None);
    for record in records {
        let What::Leads { election, token } = &record.what else {
            continue;
        };
        followed = Some(election);
        last = *token;
        if let Some(token) = *token {
            if token < highest {
                let text = format!("{process} saw {token} lead after {highest}");
                verdict.violation("leaders", text);
            }
            highest = token.max(highest);
        }
    }
    if let (Some((stopped, ())), Some(election)) =
        (records.iter().rev().find_map(stopped), followed)
    {
        let quiet = stopped.saturating_sub(LAG);
        let due = leader(case, &format!("{election}/"), quiet);
        let is_quiet = case.faults.deadline(quiet, LAG, Whom::Process(process)) <= stopped;
        if is_quiet && due.is_some_and(|due| last.unwrap_or(highest) < due) {
            let text = format!("{process} saw {last:?} lead at the end, after {due:?}");
            verdict.violation("convergence", text);
        }
    }
}

/// The token of who led at a moment.
fn leader(case: &Case<'_>, prefix: &str, at: Stamp) -> Option<i64> {
    let candidates = case
        .store
        .under(prefix)
        .flat_map(|(_, versions)| incarnations(versions));
    let present = candidates.filter(|candidate| {
        candidate.created.at <= at && candidate.deleted.is_none_or(|deleted| deleted.at > at)
    });
    present.map(|candidate| candidate.created.revision).min()
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::What;

    fn view(at: f64, revision: i64, keys: &[(&str, &str)]) -> (&'static str, f64, What) {
        let keys = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (prefix, keys) = ("svc/".to_owned(), keys.collect());
        (
            "t",
            at,
            What::View {
                prefix,
                revision,
                keys,
                stale: false,
            },
        )
    }

    fn leads(at: f64, token: i64) -> (&'static str, f64, What) {
        (
            "t",
            at,
            What::Leads {
                election: "lead".to_owned(),
                token: Some(token),
            },
        )
    }

    fn with(records: &[(&'static str, f64, What)]) -> Vec<(&'static str, f64, What)> {
        let store = [
            changed(1.0, 2, &[put("svc/a", "1", 2)]),
            changed(2.0, 3, &[put("svc/b", "1", 3)]),
            changed(2.5, 4, &[put("lead/a", "", 4)]),
            changed(2.6, 5, &[put("lead/b", "", 5)]),
            changed(2.7, 6, &[deleted("lead/a")]),
        ];
        [&store[..], records].concat()
    }

    #[test]
    fn views_of_what_was_there_are_right() {
        let all = [("svc/a", "1"), ("svc/b", "1")];
        let stopped = ("t", 40.0, What::Stopped);
        assert_right(&with(&[
            view(1.1, 2, &all[..1]),
            view(2.1, 3, &all),
            leads(2.6, 4),
            leads(2.8, 5),
            stopped,
        ]));
    }

    #[test]
    fn a_phantom_is_found() {
        assert_found(
            &with(&[view(1.1, 2, &[("svc/a", "1"), ("svc/z", "1")])]),
            "tracker",
        );
    }

    #[test]
    fn a_view_that_goes_back_is_found() {
        let all = [("svc/a", "1"), ("svc/b", "1")];
        assert_found(
            &with(&[view(2.1, 3, &all), view(2.2, 2, &all[..1])]),
            "tracker",
        );
    }

    #[test]
    fn a_tracker_that_does_not_catch_up_is_found() {
        let stopped = ("t", 40.0, What::Stopped);
        assert_found(
            &with(&[view(1.1, 2, &[("svc/a", "1")]), stopped]),
            "convergence",
        );
    }

    #[test]
    fn a_leader_from_the_past_is_found() {
        assert_found(&with(&[leads(2.8, 5), leads(2.9, 4)]), "leaders");
        assert_found(
            &with(&[leads(2.6, 4), ("t", 40.0, What::Stopped)]),
            "convergence",
        );
    }
}

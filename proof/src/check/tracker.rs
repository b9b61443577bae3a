//! Trackers show what the store had at one revision, never go back, and catch up in time; so does who
//! follows a leader.

use super::{
    Case,
    faults::Whom,
    store::incarnations,
    verdict::{Verdict, shown},
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
    let (mut known, mut followed) = (0, None);
    // Since when it says that it may be out of date.
    let mut stale = None;
    for Record { at, what } in records {
        let What::View {
            prefix,
            revision,
            keys,
            stale: is_stale,
        } = what
        else {
            continue;
        };
        if let Some(since) = stale.filter(|_| !is_stale) {
            let span = (since, LAG, Whom::Process(process));
            if case.is_late("tracker current", span, Ok(*at), verdict) {
                let text = format!(
                    "{process} said for {} that it may be out of date",
                    shown(at - since)
                );
                verdict.violation("convergence", text);
            }
        }
        stale = is_stale.then(|| stale.unwrap_or(*at));
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
            let from = (*changed).max(*started);
            late(case, ("tracker", process), *missed, from, Ok(*at), verdict);
        }
        known = known.max(*revision);
    }
    let (Some(stopped), Some((changes, started))) = (stopped(records), followed) else {
        return;
    };
    if let Some((missed, (changed, _))) = changes.range(known + 1..).next() {
        let (from, end) = ((*changed).max(started), Err(stopped));
        late(case, ("tracker", process), *missed, from, end, verdict);
    }
    if let Some(since) = stale
        && case.is_late(
            "tracker current",
            (since, LAG, Whom::Process(process)),
            Err(stopped),
            verdict,
        )
    {
        let text = format!("{process} says to the end that it may be out of date");
        verdict.violation("convergence", text);
    }
}

/// Later leaders have higher tokens, and once all is quiet the leader is known.
fn leaders(case: &Case<'_>, process: &str, records: &[Record], verdict: &mut Verdict) {
    let (mut highest, mut last, mut followed) = (0, None, None);
    for record in records {
        let What::Leads { election, token } = &record.what else {
            continue;
        };
        verdict.count("leaders followed", 1);
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
    let (Some(stopped), Some(election)) = (stopped(records), followed) else {
        return;
    };
    let reigns = reigns(case, &format!("{election}/"));
    told(case, process, records, (&reigns, stopped), verdict);
    let quiet = stopped.saturating_sub(LAG);
    let led = reigns.iter().fold(quiet, |led, reign| {
        if reign.from <= led {
            led.max(reign.to)
        } else {
            led
        }
    });
    // If somebody led all the time, it is not right that nobody does.
    let due = case.faults.due(quiet, LAG, Whom::Process(process));
    if last.is_none() && led >= stopped && due.at <= stopped {
        let text = format!("{process} saw nobody lead at the end, and somebody did");
        verdict.violation("convergence", text);
    }
}

/// Who led, and when.
struct Reign {
    token: i64,
    from: Stamp,
    to: Stamp,
}

/// The leaders one after the other: of those who stand the oldest leads.
fn reigns(case: &Case<'_>, prefix: &str) -> Vec<Reign> {
    let candidates = case
        .store
        .under(prefix)
        .flat_map(|(_, versions)| incarnations(versions));
    let mut candidates: Vec<_> = candidates
        .map(|candidate| Reign {
            token: candidate.created.revision,
            from: candidate.created.at,
            to: candidate.deleted.map_or(Stamp::MAX, |deleted| deleted.at),
        })
        .collect();
    candidates.sort_by_key(|candidate| candidate.token);
    let mut free = 0;
    candidates.retain_mut(|candidate| {
        candidate.from = candidate.from.max(free);
        free = free.max(candidate.to);
        candidate.from < candidate.to
    });
    candidates
}

/// Each leader is told in its time, or that it does not lead any more.
fn told(
    case: &Case<'_>,
    process: &str,
    records: &[Record],
    (reigns, stopped): (&[Reign], Stamp),
    verdict: &mut Verdict,
) {
    let told = |what: &What| match what {
        What::Leads { token, .. } => Some(*token),
        _ => None,
    };
    let begun = records.iter().find(|record| told(&record.what).is_some());
    let begun = begun.map_or(0, |record| record.at);
    for reign in reigns {
        let from = reign.from.max(begun);
        if from >= stopped {
            continue;
        }
        let tells = |record: &&Record| {
            told(&record.what).is_some_and(|token| match token {
                Some(token) => token >= reign.token,
                None => record.at >= reign.to,
            })
        };
        let came = records.iter().find(tells).map(|record| record.at.max(from));
        let span = (from, LAG, Whom::Process(process));
        if case.is_late("leader in time", span, came.ok_or(stopped), verdict) {
            let text = format!("{process} was told late or never that {} led", reign.token);
            verdict.violation("convergence", text);
        }
    }
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
    fn a_tracker_that_says_for_ever_that_it_is_stale_is_found() {
        let all = [("svc/a", "1"), ("svc/b", "1")];
        let view = |at, is_stale| {
            let (process, at, mut what) = view(at, 3, &all);
            if let What::View { stale, .. } = &mut what {
                *stale = is_stale;
            }
            (process, at, what)
        };
        let stopped = ("t", 40.0, What::Stopped);
        assert_found(&with(&[view(2.1, true), stopped.clone()]), "convergence");
        assert_found(&with(&[view(2.1, true), view(30.0, false)]), "convergence");
        assert_right(&with(&[view(2.1, true), view(2.2, false), stopped]));
    }

    #[test]
    fn nobody_who_leads_although_somebody_does_is_found() {
        let (process, at, _) = leads(2.9, 5);
        let nobody = What::Leads {
            election: "lead".to_owned(),
            token: None,
        };
        let stopped = ("t", 40.0, What::Stopped);
        let seen = with(&[
            leads(2.8, 5),
            (process, at, nobody.clone()),
            stopped.clone(),
        ]);
        assert_found(&seen, "convergence");
        let never = with(&[(process, at, nobody.clone()), stopped.clone()]);
        let resigned = changed(39.0, 7, &[deleted("lead/b")]);
        assert_found(
            &[&never[..], std::slice::from_ref(&resigned)].concat(),
            "convergence",
        );
        let after = with(&[leads(2.8, 5), resigned, (process, 39.1, nobody), stopped]);
        assert_right(&after);
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

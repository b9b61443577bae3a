//! Ephemeral keys and registrations stand while their owner lives, and are gone soon after.

use super::{
    Case,
    faults::Whom,
    store::{Incarnation, incarnations},
    verdict::{Verdict, shown},
};
use crate::history::{Record, Stamp, What};

/// What the keys of owners begin with.
const PREFIXES: [&str; 2] = ["eph/", "svc/"];

/// How late the server may be to end a lease.
const SLACK: Stamp = 500_000_000;

/// Checks every key that has an owner.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    for prefix in PREFIXES {
        for (key, versions) in case.store.under(prefix) {
            let Some((owner, _)) = key[prefix.len()..].rsplit_once('-') else {
                continue;
            };
            let incarnations = incarnations(versions);
            gone_after_death(case, key, owner, &incarnations, verdict);
            let records = case
                .history
                .processes
                .get(owner)
                .map_or(&[][..], Vec::as_slice);
            let kept = kept(key, records, case);
            given_up(case, key, owner, &kept, &incarnations, verdict);
            missing(case, key, owner, &kept, &incarnations, verdict);
            lost(key, records, verdict);
        }
    }
}

/// Nobody takes a key from its only owner for good.
fn lost(key: &str, records: &[Record], verdict: &mut Verdict) {
    for record in records {
        if let What::Kept { key: kept, state } = &record.what
            && kept == key
            && state.starts_with("Lost")
        {
            verdict.violation(
                "ephemeral",
                format!("{key} is {state}, and it has one owner"),
            );
        }
    }
}

/// The times in which an owner kept a key: from when it stood first until it was given up, or until
/// the owner died or was told to stop.
struct Kept {
    from: Stamp,
    to: Stamp,
    given_up: bool,
}

fn kept(key: &str, records: &[Record], case: &Case<'_>) -> Vec<Kept> {
    let end = case.store.last().1;
    let mut all: Vec<Kept> = Vec::new();
    let mut open = false;
    for Record { at, what } in records {
        match what {
            What::Kept { key: kept, state } if kept == key && !open && state == "present" => {
                all.push(Kept {
                    from: *at,
                    to: end,
                    given_up: false,
                });
                open = true;
            }
            What::GivenUp { key: given_up } if given_up == key => {
                if let Some(last) = all.last_mut().filter(|_| open) {
                    (last.to, last.given_up) = (*at, true);
                }
                open = false;
            }
            _ => {}
        }
    }
    all
}

/// The keys of who died are gone once the lease ran out; a new leader gives each its time again.
fn gone_after_death(
    case: &Case<'_>,
    key: &str,
    owner: &str,
    incarnations: &[Incarnation<'_>],
    verdict: &mut Verdict,
) {
    let Some(died) = case.faults.process(owner).and_then(|owner| owner.killed) else {
        return;
    };
    let run = &case.history.run;
    let end = case.store.last().1;
    let after = |incarnation: &&Incarnation<'_>| {
        incarnation.deleted.is_none_or(|deleted| deleted.at > died)
    };
    for incarnation in incarnations.iter().filter(after) {
        // The last write of the owner may have come late.
        let from = died.max(incarnation.created.at);
        let time = run.ttl + run.election + SLACK;
        let came = incarnation.deleted.map(|deleted| deleted.at).ok_or(end);
        let (Ok(gone) | Err(gone)) = came;
        verdict.count("keys whose owner died", 1);
        verdict.lasted(
            "time until a key was gone after its owner's death",
            gone - from,
        );
        let span = (from, time, Whom::Members);
        if case.is_late("dead owner's key gone", span, came, verdict) {
            let stood = shown(gone - from);
            let text = format!("{key} stood {stood} after its owner's death");
            verdict.violation("ephemeral", text);
        }
    }
}

/// What is given up is deleted, or its lease runs out.
fn given_up(
    case: &Case<'_>,
    key: &str,
    owner: &str,
    kept: &[Kept],
    incarnations: &[Incarnation<'_>],
    verdict: &mut Verdict,
) {
    let run = &case.history.run;
    let end = case.store.last().1;
    let time = run.timeout + run.ttl + run.election + SLACK;
    for kept in kept.iter().filter(|kept| kept.given_up) {
        let stood = incarnations.iter().find(|incarnation| {
            incarnation.created.at <= kept.to
                && incarnation
                    .deleted
                    .is_none_or(|deleted| deleted.at > kept.to)
        });
        let gone = stood
            .and_then(|stood| stood.deleted)
            .map(|deleted| deleted.at);
        let span = (kept.to, time, Whom::Process(owner));
        let came = gone.ok_or(end);
        if stood.is_some() && case.is_late("given up key gone", span, came, verdict) {
            verdict.violation(
                "ephemeral",
                format!("{key} stands although it was given up"),
            );
        }
    }
}

/// While its owner lives and is connected a key is never missing for longer than it takes to make it
/// again.
fn missing(
    case: &Case<'_>,
    key: &str,
    owner: &str,
    kept: &[Kept],
    incarnations: &[Incarnation<'_>],
    verdict: &mut Verdict,
) {
    let run = &case.history.run;
    let stopping = case
        .history
        .orchestrator()
        .iter()
        .find(|record| record.what == What::Stopping);
    let died = case.faults.process(owner).and_then(|owner| owner.killed);
    let end = died
        .into_iter()
        .chain(stopping.map(|record| record.at))
        .min();
    for incarnation in incarnations {
        let Some(deleted) = incarnation.deleted else {
            continue;
        };
        // What is told late of a key that was given up is no loss of the one after it.
        let created = incarnation.created.at;
        let gives_up = |kept: &Kept| kept.given_up && created < kept.to && kept.to < deleted.at;
        if kept.iter().any(gives_up) {
            continue;
        }
        let while_kept = |kept: &&Kept| kept.from < deleted.at && deleted.at < kept.to;
        let Some(kept) = kept.iter().find(while_kept) else {
            continue;
        };
        let next = incarnations.iter().map(|next| next.created);
        let mut next = next.filter(|next| next.revision > deleted.revision);
        let until = end.map_or(kept.to, |end| end.min(kept.to));
        let came = next
            .next()
            .map(|next| next.at)
            .filter(|next| *next <= until);
        let came = came.ok_or(until);
        let (Ok(back) | Err(back)) = came;
        let Some(gap) = back.checked_sub(deleted.at) else {
            continue;
        };
        verdict.count("keys that were missing while their owner lived", 1);
        verdict.lasted("time that a key was missing while its owner lived", gap);
        let before = deleted.at.saturating_sub(2 * run.ttl);
        if !case.faults.disturbed(owner, before, deleted.at) {
            verdict.count("keys that were missing without any fault", 1);
        }
        let time = run.timeout + run.election;
        let span = (deleted.at, time, Whom::Process(owner));
        if case.is_late("lost key made again", span, came, verdict) {
            let text = format!("{key} was missing for {} while its owner lived", shown(gap));
            verdict.violation("ephemeral", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{ORCHESTRATOR, What};

    const KEY: &str = "eph/p-0";

    fn started() -> (&'static str, f64, What) {
        let started = What::Started {
            process: "p".to_owned(),
            group: 0,
            rate: 1.0,
        };
        (ORCHESTRATOR, 0.0, started)
    }

    fn killed(at: f64) -> (&'static str, f64, What) {
        (
            ORCHESTRATOR,
            at,
            What::Killed {
                process: "p".to_owned(),
            },
        )
    }

    fn present(at: f64) -> (&'static str, f64, What) {
        (
            "p",
            at,
            What::Kept {
                key: KEY.to_owned(),
                state: "present".to_owned(),
            },
        )
    }

    fn given_up(at: f64) -> (&'static str, f64, What) {
        (
            "p",
            at,
            What::GivenUp {
                key: KEY.to_owned(),
            },
        )
    }

    fn with(records: &[(&'static str, f64, What)]) -> Vec<(&'static str, f64, What)> {
        let begun = [started(), changed(1.0, 2, &[put(KEY, "", 2)]), present(1.1)];
        [&begun[..], records].concat()
    }

    #[test]
    fn a_key_that_goes_with_its_owner_is_right() {
        assert_right(&with(&[killed(5.0), changed(8.6, 3, &[deleted(KEY)])]));
        assert_right(&with(&[given_up(5.0), changed(5.1, 3, &[deleted(KEY)])]));
    }

    #[test]
    fn a_new_leader_gives_a_lease_its_time_again() {
        let leader = (ORCHESTRATOR, 7.0, What::Leader { term: 3, member: 1 });
        assert_right(&with(&[
            killed(5.0),
            leader,
            changed(10.9, 3, &[deleted(KEY)]),
        ]));
    }

    #[test]
    fn a_key_that_outlives_its_owner_is_found() {
        assert_found(
            &with(&[killed(5.0), changed(9.2, 3, &[deleted(KEY)])]),
            "ephemeral",
        );
        assert_found(
            &with(&[killed(5.0), changed(20.0, 3, &[put("x", "", 3)])]),
            "ephemeral",
        );
    }

    #[test]
    fn a_key_that_stands_although_it_was_given_up_is_found() {
        assert_found(
            &with(&[given_up(5.0), changed(30.0, 3, &[put("x", "", 3)])]),
            "ephemeral",
        );
    }

    #[test]
    fn a_key_that_its_only_owner_lost_is_found() {
        let (process, at, mut what) = present(2.0);
        if let What::Kept { state, .. } = &mut what {
            *state = "Lost(Conflict)".to_owned();
        }
        assert_found(&with(&[(process, at, what)]), "ephemeral");
    }

    #[test]
    fn a_key_that_is_missing_while_its_owner_lives_is_found() {
        let gone = changed(5.0, 3, &[deleted(KEY)]);
        let soon = [
            gone.clone(),
            changed(6.0, 4, &[put(KEY, "", 4)]),
            changed(30.0, 5, &[]),
        ];
        assert_right(&with(&soon));
        let late = [gone.clone(), changed(15.0, 4, &[put(KEY, "", 4)])];
        assert_found(&with(&late), "ephemeral");
        assert_found(
            &with(&[gone, changed(15.0, 4, &[put("x", "", 4)])]),
            "ephemeral",
        );
    }
}

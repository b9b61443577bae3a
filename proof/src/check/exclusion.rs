//! At most one believes to hold, tokens rise, and nobody is told that it holds who does not.

use std::collections::BTreeMap;

use super::{
    Case,
    early::{BEFORE, ended_early, gone, is_by_server},
    faults::Whom,
    store::{Incarnation, incarnations},
    verdict::{Verdict, shown},
};
use crate::history::{Record, Stamp, What};

/// One hold, as its process knows it.
pub(super) struct Hold<'a> {
    pub(super) process: &'a str,
    pub(super) token: i64,
    pub(super) acquired: Stamp,
    /// When it was believed in last, if ever.
    pub(super) believed: Option<Stamp>,
    /// When the newest beat was sent that is known to be confirmed.
    pub(super) beat: Option<Stamp>,
    /// How it ended, as its process told.
    pub(super) how: Option<&'a str>,
}

impl Hold<'_> {
    /// Whether the store told that it was lost. Who lost it otherwise ends the lease itself.
    pub(super) fn is_taken(&self) -> bool {
        self.how
            .is_some_and(|how| ["Deleted", "Expired", "Revoked"].contains(&how))
    }

    /// Whether its own process ended it while it held.
    pub(super) fn is_given_up(&self) -> bool {
        self.how
            .is_some_and(|how| ["released", "resigned", "ended"].contains(&how))
    }
}

/// Checks every lock and every election.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    verdict.count("overlaps of belief", 0);
    for (name, holds) in holds(case, verdict) {
        verdict.count(format!("acquisitions of {name}"), holds.len());
        let prefix = format!("{name}/");
        let contenders = contenders(case, &prefix);
        beliefs(case, &name, &holds, &contenders, verdict);
        queue(&name, &holds, &contenders, verdict);
        progress(case, &name, &holds, verdict);
    }
}

/// The holds of each name, by their tokens.
fn holds<'a>(case: &Case<'a>, verdict: &mut Verdict) -> BTreeMap<String, BTreeMap<i64, Hold<'a>>> {
    let mut all: BTreeMap<String, BTreeMap<i64, Hold<'a>>> = BTreeMap::new();
    for (process, records) in &case.history.processes {
        let rate = case
            .faults
            .process(process)
            .map_or(1.0, |process| process.rate);
        for Record { at, what } in records {
            match what {
                What::Acquired { hold, token, .. } => {
                    let acquired = Hold {
                        process,
                        token: *token,
                        acquired: *at,
                        believed: None,
                        beat: None,
                        how: None,
                    };
                    let same = all
                        .entry(hold.clone())
                        .or_default()
                        .insert(*token, acquired);
                    if same.is_some() {
                        verdict.violation("tokens", format!("{hold}: {token} was given twice"));
                    }
                }
                What::Held {
                    hold,
                    token,
                    seen,
                    age,
                } => {
                    let hold = all.get_mut(hold).and_then(|holds| holds.get_mut(token));
                    if let Some(hold) = hold {
                        hold.believed = hold.believed.max(Some(*seen));
                        let beat = age.map(|age| seen.saturating_sub((age as f64 / rate) as Stamp));
                        hold.beat = hold.beat.max(beat);
                    }
                }
                What::Ended { hold, token, how } => {
                    let hold = all.get_mut(hold).and_then(|holds| holds.get_mut(token));
                    if let Some(hold) = hold {
                        hold.how = Some(how);
                    }
                }
                _ => {}
            }
        }
    }
    all
}

/// The keys that stood in a queue, by the revisions that made them.
fn contenders<'a>(case: &Case<'a>, prefix: &'a str) -> BTreeMap<i64, Incarnation<'a>> {
    let keys = case
        .store
        .under(prefix)
        .filter(|(key, _)| !key[prefix.len()..].contains('/'));
    keys.flat_map(|(_, versions)| incarnations(versions))
        .map(|contender| (contender.created.revision, contender))
        .collect()
}

/// Nobody believes to hold once somebody with a higher token does.
fn beliefs(
    case: &Case<'_>,
    name: &str,
    holds: &BTreeMap<i64, Hold<'_>>,
    contenders: &BTreeMap<i64, Incarnation<'_>>,
    verdict: &mut Verdict,
) {
    let mut longest: Option<&Hold<'_>> = None;
    for hold in holds.values().filter(|hold| hold.believed.is_some()) {
        verdict.count("beliefs", 1);
        if let Some(former) = longest
            && let Some(overlap) = former.believed.unwrap_or(0).checked_sub(hold.acquired)
        {
            let gone = gone(contenders.get(&former.token)).min(hold.acquired);
            let early = ended_early(case, former, gone);
            let why = early.map_or_else(
                || "the server ended no lease early".to_owned(),
                |early| format!("the server ended the lease {} early", shown(early)),
            );
            let text = format!(
                "{name}: {} believed in {} for {} after {} had acquired {}; {why}; {}",
                former.process,
                former.token,
                shown(overlap),
                hold.process,
                hold.token,
                case.faults
                    .told(hold.acquired.saturating_sub(BEFORE), hold.acquired),
            );
            verdict.count("overlaps of belief", 1);
            verdict.lasted("overlap of belief", overlap);
            if early.is_some() && is_by_server(case, former, contenders.get(&former.token)) {
                verdict.expected.push(text);
            } else {
                verdict.violation("exclusion", text);
            }
        }
        if longest.is_none_or(|longest| longest.believed < hold.believed) {
            longest = Some(hold);
        }
    }
    let early = holds.values().filter(|hold| {
        hold.is_taken() && ended_early(case, hold, gone(contenders.get(&hold.token))).is_some()
    });
    verdict.count("holds whose lease the server ended early", early.count());
}

/// Who acquires has a key, and at some revision nobody's before it stood and its own still did.
fn queue(
    name: &str,
    holds: &BTreeMap<i64, Hold<'_>>,
    contenders: &BTreeMap<i64, Incarnation<'_>>,
    verdict: &mut Verdict,
) {
    let end = |contender: &Incarnation<'_>| {
        contender
            .deleted
            .map_or(i64::MAX, |deleted| deleted.revision)
    };
    let mut before = 0;
    let mut older = contenders.iter().peekable();
    for hold in holds.values() {
        while let Some((_, contender)) = older.next_if(|(created, _)| **created < hold.token) {
            before = before.max(end(contender));
        }
        let who = format!("{name}: {} with {}", hold.process, hold.token);
        match contenders.get(&hold.token) {
            None => verdict.violation("queue", format!("{who} never had a key")),
            Some(own) if end(own) <= before => {
                let text = format!(
                    "{who} lost its key at {} before its turn at {before}",
                    end(own)
                );
                verdict.violation("queue", text);
            }
            Some(_) => {}
        }
    }
}

/// Somebody acquires within a bounded time after the one before.
fn progress(case: &Case<'_>, name: &str, holds: &BTreeMap<i64, Hold<'_>>, verdict: &mut Verdict) {
    let run = &case.history.run;
    let stopping = case
        .history
        .orchestrator()
        .iter()
        .find(|record| record.what == What::Stopping);
    // The lease of who died ends, and a call that was made in vain is made again.
    let time = 2 * run.ttl + run.election + run.timeout;
    let mut free: Option<Stamp> = None;
    let property = format!("next holder of {name}");
    for hold in holds.values() {
        if let Some(free) = free
            && let Some(gap) = hold.acquired.checked_sub(free)
        {
            verdict.lasted(format!("time without a holder of {name}"), gap);
            let span = (free, time, Whom::Anybody);
            if case.is_late(&property, span, Ok(hold.acquired), verdict) {
                let text = format!(
                    "{name}: nobody held for {} before {}",
                    shown(gap),
                    hold.token
                );
                verdict.violation("progress", text);
            }
        }
        free = free.max(Some(hold.believed.unwrap_or(hold.acquired)));
    }
    if let (Some(free), Some(stopping)) = (free, stopping)
        && case.is_late(
            &property,
            (free, time, Whom::Anybody),
            Err(stopping.at),
            verdict,
        )
    {
        let gap = shown(stopping.at - free);
        verdict.violation(
            "progress",
            format!("{name}: nobody held for {gap} at the end"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{Stamp, What};

    fn acquired(process: &'static str, at: f64, token: i64) -> (&'static str, f64, What) {
        let hold = "l".to_owned();
        (
            process,
            at,
            What::Acquired {
                hold,
                token,
                asked: 0,
            },
        )
    }

    fn held(process: &'static str, at: f64, token: i64, age: f64) -> (&'static str, f64, What) {
        let (hold, seen): (_, Stamp) = ("l".to_owned(), seconds(at));
        (
            process,
            at,
            What::Held {
                hold,
                token,
                seen,
                age: Some(seconds(age)),
            },
        )
    }

    /// Two contenders, the first of which is gone after three seconds.
    fn store() -> [(&'static str, f64, What); 4] {
        [
            changed(0.1, 2, &[put("l/a", "", 2)]),
            changed(0.2, 3, &[put("l/b", "", 3)]),
            changed(3.0, 4, &[deleted("l/a")]),
            changed(9.0, 5, &[deleted("l/b")]),
        ]
    }

    fn with(records: &[(&'static str, f64, What)]) -> Vec<(&'static str, f64, What)> {
        [&store()[..], records].concat()
    }

    #[test]
    fn one_hold_after_the_other_is_right() {
        assert_right(&with(&[
            acquired("a", 0.5, 2),
            held("a", 2.9, 2, 1.0),
            acquired("b", 3.1, 3),
            held("b", 4.0, 3, 1.0),
        ]));
    }

    #[test]
    fn an_overlap_of_belief_is_found() {
        let overlap = with(&[
            acquired("a", 0.5, 2),
            held("a", 3.2, 2, 3.1),
            acquired("b", 3.1, 3),
            held("b", 4.0, 3, 1.0),
        ]);
        assert_found(&overlap, "exclusion");
    }

    #[test]
    fn a_belief_that_begins_after_that_of_a_later_holder_is_found() {
        let late = with(&[
            acquired("b", 3.1, 3),
            held("b", 3.2, 3, 1.0),
            acquired("a", 3.5, 2),
            held("a", 3.6, 2, 1.0),
        ]);
        assert_found(&late, "exclusion");
    }

    #[test]
    fn an_overlap_after_a_lease_that_ended_early_is_expected_where_the_server_is_known_for_it() {
        let records = overlap_after_an_early_end();
        assert_found(&records, "exclusion");
        assert_eq!(expected(&records), 1);
    }

    #[test]
    fn an_overlap_is_not_expected_unless_it_was_the_servers_doing() {
        let records = overlap_after_an_early_end();
        // No leader was deposed.
        assert_eq!(expected(&records[1..]), 0);
        // One key was deleted, and another one of the same lease was not.
        let other = changed(0.05, 1, &[put("m/a-1", "", 1)]);
        assert_eq!(expected(&[&records[..], &[other]].concat()), 0);
        // It was believed in for longer than the lease would have lived.
        let slow = held("a", 5.3, 2, 3.1);
        assert_eq!(expected(&[&records[..], &[slow]].concat()), 0);
        // Its owner gave it up, and believed in it all the same.
        let ended = What::Ended {
            hold: "l".to_owned(),
            token: 2,
            how: "released".to_owned(),
        };
        assert_eq!(expected(&[&records[..], &[("a", 3.3, ended)]].concat()), 0);
    }

    fn overlap_after_an_early_end() -> Vec<(&'static str, f64, What)> {
        let deposed = ("orchestrator", 2.0, What::Leader { term: 3, member: 1 });
        let overlap = with(&[
            acquired("a", 0.5, 2),
            held("a", 3.2, 2, 1.0),
            acquired("b", 3.1, 3),
            held("b", 4.0, 3, 1.0),
        ]);
        [&[deposed][..], &overlap].concat()
    }

    /// How many overlaps are the server's doing, where it is known for it.
    fn expected(records: &[(&'static str, f64, What)]) -> usize {
        let mut history = history(records);
        history.run.revokes_early = true;
        let verdict = super::super::judge(&history);
        assert_eq!(verdict.violations.is_empty(), !verdict.expected.is_empty());
        verdict.expected.len()
    }

    #[test]
    fn a_token_that_two_have_is_found() {
        let twice = [acquired("a", 0.5, 2), acquired("b", 3.5, 2)];
        assert_found(&with(&twice), "tokens");
    }

    #[test]
    fn a_holder_without_a_key_is_found() {
        assert_found(&with(&[acquired("c", 3.5, 7)]), "queue");
    }

    #[test]
    fn a_waiter_that_holds_although_its_key_went_before_its_turn_is_found() {
        assert_found(
            &[
                changed(0.1, 2, &[put("l/a", "", 2)]),
                changed(0.2, 3, &[put("l/b", "", 3)]),
                changed(3.0, 4, &[deleted("l/b")]),
                changed(9.0, 5, &[deleted("l/a")]),
                acquired("b", 9.1, 3),
            ],
            "queue",
        );
    }

    #[test]
    fn a_lock_that_nobody_holds_any_more_is_found() {
        let stopping = ("orchestrator", 60.0, What::Stopping);
        let held = [acquired("a", 0.5, 2), held("a", 2.9, 2, 1.0), stopping];
        assert_found(&with(&held), "progress");
    }
}

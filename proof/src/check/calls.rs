//! Every call ends by its deadline, none fails while nothing is wrong, and nothing happens that no fault
//! excuses; and clocks run as they should, or the faults of clocks prove nothing.

use super::{
    Case,
    verdict::{Verdict, shown},
    watch::LAG,
};
use crate::history::{Outcome, Record, Stamp, What};

/// How late a call may end on a machine that has more to do than it can.
const SLACK: Stamp = 2_000_000_000;

/// For how long a process may stand still for a reason that nobody knows.
const BLOCKED: Stamp = 500_000_000;

/// Checks calls, and what processes noted as unexpected.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    for (process, record) in case.history.all() {
        match &record.what {
            What::Operation {
                called,
                action,
                outcome,
                ..
            } => {
                let failed = matches!(outcome, Outcome::Failed { .. } | Outcome::Unknown { .. });
                let error = failed.then(|| format!("{action:?}: {outcome:?}"));
                undisturbed(case, process, (*called, record.at), error, verdict);
                let call = ("read or write", *called, 1);
                in_time(case, process, call, record.at, verdict);
            }
            What::Called {
                call,
                calls,
                called,
                error,
            } => {
                let error = error.as_ref().map(|error| format!("{call}: {error}"));
                undisturbed(case, process, (*called, record.at), error, verdict);
                let call = ("call", *called, u64::from(*calls));
                in_time(case, process, call, record.at, verdict);
            }
            What::Raised {
                called, outcome, ..
            } => {
                let failed = matches!(outcome, Outcome::Failed { .. } | Outcome::Unknown { .. });
                let error = failed.then(|| format!("fenced write: {outcome:?}"));
                undisturbed(case, process, (*called, record.at), error, verdict);
                // It reads and writes.
                in_time(case, process, ("call", *called, 2), record.at, verdict);
            }
            What::Unclosed { error } => {
                let error = Some(format!("close: {error}"));
                undisturbed(case, process, (record.at, record.at), error, verdict);
            }
            What::Paced { own, passed } => paced(case, process, (*own, *passed), verdict),
            What::Starved { since, used, .. } => {
                starved(case, process, record, (*since, *used), verdict);
            }
            What::Unexpected { text } => {
                verdict.violation("unexpected", format!("{process}: {text}"));
            }
            _ => {}
        }
    }
}

/// No call fails while nothing is wrong, and was not for some time.
fn undisturbed(
    case: &Case<'_>,
    process: &str,
    (from, to): (Stamp, Stamp),
    error: Option<String>,
    verdict: &mut Verdict,
) {
    let is_disturbed = case.faults.disturbed(process, from.saturating_sub(LAG), to);
    verdict.case("call undisturbed", !is_disturbed);
    if let Some(error) = error.filter(|_| !is_disturbed) {
        verdict.violation(
            "undisturbed",
            format!("{process}: without a fault: {error}"),
        );
    }
}

/// A call ends by its deadline, unless its process was not run; then it sees no deadline.
fn in_time(
    case: &Case<'_>,
    process: &str,
    (call, called, calls): (&str, Stamp, u64),
    ended: Stamp,
    verdict: &mut Verdict,
) {
    let is_judged = !case.faults.hit(process, called, ended);
    verdict.case(&format!("{call} in time"), is_judged);
    let time = ended.saturating_sub(called);
    verdict.lasted(call, time);
    let bound = ((calls * case.history.run.timeout) as f64 / rate(case, process)) as Stamp + SLACK;
    if is_judged && time > bound {
        let text = format!(
            "{process}: a {call} of {} took {}",
            shown(bound),
            shown(time)
        );
        verdict.violation("deadline", text);
    }
}

fn rate(case: &Case<'_>, process: &str) -> f64 {
    let process = case.faults.process(process);
    process.map_or(1.0, |process| process.rate)
}

fn paced(case: &Case<'_>, process: &str, (own, passed): (Stamp, Stamp), verdict: &mut Verdict) {
    let rate = rate(case, process);
    let paced = own as f64 / passed as f64;
    verdict.count("clocks compared", 1);
    if (paced / rate - 1.0).abs() > 0.01 {
        let text = format!("{process}: its clock ran at {paced:.3}, not {rate}");
        verdict.violation("clock", text);
    }
}

/// A process that was not run waited for a processor, or was stopped.
fn starved(
    case: &Case<'_>,
    process: &str,
    record: &Record,
    (since, used): (Stamp, Stamp),
    verdict: &mut Verdict,
) {
    let late = record.at.saturating_sub(since);
    verdict.count("moments in which a process was not run", 1);
    if used > late / 2 {
        let text = format!("{process} was busy for {} of {}", shown(used), shown(late));
        verdict.violation("blocked", text);
    }
    let blocked = case.faults.blocked(process, record);
    if let Some(blocked) = blocked.filter(|blocked| *blocked > BLOCKED) {
        let text = format!(
            "{process} blocked for {} of {}",
            shown(blocked),
            shown(late)
        );
        verdict.violation("blocked", text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::*;
    use crate::history::{Action, Outcome, What};

    fn read(called: f64, returned: f64) -> (&'static str, f64, What) {
        let (key, called) = ("reg/0".to_owned(), seconds(called));
        let outcome = Outcome::Read {
            revision: 1,
            value: None,
        };
        let action = Action::Read;
        (
            "p",
            returned,
            What::Operation {
                key,
                called,
                action,
                outcome,
            },
        )
    }

    #[test]
    fn a_call_that_hangs_is_found() {
        assert_right(&[read(1.0, 6.2)]);
        assert_found(&[read(1.0, 9.0)], "deadline");
        let called = |calls| What::Called {
            call: "create".to_owned(),
            calls,
            called: seconds(1.0),
            error: None,
        };
        assert_right(&[("p", 9.0, called(2))]);
        assert_found(&[("p", 9.0, called(1))], "deadline");
    }

    #[test]
    fn a_call_that_fails_although_nothing_is_wrong_is_found() {
        let failed = |at: f64| {
            let (process, returned, mut what) = read(at, at + 0.1);
            if let What::Operation { outcome, .. } = &mut what {
                *outcome = Outcome::Failed {
                    error: String::new(),
                };
            }
            (process, returned, what)
        };
        let leader = ("orchestrator", 1.0, What::Leader { term: 2, member: 0 });
        assert_right(&[leader.clone(), failed(5.0)]);
        assert_found(&[leader.clone(), failed(50.0)], "undisturbed");
        let unclosed = |at| {
            (
                "p",
                at,
                What::Unclosed {
                    error: String::new(),
                },
            )
        };
        assert_right(&[leader.clone(), unclosed(5.0)]);
        assert_found(&[leader.clone(), unclosed(50.0)], "undisturbed");
        let called = What::Called {
            call: "create".to_owned(),
            calls: 1,
            called: seconds(50.0),
            error: Some("no".to_owned()),
        };
        assert_found(&[leader, ("p", 50.1, called)], "undisturbed");
    }

    #[test]
    fn a_clock_that_is_not_bent_is_found() {
        let (process, group, rate) = ("p".to_owned(), 0, 1.05);
        let started = (
            "orchestrator",
            0.0,
            What::Started {
                process,
                group,
                rate,
            },
        );
        let paced = |own: f64| {
            (
                "p",
                9.0,
                What::Paced {
                    own: seconds(own),
                    passed: seconds(9.0),
                },
            )
        };
        assert_right(&[started.clone(), paced(9.45)]);
        assert_found(&[started, paced(9.0)], "clock");
    }

    #[test]
    fn a_process_that_blocks_itself_is_found() {
        let starved = |used: f64, waited: f64| {
            let what = What::Starved {
                since: seconds(1.0),
                used: seconds(used),
                waited: Some(seconds(waited)),
                writing: seconds(0.05),
                read_back: false,
            };
            ("p", 3.0, what)
        };
        assert_right(&[starved(0.1, 1.8)]);
        assert_found(&[starved(1.9, 0.0)], "blocked");
        assert_found(&[starved(0.1, 0.1)], "blocked");
    }

    #[test]
    fn what_is_unexpected_is_found() {
        let text = "close: no".to_owned();
        assert_found(&[("p", 1.0, What::Unexpected { text })], "unexpected");
    }
}

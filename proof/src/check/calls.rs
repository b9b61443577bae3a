//! Every call ends by its deadline, none fails while nothing is wrong, and nothing happens that no fault excuses; and clocks run as they
//! should, or the faults of clocks prove nothing.

use super::{
    Case,
    verdict::{Verdict, shown},
    watch::LAG,
};
use crate::history::{Outcome, Stamp, What};

/// How late a call may end on a machine that has more to do than it can.
const SLACK: Stamp = 2_000_000_000;

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
                let before = called.saturating_sub(LAG);
                if failed && !case.faults.disturbed(process, before, record.at) {
                    let text = format!("{process}: {action:?} without any fault: {outcome:?}");
                    verdict.violation("undisturbed", text);
                }
                // A process that is stopped does not see its deadline.
                if case.faults.hit(process, *called, record.at) {
                    continue;
                }
                let rate = case
                    .faults
                    .process(process)
                    .map_or(1.0, |process| process.rate);
                let time = record.at.saturating_sub(*called);
                verdict.lasted("call", time);
                let bound = (case.history.run.timeout as f64 / rate) as Stamp + SLACK;
                if time > bound {
                    let time = shown(time);
                    let text = format!("{process}: {action:?} took {time}: {outcome:?}");
                    verdict.violation("deadline", text);
                }
            }
            What::Paced { own, passed } => {
                let rate = case
                    .faults
                    .process(process)
                    .map_or(1.0, |process| process.rate);
                let paced = *own as f64 / *passed as f64;
                if (paced / rate - 1.0).abs() > 0.01 {
                    let text = format!("{process}: its clock ran at {paced:.3}, not {rate}");
                    verdict.violation("clock", text);
                }
            }
            What::Unclosed { error } => {
                let before = record.at.saturating_sub(LAG);
                if !case.faults.disturbed(process, before, record.at) {
                    verdict.violation("undisturbed", format!("{process}: close: {error}"));
                }
            }
            What::Starved { since, used } => {
                let late = record.at.saturating_sub(*since);
                verdict.count("moments in which a process was not run", 1);
                if *used > late / 2 {
                    let text =
                        format!("{process} was busy for {} of {}", shown(*used), shown(late));
                    verdict.violation("blocked", text);
                }
            }
            What::Unexpected { text } => {
                verdict.violation("unexpected", format!("{process}: {text}"));
            }
            _ => {}
        }
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
        assert_found(&[leader, unclosed(50.0)], "undisturbed");
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
        let starved = |used: f64| {
            let (since, used) = (seconds(1.0), seconds(used));
            ("p", 3.0, What::Starved { since, used })
        };
        assert_right(&[starved(0.1)]);
        assert_found(&[starved(1.9)], "blocked");
    }

    #[test]
    fn what_is_unexpected_is_found() {
        let text = "close: no".to_owned();
        assert_found(&[("p", 1.0, What::Unexpected { text })], "unexpected");
    }
}

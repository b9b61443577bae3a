//! Whether the history is whole, and every property was put to the test: of what nobody looked at, nothing
//! is found.

use std::collections::BTreeSet;

use super::verdict::Verdict;
use crate::history::{History, ORCHESTRATOR, What};

/// What must have been seen at least once.
const SEEN: [&str; 13] = [
    "acquisitions of lead",
    "acquisitions of lock/long",
    "acquisitions of lock/short",
    "beliefs",
    "changes of the store",
    "changes told by watches",
    "clocks compared",
    "fenced writes",
    "leaders followed",
    "lulls",
    "reads and writes",
    "swaps",
    "views of trackers",
];

/// What holds while nothing is wrong, and must have been judged.
const JUDGED: [&str; 10] = [
    "call in time",
    "call undisturbed",
    "given up key gone",
    "leader in time",
    "next holder of lead",
    "next holder of lock/long",
    "next holder of lock/short",
    "read or write in time",
    "tracker in time",
    "watch in time",
];

/// Checks a whole history.
pub(super) fn check(history: &History, verdict: &mut Verdict) {
    ends(history, verdict);
    for what in SEEN {
        if verdict.counted(what) == 0 {
            verdict.violation("untested", format!("{what}: none"));
        }
    }
    JUDGED.iter().for_each(|what| verdict.require_cases(what));
    // Each lull begins with those, if they are among the faults.
    for (kind, property) in [
        ("kill-worker", "dead owner's key gone"),
        ("pause-worker", "lost key made again"),
    ] {
        if verdict.counted(&format!("faults: {kind}")) > 0 {
            verdict.require_cases(property);
        }
    }
}

/// Every process that was started has an end: its own, or the orchestrator's doing.
fn ends(history: &History, verdict: &mut Verdict) {
    let mut running = BTreeSet::new();
    for record in history.orchestrator() {
        match &record.what {
            What::Started { process, .. } => {
                running.insert(process.as_str());
            }
            What::Killed { process } => {
                running.remove(process.as_str());
            }
            _ => {}
        }
    }
    for process in running {
        let records = history
            .processes
            .get(process)
            .map_or(&[][..], Vec::as_slice);
        if !records.iter().any(|record| record.what == What::Stopped) {
            let text = format!("{process} neither stopped nor was it killed");
            verdict.violation("incomplete", text);
        }
    }
    for process in history.processes.keys() {
        let is_known = process == ORCHESTRATOR
            || history.orchestrator().iter().any(|record| {
                matches!(&record.what, What::Started { process: started, .. } if started == process)
            });
        if !is_known {
            verdict.violation("incomplete", format!("nobody started {process}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::made_up::*, *};

    fn found(records: &[(&'static str, f64, What)]) -> Vec<String> {
        let history = history(records);
        let mut verdict = super::super::judge(&history);
        check(&history, &mut verdict);
        verdict.violations
    }

    fn started(process: &str) -> (&'static str, f64, What) {
        let started = What::Started {
            process: process.to_owned(),
            group: 0,
            rate: 1.0,
        };
        (ORCHESTRATOR, 0.0, started)
    }

    #[test]
    fn a_history_without_anything_is_found() {
        let found = found(&[]);
        for property in SEEN.into_iter().chain(JUDGED) {
            let is_property = |text: &String| text.starts_with(&format!("untested: {property}:"));
            assert!(found.iter().any(is_property), "{property}");
        }
    }

    #[test]
    fn a_process_without_an_end_is_found() {
        let incomplete = |records: &[_]| {
            let found = found(records);
            found.iter().any(|text| text.starts_with("incomplete"))
        };
        let process = "p".to_owned();
        assert!(incomplete(&[started("p")]));
        assert!(!incomplete(&[started("p"), ("p", 1.0, What::Stopped)]));
        assert!(!incomplete(&[
            started("p"),
            (ORCHESTRATOR, 1.0, What::Killed { process })
        ]));
        assert!(incomplete(&[("p", 1.0, What::Stopped)]));
    }
}

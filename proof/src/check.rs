//! Whether the history of a run keeps quorate's promises.
//!
//! - `store`, `faults`: what happened to the store, and what was done to whom
//! - `exclusion`, `early`: locks and leaderships, and leases that ended early; `counter`: what was written under their fences
//! - `watch`: watches and observers; `tracker`: trackers, and who follows a leader
//! - `ephemeral`: how long keys stand
//! - `linear`: reads and writes; `calls`: that they end, and end as they should
//! - `complete`: that the history is whole, and that each property was put to the test

mod calls;
mod complete;
mod counter;
mod early;
mod ephemeral;
mod exclusion;
mod faults;
mod linear;
mod store;
mod tracker;
mod verdict;
mod watch;

use std::path::{Path, PathBuf};

use self::{
    faults::{Faults, Whom},
    store::Store,
    verdict::Verdict,
};
use crate::history::{History, Stamp};

/// What is to be checked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The directory of the run.
    directory: PathBuf,
}

/// Checks a run again.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    directory(&options.directory)
}

/// Checks a run, and tells what was found.
pub(crate) fn directory(directory: &Path) -> Result<(), String> {
    let history = History::read(directory)?;
    let mut verdict = judge(&history);
    complete::check(&history, &mut verdict);
    println!("{verdict}");
    match verdict.violations.len() {
        0 => Ok(()),
        count => Err(format!(
            "{count} violations, with seed {}",
            history.run.seed
        )),
    }
}

fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::new(&history.run);
    let store = Store::new(history, &mut verdict);
    let faults = Faults::new(history, &mut verdict);
    let case = Case {
        history,
        store: &store,
        faults: &faults,
    };
    exclusion::check(&case, &mut verdict);
    counter::check(&case, &mut verdict);
    linear::check(&case, &mut verdict);
    watch::check(&case, &mut verdict);
    tracker::check(&case, &mut verdict);
    ephemeral::check(&case, &mut verdict);
    calls::check(&case, &mut verdict);
    verdict
}

/// What is known.
struct Case<'a> {
    history: &'a History,
    store: &'a Store,
    faults: &'a Faults,
}

impl Case<'_> {
    /// Whether something that takes `time` if nothing is wrong came too late, or did not come by the
    /// end. Counts whether that was judged.
    fn is_late(
        &self,
        property: &str,
        (from, time, whom): (Stamp, Stamp, Whom<'_>),
        came: Result<Stamp, Stamp>,
        verdict: &mut Verdict,
    ) -> bool {
        let due = self.faults.due(from, time, whom);
        let (Ok(end) | Err(end)) = came;
        // What did not come is no case unless it was due.
        if came.is_ok() || end > due.at {
            verdict.case(property, due.is_judged);
        }
        end > due.at
    }
}

/// Histories that are made up, for the tests of what looks at them.
#[cfg(test)]
mod made_up {
    use super::*;
    use crate::history::{Change, ORCHESTRATOR, Record, Run, Stamp, What};

    pub(super) const SECOND: Stamp = 1_000_000_000;

    /// A history of records, each with who wrote it and when, in seconds.
    pub(super) fn history(records: &[(&str, f64, What)]) -> History {
        let mut history = History {
            run: Run {
                seed: 0,
                version: "3.5.30".to_owned(),
                members: 3,
                network: "none".to_owned(),
                ttl: 3 * SECOND,
                election: SECOND / 2,
                timeout: 5 * SECOND,
                revokes_early: false,
            },
            processes: Default::default(),
        };
        for (process, at, what) in records {
            let record = Record {
                at: seconds(*at),
                what: what.clone(),
            };
            history
                .processes
                .entry((*process).to_owned())
                .or_default()
                .push(record);
        }
        history
    }

    pub(super) fn seconds(seconds: f64) -> Stamp {
        (seconds * SECOND as f64) as Stamp
    }

    /// What is wrong with a history, each with its property.
    pub(super) fn violations(records: &[(&str, f64, What)]) -> Vec<String> {
        judge(&history(records)).violations
    }

    pub(super) fn changed(at: f64, revision: i64, changes: &[Change]) -> (&'static str, f64, What) {
        (
            ORCHESTRATOR,
            at,
            What::Changed {
                revision,
                changes: changes.to_vec(),
            },
        )
    }

    pub(super) fn put(key: &str, value: &str, created: i64) -> Change {
        Change {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            created,
        }
    }

    pub(super) fn deleted(key: &str) -> Change {
        Change {
            key: key.to_owned(),
            value: None,
            created: 0,
        }
    }

    /// Asserts that there is one violation, of a property.
    pub(super) fn assert_found(records: &[(&str, f64, What)], property: &str) {
        let found = violations(records);
        assert!(
            found
                .iter()
                .any(|violation| violation.starts_with(property)),
            "{property} is not among {found:?}"
        );
    }

    pub(super) fn assert_right(records: &[(&str, f64, What)]) {
        let found = violations(records);
        assert!(found.is_empty(), "{found:?}");
    }
}

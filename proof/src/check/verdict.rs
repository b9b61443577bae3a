//! What was found.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::history::{Run, Stamp};

/// How often a property was put to the test that holds while nothing is wrong.
#[derive(Clone, Copy, Default)]
struct Cases {
    judged: u64,
    /// A fault that began meanwhile was an excuse, whether one was needed or not.
    excused: u64,
}

/// Everything that was found in a run.
pub(super) struct Verdict {
    run: Run,
    /// What must never happen, each with the property that it breaks.
    pub(super) violations: Vec<String>,
    /// What was to be expected of this server, and why it is not our doing.
    pub(super) expected: Vec<String>,
    counts: BTreeMap<String, u64>,
    cases: BTreeMap<String, Cases>,
    longest: BTreeMap<String, Stamp>,
}

impl Verdict {
    pub(super) fn new(run: &Run) -> Self {
        Self {
            run: run.clone(),
            violations: Vec::new(),
            expected: Vec::new(),
            counts: BTreeMap::new(),
            cases: BTreeMap::new(),
            longest: BTreeMap::new(),
        }
    }

    /// Notes that a property is broken.
    pub(super) fn violation(&mut self, property: &str, text: impl fmt::Display) {
        self.violations.push(format!("{property}: {text}"));
    }

    /// Counts something; it is told even if there is none.
    pub(super) fn count(&mut self, what: impl Into<String>, number: usize) {
        *self.counts.entry(what.into()).or_default() += number as u64;
    }

    /// How often something was counted.
    pub(super) fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Counts a case of a property that holds while nothing is wrong.
    pub(super) fn case(&mut self, property: &str, is_judged: bool) {
        let cases = self.cases.entry(property.to_owned()).or_default();
        if is_judged {
            cases.judged += 1;
        } else {
            cases.excused += 1;
        }
    }

    /// Notes it if a property was never judged.
    pub(super) fn require_cases(&mut self, property: &str) {
        let cases = self.cases.entry(property.to_owned()).or_default();
        if cases.judged == 0 {
            let text = format!("{property}: no case was judged, {} excused", cases.excused);
            self.violation("untested", text);
        }
    }

    /// Notes how long something took, if nothing took longer.
    pub(super) fn lasted(&mut self, what: impl Into<String>, time: Stamp) {
        let longest = self.longest.entry(what.into()).or_default();
        *longest = time.max(*longest);
    }
}

/// So many are told of each kind; the history has them all.
const TOLD: usize = 30;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run {
            seed,
            version,
            members,
            network,
            ..
        } = &self.run;
        writeln!(
            f,
            "etcd {version}, {members} members, {network}, seed {seed}"
        )?;
        for (what, count) in &self.counts {
            writeln!(f, "  {what}: {count}")?;
        }
        for (property, Cases { judged, excused }) in &self.cases {
            writeln!(f, "  {property}, judged: {judged}")?;
            writeln!(f, "  {property}, excused: {excused}")?;
        }
        for (what, time) in &self.longest {
            writeln!(f, "  longest {what}: {}", shown(*time))?;
        }
        for (title, texts) in [
            ("expected", &self.expected),
            ("violation", &self.violations),
        ] {
            for text in texts.iter().take(TOLD) {
                writeln!(f, "{title}: {text}")?;
            }
            if texts.len() > TOLD {
                writeln!(f, "{title}: and {} more", texts.len() - TOLD)?;
            }
        }
        write!(
            f,
            "{} violations, {} expected",
            self.violations.len(),
            self.expected.len()
        )
    }
}

/// A time for people.
pub(super) fn shown(time: Stamp) -> String {
    format!("{:.3} s", Duration::from_nanos(time).as_secs_f64())
}

//! What was done to whom, and until when that excuses what is late.

use std::collections::BTreeMap;

use super::verdict::Verdict;
use crate::history::{History, ORCHESTRATOR, Record, Stamp, TICK, What, nanos};

/// All that was done in a run.
#[derive(Default)]
pub(super) struct Faults {
    /// In the order in which they began.
    all: Vec<Fault>,
    processes: BTreeMap<String, Process>,
}

struct Fault {
    began: Stamp,
    ended: Stamp,
    kind: String,
    target: String,
}

/// When something is due.
pub(super) struct Due {
    pub(super) at: Stamp,
    /// Whether no fault that began meanwhile is an excuse.
    pub(super) is_judged: bool,
}

/// A process, as whoever started it knows it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) started: Stamp,
    /// When it was known to run no more, if it was killed.
    pub(super) killed: Option<Stamp>,
    group: usize,
    /// The rate of its clocks.
    pub(super) rate: f64,
}

/// Whom a fault must concern to be an excuse.
#[derive(Clone, Copy)]
pub(super) enum Whom<'a> {
    /// Anybody.
    Anybody,
    /// The members.
    Members,
    /// The members, or this process.
    Process(&'a str),
}

impl Faults {
    pub(super) fn new(history: &History, verdict: &mut Verdict) -> Self {
        let mut faults = Self::default();
        let mut open = BTreeMap::new();
        for record in history.orchestrator() {
            match &record.what {
                What::FaultBegan {
                    fault,
                    kind,
                    target,
                } => {
                    open.insert(*fault, faults.all.len());
                    verdict.count(format!("faults: {kind}"), 0);
                    // Until it is known to have ended it lasts.
                    faults.add(record.at, Stamp::MAX, kind, target);
                }
                What::FaultEnded { fault, missed } => {
                    if let Some(index) = open.remove(fault) {
                        let fault = &mut faults.all[index];
                        fault.ended = record.at;
                        let not_done = missed.as_ref().map_or("", |_| ", not done");
                        verdict.count(format!("faults: {}{not_done}", fault.kind), 1);
                    }
                }
                What::Quiet => verdict.count("lulls", 1),
                What::Leader { term, .. } => {
                    verdict.count("leaders of the cluster", 1);
                    faults.add(record.at, record.at, LEADER, &format!("of term {term}"));
                }
                What::Starved { since, .. } => {
                    verdict.count("moments in which the machine had too much to do", 1);
                    faults.add(*since, record.at, STARVED, EVERYBODY);
                }
                what => faults.know(record.at, what),
            }
        }
        for (process, record) in history
            .all()
            .filter(|(process, _)| *process != ORCHESTRATOR)
        {
            if let What::Starved { since, .. } = record.what
                && faults.blocked(process, record).is_none()
            {
                faults.add(since, record.at, STARVED, process);
            }
        }
        faults.all.sort_by_key(|fault| fault.began);
        let skewed = faults
            .processes
            .values()
            .filter(|process| process.rate != 1.0);
        verdict.count("faults: clocks", skewed.count());
        faults
    }

    fn add(&mut self, began: Stamp, ended: Stamp, kind: &str, target: &str) {
        self.all.push(Fault {
            began,
            ended,
            kind: kind.to_owned(),
            target: target.to_owned(),
        });
    }

    /// Takes note of what became of a process.
    fn know(&mut self, at: Stamp, what: &What) {
        match what {
            What::Started {
                process,
                group,
                rate,
            } => {
                let started = Process {
                    started: at,
                    killed: None,
                    group: *group,
                    rate: *rate,
                };
                self.processes.insert(process.clone(), started);
            }
            What::Killed { process } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.killed = Some(at);
                }
            }
            _ => {}
        }
    }

    /// A process, if it was started.
    pub(super) fn process(&self, name: &str) -> Option<&Process> {
        self.processes.get(name)
    }

    /// When something that takes `time` if nothing is wrong must be done at the latest: so long after
    /// `from`, or after the last disturbance before it is done.
    pub(super) fn due(&self, from: Stamp, time: Stamp, whom: Whom<'_>) -> Due {
        let mut due = Due {
            at: from + time,
            is_judged: true,
        };
        for fault in self.all.iter().filter(|fault| self.concerns(fault, whom)) {
            if fault.began <= due.at && fault.ended > from {
                due.at = due.at.max(fault.ended.saturating_add(time));
                due.is_judged &= fault.began <= from;
            }
        }
        due
    }

    /// Whether a leader may have been deposed unawares within a time.
    pub(super) fn deposes(&self, from: Stamp, to: Stamp) -> bool {
        const DISKS: [&str; 2] = ["slow-disk", "stalled-disk"];
        self.within(from, to)
            .any(|fault| fault.kind == LEADER || DISKS.contains(&fault.kind.as_str()))
    }

    /// How long a process kept itself from running, if a record says so: it neither worked nor waited
    /// for a processor or the disk, nobody stopped it, and the machine did not stand still.
    pub(super) fn blocked(&self, process: &str, record: &Record) -> Option<Stamp> {
        let What::Starved {
            since,
            used,
            waited: Some(waited),
            writing,
            read_back: false,
        } = record.what
        else {
            return None;
        };
        let late = record.at.saturating_sub(since + nanos(TICK));
        let blocked = late.saturating_sub(used + waited + writing);
        let is_stopped = |fault: &Fault| fault.target == process || fault.target == EVERYBODY;
        let is_excused = self.within(since, record.at).any(is_stopped);
        (blocked > late / 2 && !is_excused).then_some(blocked)
    }

    /// Whether something was done to a process itself, or to its group, within a time.
    pub(super) fn hit(&self, process: &str, from: Stamp, to: Stamp) -> bool {
        self.within(from, to)
            .any(|fault| !is_of_members(fault) && self.concerns(fault, Whom::Process(process)))
    }

    /// Whether something was done to a process or to the members within a time.
    pub(super) fn disturbed(&self, process: &str, from: Stamp, to: Stamp) -> bool {
        self.within(from, to)
            .any(|fault| self.concerns(fault, Whom::Process(process)))
    }

    /// What was done in a time, for people.
    pub(super) fn told(&self, from: Stamp, to: Stamp) -> String {
        let done = self.within(from, to).filter(|fault| fault.kind != STARVED);
        let told = done.map(|fault| {
            let before = (to as f64 - fault.began as f64) / 1e9;
            format!("{} {} {before:.1} s before", fault.kind, fault.target)
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            "no fault".to_owned()
        } else {
            told.join(", ")
        }
    }

    fn within(&self, from: Stamp, to: Stamp) -> impl Iterator<Item = &Fault> {
        let in_time = move |fault: &&Fault| fault.began <= to && fault.ended >= from;
        self.all.iter().filter(in_time)
    }

    fn concerns(&self, fault: &Fault, whom: Whom<'_>) -> bool {
        match whom {
            Whom::Anybody => true,
            Whom::Members => is_of_members(fault),
            Whom::Process(name) => {
                let group = self.processes.get(name).map(|process| process.group);
                is_of_members(fault)
                    || fault.target == name
                    || group.is_some_and(|group| fault.target == format!("group {group}"))
            }
        }
    }
}

const LEADER: &str = "new leader";
const STARVED: &str = "starved";
const EVERYBODY: &str = "everybody";

/// Whether a fault concerns everybody.
fn is_of_members(fault: &Fault) -> bool {
    if fault.kind == STARVED {
        return fault.target == EVERYBODY;
    }
    const OF_CLIENTS: [&str; 5] = [
        "cut-clients",
        "mute-members",
        "kill-worker",
        "pause-worker",
        "starve",
    ];
    !OF_CLIENTS.contains(&fault.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::{super::made_up::*, *};

    fn faults(records: &[(&'static str, f64, What)]) -> Faults {
        let history = history(records);
        Faults::new(&history, &mut Verdict::new(&history.run))
    }

    fn fault(from: f64, to: f64, kind: &str, target: &str) -> [(&'static str, f64, What); 2] {
        let (kind, target) = (kind.to_owned(), target.to_owned());
        let fault = seconds(from);
        let began = What::FaultBegan {
            fault,
            kind,
            target,
        };
        [
            (ORCHESTRATOR, from, began),
            (
                ORCHESTRATOR,
                to,
                What::FaultEnded {
                    fault,
                    missed: None,
                },
            ),
        ]
    }

    fn deadline(faults: &Faults, from: f64, whom: Whom<'_>) -> f64 {
        faults.due(seconds(from), 3 * SECOND, whom).at as f64 / SECOND as f64
    }

    #[test]
    fn what_is_disturbed_may_take_its_time_again_afterwards() {
        let one = fault(10.0, 12.0, "kill", "members [0]");
        let next = fault(14.0, 16.0, "compact", "member 1");
        let faults = faults(&[one, next].concat());
        assert_eq!(deadline(&faults, 5.0, Whom::Members), 8.0);
        assert_eq!(deadline(&faults, 8.0, Whom::Members), 19.0);
        assert_eq!(deadline(&faults, 12.5, Whom::Members), 19.0);
        assert_eq!(deadline(&faults, 17.0, Whom::Members), 20.0);
    }

    #[test]
    fn what_a_later_fault_excuses_is_not_judged() {
        let records = [
            fault(10.0, 12.0, "kill", "members [0]"),
            fault(30.0, 31.0, "kill", "members [0]"),
        ];
        let faults = faults(&records.concat());
        let is_judged = |from| {
            faults
                .due(seconds(from), 3 * SECOND, Whom::Members)
                .is_judged
        };
        assert!(is_judged(6.0));
        assert!(!is_judged(8.0));
        assert!(is_judged(11.0));
        assert!(is_judged(13.0));
        assert!(!is_judged(28.0));
    }

    #[test]
    fn a_fault_without_an_effect_is_not_counted() {
        let mut records = fault(1.0, 2.0, "stalled-disk", "member 0").to_vec();
        if let What::FaultEnded { missed, .. } = &mut records[1].2 {
            *missed = Some("strace had ended".to_owned());
        }
        let history = history(&records);
        let mut verdict = Verdict::new(&history.run);
        Faults::new(&history, &mut verdict);
        assert_eq!(verdict.counted("faults: stalled-disk"), 0);
        assert_eq!(verdict.counted("faults: stalled-disk, not done"), 1);
    }

    #[test]
    fn who_blocks_itself_is_not_excused_for_what_is_late() {
        let starved = What::Starved {
            since: seconds(5.0),
            used: 0,
            waited: Some(SECOND / 10),
            writing: 0,
            read_back: false,
        };
        let itself = faults(&[("p", 6.0, starved.clone())]);
        assert_eq!(deadline(&itself, 4.0, Whom::Process("p")), 7.0);
        let stopped = fault(4.9, 6.1, "pause-worker", "p");
        let stopped = [&[("p", 6.0, starved)][..], &stopped].concat();
        assert_eq!(deadline(&faults(&stopped), 5.0, Whom::Process("p")), 9.1);
    }

    #[test]
    fn who_is_not_run_is_excused_for_what_is_late() {
        let starved = |process, at| {
            (
                process,
                at,
                What::Starved {
                    since: seconds(at - 1.0),
                    used: 0,
                    waited: Some(SECOND),
                    writing: 0,
                    read_back: false,
                },
            )
        };
        let own = faults(&[starved("p", 6.0)]);
        assert_eq!(deadline(&own, 4.0, Whom::Process("p")), 9.0);
        assert_eq!(deadline(&own, 4.0, Whom::Process("q")), 7.0);
        assert_eq!(deadline(&own, 4.0, Whom::Members), 7.0);
        let all = faults(&[starved(ORCHESTRATOR, 6.0)]);
        assert_eq!(deadline(&all, 4.0, Whom::Members), 9.0);
    }

    #[test]
    fn what_is_done_to_one_client_is_no_excuse_for_another() {
        let process = "p".to_owned();
        let started = (
            ORCHESTRATOR,
            0.0,
            What::Started {
                process,
                group: 1,
                rate: 1.0,
            },
        );
        let records = [
            &[started][..],
            &fault(1.0, 9.0, "cut-clients", "group 1"),
            &fault(21.0, 29.0, "pause-worker", "q"),
        ];
        let faults = faults(&records.concat());
        assert_eq!(deadline(&faults, 2.0, Whom::Process("p")), 12.0);
        assert_eq!(deadline(&faults, 2.0, Whom::Process("q")), 5.0);
        assert_eq!(deadline(&faults, 2.0, Whom::Members), 5.0);
        assert_eq!(deadline(&faults, 2.0, Whom::Anybody), 12.0);
        assert_eq!(deadline(&faults, 22.0, Whom::Process("p")), 25.0);
        assert!(faults.hit("q", seconds(20.0), seconds(22.0)));
        assert!(!faults.hit("p", seconds(20.0), seconds(22.0)));
    }
}

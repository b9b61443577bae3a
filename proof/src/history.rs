//! What happened in a run, as its processes wrote it down: one file a process, one line of JSON a record.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

mod starvation;

pub(crate) use self::starvation::{TICK, note_starvation};

/// A moment of the clock that all processes of the machine share and nothing bends: in nanoseconds.
pub(crate) type Stamp = u64;

/// Reads that clock. The shim that bends clocks leaves this one alone.
pub(crate) fn now() -> Stamp {
    clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)
        .map(|time| nanos(time.into()))
        .expect("Linux has this clock")
}

/// How much of a processor this process used so far.
pub(crate) fn used() -> Stamp {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map(|time| nanos(time.into()))
        .expect("Linux has this clock")
}

/// A duration in the unit of stamps.
pub(crate) fn nanos(duration: Duration) -> Stamp {
    u64::try_from(duration.as_nanos()).unwrap_or(Stamp::MAX)
}

/// How a run was, for who checks it later: `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// The version of etcd, such as `3.4.23`.
    pub(crate) version: String,
    pub(crate) members: usize,
    /// How clients were parted from members.
    pub(crate) network: String,
    /// The time to live of all sessions, in nanoseconds.
    pub(crate) ttl: Stamp,
    /// The election timeout of the cluster, in nanoseconds.
    pub(crate) election: Stamp,
    /// How long a call may take in all, in nanoseconds.
    pub(crate) timeout: Stamp,
    /// Whether this etcd is known to end leases early when its leader's disk stalls.
    pub(crate) revokes_early: bool,
}

/// One record of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at: Stamp,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What is recorded. Moments that lie before the record's own are fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum What {
    // By the orchestrator.
    /// A process was started, in a group of clients, with this rate of its clocks.
    Started {
        process: String,
        group: usize,
        rate: f64,
    },
    /// A process was killed, and is known to run no more.
    Killed { process: String },
    /// A fault began.
    FaultBegan {
        fault: u64,
        kind: String,
        target: String,
    },
    /// It ended. If its effect was not seen, why; then it may have been done in part.
    FaultEnded {
        fault: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missed: Option<String>,
    },
    /// History before this revision was compacted, or may have been; the record's moment is before that.
    Compacted { revision: i64 },
    /// A leader was heard of for the first time.
    Leader { term: u64, member: usize },
    /// The store changed; the record's moment is when the first reference watch told.
    Changed { revision: i64, changes: Vec<Change> },
    /// A reference watch told something else than another one, or left something out.
    Contradiction { text: String },
    /// No fault follows for so long that whatever is late by then is so by nobody's fault.
    Quiet,
    /// The processes were told to stop.
    Stopping,

    // By who holds: locks and leaderships.
    /// A hold began; it had been asked for at `asked`.
    Acquired {
        hold: String,
        token: i64,
        asked: Stamp,
    },
    /// It was believed in at `seen`; the beat confirmed last had been sent `age` before by this
    /// process's clock.
    Held {
        hold: String,
        token: i64,
        seen: Stamp,
        age: Option<Stamp>,
    },
    /// It ended, by a loss or a release.
    Ended {
        hold: String,
        token: i64,
        how: String,
    },
    /// A counter was raised under the fence of this token.
    Raised {
        counter: String,
        token: i64,
        called: Stamp,
        outcome: Outcome,
        /// What the value ends with, by which it is known.
        #[serde(default)]
        mark: String,
    },

    // By who keeps keys.
    /// An ephemeral key or a registration stands, or does not, as its owner knows.
    Kept { key: String, state: String },
    /// The owner gave the key up.
    GivenUp { key: String },

    // By readers and writers of registers.
    /// One operation on a key.
    Operation {
        key: String,
        called: Stamp,
        action: Action,
        outcome: Outcome,
    },

    /// A call of any other kind ended, which may take as long as this many calls.
    Called {
        call: String,
        calls: u32,
        called: Stamp,
        error: Option<String>,
    },

    // By who watches.
    /// A watch or an observer begins, of the keys with this prefix.
    Watching { prefix: String },
    /// Changes of one revision were told.
    Told { revision: i64, changes: Vec<Change> },
    /// History was lost: these are all keys now.
    Reset {
        revision: i64,
        keys: BTreeMap<String, String>,
    },
    /// A tracker's view: everything at one revision, and whether it says that it may be out of date.
    View {
        prefix: String,
        revision: i64,
        keys: BTreeMap<String, String>,
        stale: bool,
    },
    /// Who leads, as somebody knows who follows that.
    Leads {
        election: String,
        token: Option<i64>,
    },
    /// The process was not run for some time, until now; meanwhile it used this much of a processor,
    /// and waited so long for one.
    Starved {
        since: Stamp,
        used: Stamp,
        #[serde(default)]
        waited: Option<Stamp>,
        /// How long it wrote its history.
        #[serde(default)]
        writing: Stamp,
        /// Whether it had to read its own memory from the disk.
        #[serde(default)]
        read_back: bool,
    },
    /// How much time passed by the process's own clock, and by that of the stamps.
    Paced { own: Stamp, passed: Stamp },
    /// The client could not be closed as it should be.
    Unclosed { error: String },
    /// The last record of a process that was told to stop.
    Stopped,
    /// A call that must not fail so did.
    Unexpected { text: String },
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) key: String,
    /// What was put; `None` for a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// The revision that made the key; zero for a deletion.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) created: i64,
}

/// What an operation on a register does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    Read,
    Write { value: String },
    Swap { expected: String, value: String },
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Written at this revision.
    Written { revision: i64 },
    /// Read at this revision; a swap that was refused reads too.
    Read {
        revision: i64,
        value: Option<String>,
    },
    /// It did not happen.
    Failed { error: String },
    /// Refused since the hold is gone: it did not happen.
    Lost,
    /// It may have happened.
    Unknown { error: String },
}

/// Writes the history of one process. A line is written at once, so that a kill loses nothing.
pub(crate) struct Log {
    file: File,
}

impl Log {
    /// Opens the history of a process in a run's directory.
    pub(crate) fn open(directory: &Path, process: &str) -> io::Result<Self> {
        let path = directory.join(format!("{process}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    /// Reads the history of one process.
    pub(crate) fn read(directory: &Path, process: &str) -> Result<Vec<Record>, String> {
        let told = |error: io::Error| format!("{process}: {error}");
        let text = fs::read_to_string(directory.join(format!("{process}.jsonl"))).map_err(told)?;
        records(&text).map_err(|error| format!("{process}: {error}"))
    }

    /// Records what happened now.
    pub(crate) fn note(&mut self, what: What) {
        self.note_at(now(), what);
    }

    /// Records what happened at a moment.
    pub(crate) fn note_at(&mut self, at: Stamp, what: What) {
        let mut line = serde_json::to_vec(&Record { at, what }).expect("a record is plain data");
        line.push(b'\n');
        let begun = now();
        self.file
            .write_all(&line)
            .expect("the history can be written");
        starvation::wrote(now() - begun);
    }
}

/// All that is known of a run.
pub(crate) struct History {
    pub(crate) run: Run,
    /// The records of each process, in the order of their moments.
    pub(crate) processes: BTreeMap<String, Vec<Record>>,
}

/// The name under which the orchestrator writes.
pub(crate) const ORCHESTRATOR: &str = "orchestrator";

impl History {
    /// Reads the history of a run from its directory.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        let text = |path: &Path| {
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let run = serde_json::from_str(&text(&directory.join("run.json"))?)
            .map_err(|error| format!("run.json: {error}"))?;
        let mut processes = BTreeMap::new();
        let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let (Some(process), Some("jsonl")) = (stem, path.extension().and_then(|e| e.to_str()))
            else {
                continue;
            };
            let records = records(&text(&path)?).map_err(|error| format!("{process}: {error}"))?;
            processes.insert(process, records);
        }
        Ok(Self { run, processes })
    }

    /// The records of all processes, with their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.processes.iter().flat_map(|(process, records)| {
            records.iter().map(move |record| (process.as_str(), record))
        })
    }

    /// The records of the orchestrator.
    pub(crate) fn orchestrator(&self) -> &[Record] {
        self.processes.get(ORCHESTRATOR).map_or(&[], Vec::as_slice)
    }
}

/// Reads lines. The last one may be torn, by a kill in the midst of writing it.
fn records(text: &str) -> Result<Vec<Record>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut records = whole
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}")))
        .collect::<Result<Vec<Record>, _>>()?;
    records.sort_by_key(|record| record.at);
    Ok(records)
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), "p").unwrap();
        let what = What::Raised {
            counter: "c".to_owned(),
            token: 7,
            called: 1,
            outcome: Outcome::Unknown {
                error: "e".to_owned(),
            },
            mark: "m".to_owned(),
        };
        log.note_at(5, what.clone());
        log.note_at(4, What::Quiet);
        let text = fs::read_to_string(directory.path().join("p.jsonl")).unwrap();
        let torn = format!("{text}{{\"at\":6,");
        let read = records(&torn).unwrap();
        assert_eq!((read[0].at, &read[0].what), (4, &What::Quiet));
        assert_eq!((read[1].at, &read[1].what), (5, &what));
        assert_eq!(read.len(), 2);
    }
}

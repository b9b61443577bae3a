//! What the orchestrator asks of the process, and what it is answered: one line of JSON each.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    runtime::Handle,
    time::{sleep, timeout},
};

use crate::history::{Stamp, used};

/// Where the process listens, in the directory of the run.
pub(crate) const SOCKET: &str = "soak.sock";

/// How long after the last fault everything may take to agree, and to go back to its level.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Come to rest, and tell when all agree with the store.
    Rest,
    /// Tell what there is of everything.
    Sample,
    /// Go on.
    Go,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Quiet(Quiet),
    Sample(Sample),
    Failed(String),
    Going,
}

/// How everything came to agree with the store.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Quiet {
    /// How long each recipe took, in nanoseconds.
    pub(crate) times: BTreeMap<String, Stamp>,
    /// What did not agree in time.
    pub(crate) disagreements: Vec<String>,
}

/// What there is of everything at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Memory, in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
    pub(crate) tasks: u64,
    pub(crate) keys: u64,
    pub(crate) leases: u64,
    /// Watches and the streams that they share, as all members count them.
    pub(crate) watches: u64,
    pub(crate) streams: u64,
    /// How much of a processor the process used so far, in nanoseconds.
    pub(crate) used: Stamp,
    /// How often each recipe was used.
    pub(crate) operations: BTreeMap<String, u64>,
}

impl Sample {
    /// What this process can tell of itself, where tokio runs.
    pub(crate) fn of_this_process(operations: BTreeMap<String, u64>) -> Self {
        let entries = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let count = |number: usize| u64::try_from(number).expect("there are not that many");
        Self {
            memory: memory().unwrap_or(0),
            // One of them reads the directory.
            descriptors: count(entries).saturating_sub(1),
            tasks: count(Handle::current().metrics().num_alive_tasks()),
            used: used(),
            operations,
            ..Self::default()
        }
    }

    /// Whether there is as much of everything, memory aside.
    pub(crate) fn has_counts_of(&self, other: &Self) -> bool {
        let counts = |of: &Self| {
            (
                of.descriptors,
                of.tasks,
                of.keys,
                of.leases,
                of.watches,
                of.streams,
            )
        };
        counts(self) == counts(other)
    }
}

fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = { status.lines() }.find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The line to the process.
pub(crate) struct Line(BufReader<UnixStream>);

impl Line {
    /// Connects, once the process listens.
    pub(crate) async fn open(directory: &Path) -> Result<Self, String> {
        let connect = async {
            loop {
                match UnixStream::connect(directory.join(SOCKET)).await {
                    Ok(stream) => return Self(BufReader::new(stream)),
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let line = timeout(LIMIT, connect).await;
        line.map_err(|_| "the process does not start: see soak-0.0.err".to_owned())
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Answer, String> {
        let told = |error: std::io::Error| format!("the process does not answer: {error}");
        let mut line = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let answer = async {
            self.0.get_mut().write_all(&line).await?;
            let mut answer = String::new();
            self.0.read_line(&mut answer).await?;
            Ok(answer)
        };
        let answer = timeout(LIMIT * 2, answer).await;
        let answer = answer.map_err(|_| "the process hangs".to_owned())?;
        parse(&answer.map_err(told)?)
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| format!("the process said {line:?}: {error}"))
}

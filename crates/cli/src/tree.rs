//! Kills a command with all that descends from it, wherever it has moved.
//!
//! A process can leave its group: `timeout`, `setsid` and interactive shells do. So the group alone does
//! not do to end a command; its descendants are found by their parents (on Linux, in `/proc`). One whose
//! parent has ended is nobody's descendant any more, and is not found.

use std::{collections::BTreeMap, fs};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often the processes are looked through before those found are killed. Those found are stopped, so
/// that only what was being made meanwhile is new in the next look.
const LOOKS: usize = 16;

/// A process that is told from any later one with the same number by the time at which it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pid: i32,
    started: u64,
}

/// What is known of a running process.
struct Process {
    parent: i32,
    started: u64,
}

impl Root {
    /// The process of that number; `None` if there is none, or if this system does not tell.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let started = process(pid)?.started;
        Some(Self { pid, started })
    }

    /// Reads what [`Root::to_words`] wrote.
    pub(crate) fn from_words(words: &str) -> Option<Self> {
        let (pid, started) = words.split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    /// Two numbers, to be handed to another process.
    pub(crate) fn to_words(self) -> String {
        format!("{} {}", self.pid, self.started)
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(self, signal: Signal) {
        if Self::of(self.pid) == Some(self) {
            // It fails if the process has just ended, which is as well.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Kills the process and all that descends from it. Each is stopped when it is found, so that it
    /// makes no others while the rest is looked for.
    pub(crate) fn kill(self) {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            let new = self.find(&found);
            if new.is_empty() {
                break;
            }
            for process in &new {
                process.signal(Signal::SIGSTOP);
            }
            found.extend(new);
        }
        for process in found {
            process.signal(Signal::SIGKILL);
        }
    }

    /// This process and its descendants, without those `known`.
    fn find(self, known: &[Self]) -> Vec<Self> {
        let processes = processes();
        let is_root = |pid: i32| {
            pid == self.pid
                && processes
                    .get(&pid)
                    .is_some_and(|root| root.started == self.started)
        };
        let descends = |mut pid: i32| {
            // Parents are older, so this ends; the bound is for what changed during the look.
            for _ in 0..processes.len() {
                if is_root(pid) {
                    return true;
                }
                match processes.get(&pid) {
                    Some(process) if process.parent > 1 => pid = process.parent,
                    _ => return false,
                }
            }
            false
        };
        processes
            .iter()
            .map(|(&pid, process)| Self {
                pid,
                started: process.started,
            })
            .filter(|process| descends(process.pid) && !known.contains(process))
            .collect()
    }
}

/// All processes that can be seen; none where there is no `/proc`.
fn processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, process(pid)?))
        })
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, but ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { parent, started })
}

#[cfg(test)]
#[cfg(target_os = "linux")] // elsewhere there is no `/proc`
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_process_reads_back_and_another_with_its_number_is_not_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let root = Root::of(own).unwrap();
        assert_eq!(Root::from_words(&root.to_words()), Some(root));
        assert_eq!(Root::from_words("7"), None);
        assert_eq!(Root::from_words("x 1"), None);
        let other = Root {
            started: root.started + 1,
            ..root
        };
        // This would end the test if it were taken for us.
        other.kill();
    }

    #[test]
    fn descendants_are_killed_in_whatever_group_they_are() {
        let script = "setsid sh -c 'sleep 600 & echo ready; wait' & wait";
        let mut child = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        Root::of(i32::try_from(child.id()).unwrap()).unwrap().kill();
        // The pipe ends when the last of them is dead.
        output.read_to_string(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        assert!(!child.wait().unwrap().success());
    }
}

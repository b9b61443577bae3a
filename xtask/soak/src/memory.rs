//! How much memory the server has, and whether it grows.

use std::{fs, sync::atomic::Ordering, time::Duration};

use crate::{Result, load::Counts};

/// How long the server may take to get warm; less in a run that is short.
const WARM_UP: Duration = Duration::from_secs(120);

/// Into how many windows the time after that is divided.
const WINDOWS: u32 = 4;

const MIB: f64 = 1024.0 * 1024.0;

/// By how much the peak of a later window may exceed that of the first. An allocator takes a few MiB more
/// or less, as the load goes; what is kept of each of a million writes takes more than that.
const MAX_GROWTH_BYTES: f64 = 16.0 * MIB;

pub(crate) struct Memory {
    pid: u32,
    warm_up: Duration,
    window: Duration,
    /// The peak of each window in bytes, as far as it has begun.
    peaks: Vec<f64>,
    writes: u64,
    at: Duration,
}

impl Memory {
    pub(crate) fn new(pid: u32, span: Duration) -> Self {
        let warm_up = WARM_UP.min(span / 5);
        Self {
            pid,
            warm_up,
            window: (span - warm_up) / WINDOWS,
            peaks: Vec::new(),
            writes: 0,
            at: Duration::ZERO,
        }
    }

    /// Notes and prints how things are.
    pub(crate) fn sample(&mut self, at: Duration, counts: &Counts) -> Result {
        let bytes = resident(self.pid)?;
        if let Some(since) = at.checked_sub(self.warm_up) {
            let window = (since.as_nanos() / self.window.as_nanos().max(1)) as usize;
            let window = window.min(WINDOWS as usize - 1);
            if self.peaks.len() <= window {
                self.peaks.resize(window + 1, 0.0);
            }
            self.peaks[window] = self.peaks[window].max(bytes);
        }
        let writes = counts.writes.load(Ordering::Relaxed);
        let rate = (writes - self.writes) as f64 / (at - self.at).as_secs_f64();
        println!(
            "{:>4} s  {:>6.1} MiB  revision {:>9}  {rate:>6.0} writes/s  {:>10} events",
            at.as_secs(),
            bytes / MIB,
            counts.revision.load(Ordering::Relaxed),
            counts.events.load(Ordering::Relaxed),
        );
        (self.writes, self.at) = (writes, at);
        Ok(())
    }

    /// Fails if a later window's peak exceeds the first one's by too much.
    pub(crate) fn judge(&self) -> Result {
        let (Some(first), Some(last)) = (
            self.peaks.first(),
            self.peaks.iter().skip(1).copied().reduce(f64::max),
        ) else {
            return Err("too short to tell whether memory grows".into());
        };
        let peaks: Vec<_> = self
            .peaks
            .iter()
            .map(|it| format!("{:.1}", it / MIB))
            .collect();
        let ratio = last / first;
        println!(
            "peaks after the warm-up: {} MiB, ratio {ratio:.3}",
            peaks.join(", ")
        );
        if last - first > MAX_GROWTH_BYTES {
            let growth = (last - first) / MIB;
            return Err(format!("the server's memory has grown by {growth:.1} MiB").into());
        }
        Ok(())
    }
}

/// The memory that a process has, in bytes. Linux tells it in pages of 4 KiB, or in this file in KiB.
fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.ok_or("no resident memory")?.parse()?;
    Ok(kib * 1024.0)
}

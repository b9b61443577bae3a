//! What is measured, and how.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Map, Value, json};

use crate::{Result, scenarios::Scenario};

/// What a scenario came to, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    pub(crate) fn of(name: &str, value: impl Into<Value>) -> Self {
        Self::default().with(name, value)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Takes in all of another's, under names that begin with `prefix`.
    pub(crate) fn with_all(mut self, prefix: &str, others: Self) -> Self {
        let renamed = others.0.into_iter();
        self.0
            .extend(renamed.map(|(name, value)| (format!("{prefix}{name}"), value)));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        self.0.get(name).cloned().unwrap_or(Value::Null)
    }

    /// The line that is printed.
    pub(crate) fn line(mut self, scenario: &Scenario) -> String {
        let done = self.get("n").as_u64();
        if done.is_some_and(|done| done < scenario.complete) {
            self = self.with("capped", true);
        }
        if done.is_some() {
            self = self.with("rss_peak_mb", memory("VmHWM:"));
        }
        let line = self.with("peer", "quorate").with("scenario", scenario.name);
        Value::Object(line.0).to_string()
    }
}

/// A span of time that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    begun: Instant,
    processor: f64,
}

impl Span {
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            processor: processor()?,
        })
    }

    pub(crate) fn secs(&self) -> f64 {
        rounded(self.begun.elapsed().as_secs_f64())
    }

    /// The processor's time that this process took since.
    pub(crate) fn processor(&self) -> Result<f64> {
        Ok(rounded(processor()? - self.processor))
    }

    /// What was done in it, and how long each took if that is known.
    pub(crate) fn end(&self, done: usize, mut took: Vec<Duration>) -> Result<Figures> {
        let secs = self.begun.elapsed().as_secs_f64();
        let figures = Figures::of("n", done)
            .with("secs", rounded(secs))
            .with("per_s", rounded(done as f64 / secs))
            .with("cpu_s", self.processor()?)
            .with("rss_mb", memory("VmRSS:"));
        if took.is_empty() {
            return Ok(figures);
        }
        took.sort_unstable();
        let micros = |time: Duration| rounded(time.as_secs_f64() * 1e6);
        let rank = |part: f64| ((part * took.len() as f64).ceil() as usize).max(1) - 1;
        let mean = took.iter().sum::<Duration>() / u32::try_from(took.len())?;
        Ok(figures
            .with("p50_us", micros(took[rank(0.5)]))
            .with("p99_us", micros(took[rank(0.99)]))
            .with("max_us", micros(took[rank(1.0)]))
            .with("mean_us", micros(mean)))
    }
}

/// The processor's time of this process, in seconds.
fn processor() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A line of this process's status, in MiB: `VmRSS:` for what is resident, `VmHWM:` for the most that was.
pub(crate) fn memory(line: &str) -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of_line = |text: &str| {
        text.strip_prefix(line)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let kib: Option<f64> = status.lines().find_map(of_line);
    kib.map_or(Value::Null, |kib| json!(rounded(kib / 1024.0)))
}

/// To three decimals.
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

//! The signals that quorate passes on to a command.

use std::{future::poll_fn, io, task::Poll};

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// The signals that come to this process and are meant for the command. While this lives, and after,
/// they no longer end the process by themselves.
///
/// A signal that was ignored when the process was started, as `nohup` does it, stays ignored: by this
/// process and so by the command.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Begins to listen. What came before has had its usual effect.
    pub(crate) fn new() -> io::Result<Self> {
        Self::of(FORWARDED)
    }

    /// Begins to listen to all but these.
    pub(crate) fn except(others: &[Signal]) -> io::Result<Self> {
        let mut signals = FORWARDED.to_vec();
        signals.retain(|signal| !others.contains(signal));
        Self::of(&signals)
    }

    /// Begins to listen to some signals alone.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let ignored = ignored();
        signals
            .iter()
            .filter(|&&signal| ignored >> (signal as i32 - 1) & 1 == 0)
            .map(|&signal| Ok((signal, unix::signal(SignalKind::from_raw(signal as i32))?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Waits for the next signal. It can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            let came = |(signal, stream): &mut (Signal, unix::Signal)| {
                stream.poll_recv(cx).is_ready().then_some(*signal)
            };
            self.0
                .iter_mut()
                .find_map(came)
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Whether the signal asks a process to end.
pub(crate) const fn asks_to_end(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM
    )
}

const FORWARDED: &[Signal] = &[
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A bit for each signal that this process ignores, the lowest for signal 1; none where the kernel does
/// not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

//! The task of a connection: it reads and writes, and probes whether anybody is still there.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Ping, PingPong, client::Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep},
};

use super::line::Shared;

/// When a connection is probed: only while there are calls, since etcd ends idle connections that are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    /// How long nothing may come before that.
    pub(super) interval: Duration,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

/// Carries a connection until it ends, or a probe is not answered.
pub(super) struct Carrier<T: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<T, Bytes>,
    shared: Arc<Shared>,
    probing: Probing,
    pings: Option<PingPong>,
    probe: Probe,
    alarm: Pin<Box<Sleep>>,
}

/// How far the present probe is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// There are no calls.
    Idle,
    /// It is to be sent when the alarm rings, if nothing is heard before.
    Due,
    /// It was sent, and is to be answered before the alarm rings.
    Sent,
    /// Nobody will make calls any more: HTTP/2 may say so until the alarm rings.
    Leaving,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier<T> {
    pub(super) fn new(
        mut connection: Connection<T, Bytes>,
        shared: Arc<Shared>,
        probing: Probing,
    ) -> Self {
        Self {
            pings: connection.ping_pong(),
            connection,
            shared,
            probing,
            probe: Probe::Idle,
            alarm: Box::pin(sleep(probing.interval)),
        }
    }

    /// Does what is due of probing. Ready if nobody is there any more, at either end.
    fn poll_probe(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.shared.wake.register(context.waker());
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            let is_in_use = self.shared.is_in_use();
            if !is_in_use && self.shared.is_given_up() {
                return Poll::Ready(End::Left);
            }
            let next = match self.probe {
                Probe::Idle if is_in_use => {
                    // What was heard before is old.
                    self.shared.was_heard();
                    Probe::Due
                }
                Probe::Idle if self.shared.is_forsaken() => Probe::Leaving,
                Probe::Idle => return Poll::Pending,
                Probe::Sent if pings.poll_pong(context).is_ready() => Probe::Due,
                Probe::Due | Probe::Leaving | Probe::Sent
                    if self.alarm.poll_unpin(context).is_pending() =>
                {
                    return Poll::Pending;
                }
                Probe::Leaving => return Poll::Ready(End::Left),
                Probe::Sent => return Poll::Ready(End::Unanswered),
                Probe::Due if !is_in_use => Probe::Idle,
                Probe::Due if self.shared.was_heard() => Probe::Due,
                // If it cannot be sent, the connection is about to end.
                Probe::Due => match pings.send_ping(Ping::opaque()) {
                    Ok(()) => Probe::Sent,
                    Err(_) => return Poll::Pending,
                },
            };
            self.probe = next;
            let wait = match next {
                Probe::Idle => continue,
                Probe::Due => self.probing.interval,
                Probe::Leaving | Probe::Sent => self.probing.patience,
            };
            self.alarm.as_mut().reset(Instant::now() + wait);
        }
    }
}

/// Why a connection is ended here.
enum End {
    /// Nobody has a use for it.
    Left,
    /// A probe was not answered.
    Unanswered,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Carrier<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Calls and streams learn why it ended; nobody waits for this task.
        let ended = self.connection.poll_unpin(context).is_ready();
        if !ended {
            match ready!(self.poll_probe(context)) {
                End::Left => {}
                End::Unanswered => self.shared.miss(),
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Carrier<T> {
    /// It has ended, or its runtime has.
    fn drop(&mut self) {
        self.shared.end();
    }
}

//! Writes together what is to be written in one turn of the scheduler.
//!
//! A connection's task is woken by the first of many requests that are made at once. If it wrote that at once,
//! each would be a packet of its own, and cost the server, and this process, as much as all of them. For the
//! same reason the answer to a ping waits a moment for a request to go with: etcd sends a ping along with
//! nearly each answer, to measure how much it may send at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::line::Shared;

/// How long the answer to a ping may wait: the shortest time that timers tell.
const MOMENT: Duration = Duration::from_millis(1);

/// The frame that answers a ping, up to what it repeats.
const PONG: [u8; 9] = [0, 0, 8, 6, 1, 0, 0, 0, 0];

/// A connection on which a write waits, while several calls are under way, until those tasks that can run
/// now have run; and the answer to a ping for the next request, for a moment.
pub(super) struct Gathered<T> {
    io: T,
    shared: Arc<Shared>,
    /// Whether the next write has waited.
    has_waited: bool,
    /// Until when the answer to a ping waits, if one does.
    alarm: Pin<Box<Sleep>>,
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            has_waited: false,
            alarm: Box::pin(sleep(MOMENT)),
        }
    }

    /// Whether what is to be written shall wait for more. Then the task is woken in time.
    fn waits(&mut self, context: &mut Context<'_>, first: &[u8], len: usize) -> bool {
        if self.shared.is_busy() {
            if !self.has_waited {
                self.has_waited = true;
                context.waker().wake_by_ref();
                return true;
            }
        } else if len == PONG.len() + 8 && first.starts_with(&PONG) && self.shared.is_asked() {
            // To set it anew for each would cost more than that some wait for less than a moment.
            if self.alarm.is_elapsed() && !self.has_waited {
                self.alarm.as_mut().reset(Instant::now() + MOMENT);
            }
            self.has_waited = true;
            return self.alarm.poll_unpin(context).is_pending();
        }
        false
    }

    /// Takes note whether something was written.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.has_waited = written.is_pending();
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waits(context, bytes, bytes.len()) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bytes.iter().map(|bytes| bytes.len()).sum();
        if self.waits(context, bytes.first().map_or(&[], |bytes| bytes), len) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::poll;
    use http::uri::{Authority, Scheme};
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;
    use crate::backend::etcd::{line::Count, tcp::CutOff};

    const ANSWER: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0whatever";

    /// A connection on which so many calls wait for their answers, and its other end.
    fn connected(waiting: usize) -> (Gathered<DuplexStream>, DuplexStream, Vec<Count>) {
        let (near, far) = duplex(1 << 10);
        let origin = (Scheme::HTTP, Authority::from_static("member:2379"));
        let shared = Arc::new(Shared::new(origin, CutOff::default()));
        let counts = (0..waiting).map(|_| Count::of_waiting(&shared)).collect();
        (Gathered::new(near, shared), far, counts)
    }

    async fn write(io: &mut Gathered<DuplexStream>, bytes: &[u8]) {
        let slices = [IoSlice::new(bytes)];
        let written = poll_fn(|context| Pin::new(&mut *io).poll_write_vectored(context, &slices));
        assert_eq!(written.await.expect("it is open"), bytes.len());
    }

    /// Whether it was written at once.
    async fn is_written(io: &mut Gathered<DuplexStream>, bytes: &[u8]) -> bool {
        poll!(Box::pin(write(io, bytes))).is_ready()
    }

    /// Waits once for the answer to a ping, as a connection does at its begin.
    async fn warm(io: &mut Gathered<DuplexStream>, far: &mut DuplexStream) {
        write(io, ANSWER).await;
        let mut read = [0; ANSWER.len()];
        far.read_exact(&mut read).await.expect("it is open");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_ping_goes_with_the_next_request() {
        let (mut io, mut far, _waiting) = connected(1);
        warm(&mut io, &mut far).await;
        assert!(!is_written(&mut io, ANSWER).await);
        let both = [ANSWER, b"and a request"].concat();
        assert!(is_written(&mut io, &both).await);
        let mut read = vec![0; both.len()];
        far.read_exact(&mut read).await.expect("it is open");
        assert_eq!(read, both);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_ping_waits_for_a_moment_only() {
        let (mut io, mut far, _waiting) = connected(1);
        for _ in 0..3 {
            let begun = Instant::now();
            warm(&mut io, &mut far).await;
            assert!(begun.elapsed() <= 2 * MOMENT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_answer_to_a_ping_does_not_wait() {
        let (mut io, mut far, _waiting) = connected(1);
        warm(&mut io, &mut far).await;
        let mut ping = ANSWER.to_vec();
        ping[4] = 0;
        assert!(is_written(&mut io, &ping).await);
        assert!(is_written(&mut io, b"a request").await);
        // Who only listens makes no request that it could go with.
        let (mut io, _far, _) = connected(0);
        assert!(is_written(&mut io, ANSWER).await);
    }

    #[tokio::test]
    async fn while_several_calls_wait_each_write_waits_for_one_turn() {
        let (mut io, _far, _waiting) = connected(2);
        for _ in 0..2 {
            assert!(!is_written(&mut io, b"a request").await);
            assert!(is_written(&mut io, b"a request, and another").await);
        }
    }
}

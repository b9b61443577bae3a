//! Connections, which end with the server whatever they are used for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::{
    sync::WaitForCancellationFutureOwned,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tonic::transport::server::Connected;

use crate::{
    control::Control,
    transport::{
        authority::Repair,
        idle::{Counted, Open},
        listener::{Io, Listener},
        tls::{Acceptor, Peer},
    },
};

/// How long to wait when the system gives no connection, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take to say what it speaks, TLS included.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// The first byte of a client that wants to speak TLS. No request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What the connections of a server have in common.
pub(crate) struct Connections {
    pub(crate) listener: Listener,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) control: Control,
    pub(crate) tasks: TaskTracker,
    pub(crate) open: Open,
}

impl Connections {
    /// The connections that arrive, without end: a failure to accept one concerns that one.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold(self, async |connections| {
            let connection = connections.next().await;
            Some((Ok(connection), connections))
        })
    }

    async fn next(&self) -> Connection {
        let socket = loop {
            match self.listener.accept().await {
                Ok(_) if self.control.refuses_connections() => {}
                Ok(socket) => break socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            }
        };
        let peer = Peer::default();
        let socket = match &self.acceptor {
            Some(acceptor) => Box::new(acceptor.accept(socket, peer.clone())),
            None => socket,
        };
        Connection::new(socket, peer, &self.control, &self.tasks, &self.open)
    }
}

/// A socket that is at its end when the server stops. Whoever serves it notices, as when the peer
/// hangs up, and goes.
pub(crate) struct Connection {
    socket: Box<dyn Io>,
    peer: Peer,
    repair: Repair,
    turn: Turn,
    /// Ends a client that does not say what it speaks; none once it has.
    greeting: Option<Pin<Box<Sleep>>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _counted: Counted,
    /// Lets the server wait until nobody holds this connection.
    _task: TaskTrackerToken,
}

impl Connection {
    pub(crate) fn new(
        socket: Box<dyn Io>,
        peer: Peer,
        control: &Control,
        tasks: &TaskTracker,
        open: &Open,
    ) -> Self {
        Self {
            socket,
            peer,
            repair: Repair::default(),
            turn: Turn::default(),
            greeting: Some(Box::pin(sleep(GREETING_PATIENCE))),
            stopped: control.connections_cut(),
            _counted: open.count(),
            _task: tasks.token(),
        }
    }

    fn has_stopped(&mut self, cx: &mut Context<'_>) -> bool {
        self.stopped.as_mut().poll(cx).is_ready()
    }

    /// Ends a client that greets wrong, or not in time.
    fn check_greeting(&mut self, fresh: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let Some(greeting) = &mut self.greeting else {
            return Ok(());
        };
        if fresh.first() == Some(&TLS_HANDSHAKE) {
            tracing::warn!("closed a connection that speaks TLS, which this server does not");
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.repair.has_greeted() {
            self.greeting = None;
        } else if greeting.as_mut().poll(cx).is_ready() {
            tracing::debug!("closed a connection whose client did not greet");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

/// Lets what was asked be answered before all that is asked is read. So a client that asks much at once works on
/// the first answers while the server works on the rest; else each would wait for the other.
#[derive(Default)]
struct Turn {
    /// How much was read in this turn.
    read: usize,
}

/// How much is read in a turn: some twenty requests for a key. A turn ends early if it has no room for much more.
const TURN_BYTES: usize = 4 * 1024;
const LEAST_BYTES: usize = 512;

impl Turn {
    /// How much may be read now. If that is nothing, it is the turn of all other tasks that can run.
    fn room(&mut self, cx: &Context<'_>) -> Poll<usize> {
        if self.read + LEAST_BYTES <= TURN_BYTES {
            return Poll::Ready(TURN_BYTES - self.read);
        }
        self.read = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// So much was read; if nothing, all was.
    fn take(&mut self, count: usize) {
        self.read = if count == 0 { 0 } else { self.read + count };
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let room = ready!(self.turn.room(cx)).min(buffer.remaining());
        let Self { socket, repair, .. } = &mut *self;
        let mut fresh = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let read = repair.poll_read(socket, cx, &mut fresh);
        self.check_greeting(fresh.filled(), cx)?;
        let count = fresh.filled().len();
        self.turn.take(count);
        buffer.advance(count);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.has_stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::shared::Shared;

    #[tokio::test]
    async fn others_have_their_turn_before_all_is_read() {
        let (mut client, server) = duplex(1 << 16);
        let stop = CancellationToken::new();
        let shared = Shared::new(String::new(), Duration::ZERO, None);
        let control = Control::new(shared, &stop, &stop);
        let (tasks, open) = (TaskTracker::new(), Open::default());
        let mut connection =
            Connection::new(Box::new(server), Peer::default(), &control, &tasks, &open);

        let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(2 * TURN_BYTES / 9);
        let sent = [greeting.as_slice(), &settings].concat();
        client.write_all(&sent).await.expect("there is room");
        let (mut read, mut in_turn, mut turns) = (Vec::new(), 0, 1);
        poll_fn(|cx| {
            while read.len() < sent.len() {
                let mut space = [0; 3 * TURN_BYTES];
                let mut buffer = ReadBuf::new(&mut space);
                if Pin::new(&mut connection)
                    .poll_read(cx, &mut buffer)?
                    .is_pending()
                {
                    (in_turn, turns) = (0, turns + 1);
                    return Poll::Pending;
                }
                read.extend_from_slice(buffer.filled());
                in_turn += buffer.filled().len();
                assert!(in_turn <= TURN_BYTES, "{in_turn} bytes in a turn");
            }
            Poll::Ready(io::Result::Ok(()))
        })
        .await
        .expect("the client greets");
        assert_eq!(read, sent);
        assert!(turns > 2);
    }
}

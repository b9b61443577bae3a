//! Connections, which end with the server whatever they are used for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
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

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let start = buffer.filled().len();
        let Self { socket, repair, .. } = &mut *self;
        let read = repair.poll_read(socket, cx, buffer);
        self.check_greeting(&buffer.filled()[start..], cx)?;
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

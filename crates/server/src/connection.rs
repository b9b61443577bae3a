//! Connections, which end with the server whatever they are used for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tonic::transport::server::Connected;

use crate::{
    authority::Repair,
    idle::{Counted, Open},
    listener::{Io, Listener},
};

/// How long to wait when the system gives no connection, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections that arrive, without end: a failure to accept one concerns that one.
pub(crate) fn connections(
    listener: Listener,
    stop: CancellationToken,
    tasks: TaskTracker,
    open: Open,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, move |listener| {
        let (stop, tasks, open) = (stop.clone(), tasks.clone(), open.clone());
        async move {
            let socket = accept(&listener).await;
            let connection = Connection::new(socket, &stop, &tasks, &open);
            Some((Ok(connection), listener))
        }
    })
}

async fn accept(listener: &Listener) -> Box<dyn Io> {
    loop {
        match listener.accept().await {
            Ok(socket) => return socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A socket that is at its end when the server stops. Whoever serves it notices, as when the peer
/// hangs up, and goes.
pub(crate) struct Connection {
    socket: Box<dyn Io>,
    repair: Repair,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _counted: Counted,
    /// Lets the server wait until nobody holds this connection.
    _task: TaskTrackerToken,
}

impl Connection {
    pub(crate) fn new(
        socket: Box<dyn Io>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
        open: &Open,
    ) -> Self {
        Self {
            socket,
            repair: Repair::default(),
            stopped: Box::pin(stop.clone().cancelled_owned()),
            _counted: open.count(),
            _task: tasks.token(),
        }
    }

    fn has_stopped(&mut self, cx: &mut Context<'_>) -> bool {
        self.stopped.as_mut().poll(cx).is_ready()
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
        let Self { socket, repair, .. } = &mut *self;
        repair.poll_read(socket, cx, buffer)
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
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

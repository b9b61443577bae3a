//! Doors for fuzzing: the server without sockets. It is there with feature `fuzzing` alone.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::routes::Routes;
use crate::{
    control::Control,
    plain::gateway,
    server::{serve, spawn},
    store::shared::{Shared, expire},
    transport::{authority::Repair, connection::Connection, idle::Open, tls::Peer},
};

/// A server with an empty store, which listens nowhere.
pub struct Subject {
    shared: Arc<Shared>,
    control: Control,
    open: Open,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Subject {
    /// Starts its tasks.
    pub fn start() -> Self {
        let url = "http://127.0.0.1:2379".to_owned();
        let shared = Shared::new(url, Duration::from_secs(600), None);
        let stop = CancellationToken::new();
        let subject = Self {
            control: Control::new(Arc::clone(&shared), &stop, &stop),
            shared,
            open: Open::default(),
            tasks: TaskTracker::new(),
            stop,
        };
        let expiring = expire(Arc::clone(&subject.shared));
        spawn(&subject.tasks, &subject.stop, expiring);
        subject
    }

    /// What answers requests.
    pub fn routes(&self) -> Routes {
        Routes::new(&self.shared, &self.control)
    }

    /// Serves a connection; what it reads from and writes to is dropped at its end.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self {
            control,
            open,
            tasks,
            stop,
            ..
        } = self;
        let connection = Connection::new(Box::new(io), Peer::default(), control, tasks, open);
        let only = stream::iter([io::Result::Ok(connection)]);
        let served = CancellationToken::new().drop_guard();
        serve(self.routes(), only, stop.clone(), served).await;
    }

    /// Stops, and waits until nothing of it runs.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The paths of the gateway, and the methods behind them.
pub fn gateway_paths() -> Vec<(String, String)> {
    let methods = gateway::PATHS.iter().flat_map(|(service, methods)| {
        methods
            .iter()
            .map(move |(path, method)| (format!("/v3/{path}"), format!("{service}.{method}")))
    });
    methods.collect()
}

/// What a server reads of what a client sends in `pieces`.
pub async fn repaired(pieces: &[&[u8]]) -> Vec<u8> {
    let mut client = Pieces(pieces);
    let mut repair = Repair::default();
    let mut read = Vec::new();
    loop {
        let mut space = [0; 97];
        let mut buffer = ReadBuf::new(&mut space);
        let done = poll_fn(|cx| repair.poll_read(&mut client, cx, &mut buffer)).await;
        if done.is_err() || buffer.filled().is_empty() {
            return read;
        }
        read.extend_from_slice(buffer.filled());
    }
}

/// A client that sends one piece at a time.
struct Pieces<'a>(&'a [&'a [u8]]);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some((piece, rest)) = self.0.split_first() {
            let mut piece = *piece;
            if piece.is_empty() {
                self.0 = rest;
                continue;
            }
            // What does not fit is lost, as if the client had not sent it.
            piece = &piece[..piece.len().min(buffer.remaining())];
            buffer.put_slice(piece);
            self.0 = rest;
            break;
        }
        Poll::Ready(Ok(()))
    }
}

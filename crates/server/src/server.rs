//! The server, and what it is made of.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_core::Stream;
use tokio::time::timeout;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    Builder, Control, Result,
    routes::Routes,
    store::shared::Shared,
    transport::{
        connection::Connection,
        idle::{Open, idle},
    },
};

/// How long a silent connection is left alone, and how long it may then take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// An etcd v3 endpoint with a store of its own, which begins empty unless it has a
/// [data directory](Builder::data_dir).
///
/// It runs on the runtime that it was started on. Dropping it stops it as if its process were killed:
/// connections break, streams end, and the store, or the hold on its directory, is gone once its
/// tasks have noticed. [`stop`](Server::stop) waits for that.
pub struct Server {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) url: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) open: Open,
    pub(crate) control: Control,
    /// What the server and its connections run as.
    pub(crate) tasks: TaskTracker,
    /// Lets it take no more requests, and ends its streams.
    pub(crate) ending: CancellationToken,
    /// Cancelled once it takes no more, and has answered all.
    pub(crate) served: CancellationToken,
    /// Ends all of them.
    pub(crate) stop: DropGuard,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`](crate::Error::Listen).
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A server to be configured.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address and the port that it listens on; none for a Unix socket.
    pub const fn addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where a client of this machine reaches it: `http://127.0.0.1:2379`, or `unix:///path`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until nobody needs the server: it had no connection and no lease for so long.
    ///
    /// # Cancel safety
    ///
    /// To wait again begins anew.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate_server::Result<()> {
    /// use std::time::Duration;
    ///
    /// let server = quorate_server::Server::start().await?;
    /// server.idle(Duration::from_millis(5)).await;
    /// server.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn idle(&self, after: Duration) {
        idle(&self.open, &self.shared, after).await;
    }

    /// What makes the server misbehave, for tests of its clients.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Takes no more requests, answers those that are there, ends the streams, and stops. What takes
    /// longer than `grace` breaks, as by [`stop`](Server::stop).
    ///
    /// # Cancel safety
    ///
    /// A server that is no longer waited for stops at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate_server::Result<()> {
    /// use std::time::Duration;
    ///
    /// let server = quorate_server::Server::start().await?;
    /// server.shutdown(Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(self, grace: Duration) {
        self.ending.cancel();
        let _ = timeout(grace, self.served.cancelled()).await;
        self.stop().await;
    }

    /// Stops the server, and waits until its port is free and all its connections are gone.
    ///
    /// # Cancel safety
    ///
    /// Once begun, the server stops whether or not this is waited for.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.wait().await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        shown.field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Runs a part of the server until the server stops.
#[allow(clippy::disallowed_methods)] // the tasks belong to the server, not to a client
pub(crate) fn spawn(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    part: impl Future<Output = ()> + Send + 'static,
) {
    let part = stop.clone().run_until_cancelled_owned(part);
    tasks.spawn(part);
}

/// Serves until it is told to end, and then until all is answered.
pub(crate) async fn serve(
    routes: Routes,
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    ending: CancellationToken,
    _served: DropGuard,
) {
    let served = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .max_concurrent_streams(u32::MAX)
        .serve_with_incoming_shutdown(routes, connections, ending.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server cannot go on");
    }
}

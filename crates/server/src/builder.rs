//! How a server is to be.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, lookup_host};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Result, Server,
    connection::connections,
    server::{routes, serve, spawn},
    shared::{Shared, expire},
};

/// Where a server listens unless told otherwise: a free port that only this machine reaches.
const DEFAULT_ADDRESS: &str = "127.0.0.1:0";

/// How often etcd tells a quiet watch that asked for it how far it has come.
const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The shortest time between two tidings of progress: none at all would keep a thread busy.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// What a [`Server`] shall be like.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> quorate_server::Result<()> {
/// use quorate_server::{Error, Server};
///
/// let server = Server::builder().listen("localhost:0").start().await?;
/// assert!(server.addr().ip().is_loopback());
///
/// let refused = Server::builder().listen("0.0.0.0:0").start().await;
/// assert!(matches!(refused, Err(Error::Remote { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    address: String,
    allow_remote: bool,
    progress_interval: Duration,
}

impl Builder {
    /// Listens on `address`, a host and a port; port zero is any free one. 127.0.0.1:0 by default.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Allows to listen where other machines reach the server. Until authentication is enabled
    /// it asks nobody for a password, so whoever reaches it can read and write everything.
    #[must_use]
    pub const fn allow_remote(mut self) -> Self {
        self.allow_remote = true;
        self
    }

    /// Tells quiet watches that ask for it this often how far they have come; ten minutes by default.
    #[must_use]
    pub const fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval;
        self
    }

    /// Starts the server. It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Address`], [`Error::Remote`] or [`Error::Listen`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Server> {
        let asked = self.resolve().await?;
        if !self.allow_remote && !asked.ip().is_loopback() {
            return Err(Error::Remote { address: asked });
        }
        let cannot_listen = |cause| Error::Listen {
            address: asked,
            cause,
        };
        let listener = TcpListener::bind(asked).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let url = format!("http://{address}");

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let shared = Shared::new(url.clone(), self.progress_interval.max(MIN_INTERVAL));
        let serving = serve(
            routes(&shared),
            connections(listener, stop.clone(), tasks.clone()),
        );
        spawn(&tasks, &stop, serving);
        spawn(&tasks, &stop, expire(shared));
        tasks.close();
        tracing::debug!(%url, "serving a store");
        Ok(Server {
            address,
            url,
            tasks,
            stop: stop.drop_guard(),
        })
    }

    async fn resolve(&self) -> Result<SocketAddr> {
        let unusable = |cause| Error::Address {
            address: self.address.clone(),
            cause,
        };
        let mut found = lookup_host(&self.address).await.map_err(unusable)?;
        let nowhere = || unusable(io::Error::other("the name has no address"));
        found.next().ok_or_else(nowhere)
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            address: DEFAULT_ADDRESS.to_owned(),
            allow_remote: false,
            progress_interval: DEFAULT_PROGRESS_INTERVAL,
        }
    }
}

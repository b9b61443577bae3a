//! The server, and how it is built.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_core::Stream;
use quorate_wire::{
    etcdserverpb::{
        auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer,
        watch_server::WatchServer,
    },
    v3electionpb::election_server::ElectionServer,
    v3lockpb::lock_server::LockServer,
};
use tokio::net::{TcpListener, lookup_host};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::service::Routes;

use crate::{
    auth::AuthService,
    cluster::ClusterService,
    connection::{Connection, connections},
    kv::KvService,
    lease::LeaseService,
    maintenance::MaintenanceService,
    plain,
    recipes::Unserved,
    shared::{Shared, expire},
    watch::WatchService,
};

/// Where a server listens unless told otherwise: a free port that only this machine reaches.
const DEFAULT_ADDRESS: &str = "127.0.0.1:0";

/// How often etcd tells a quiet watch that asked for it how far it has come.
const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The shortest time between two tidings of progress: none at all would keep a thread busy.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The largest message that is read: etcd's limit of a request, and its allowance for what gRPC adds.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// How long a silent connection is left alone, and how long it may then take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address makes no sense, or its name is unknown.
    #[error("cannot listen on {address:?}: {cause}; give an address as 127.0.0.1:2379")]
    Address {
        /// What was asked for.
        address: String,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// The port cannot be had.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Other machines could reach the address, which nobody allowed.
    #[error(
        "{address} can be reached by other machines, and the server lets everybody in: \
         listen on 127.0.0.1, or call allow_remote"
    )]
    Remote {
        /// What was asked for.
        address: SocketAddr,
    },
}

/// The result of starting a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An etcd v3 endpoint with a store of its own, which begins empty.
///
/// It runs on the runtime that it was started on. Dropping it stops it as if its process were killed:
/// connections break, streams end, and the store is gone once its tasks have noticed.
/// [`stop`](Server::stop) waits for that.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    url: String,
    /// What the server and its connections run as.
    tasks: TaskTracker,
    /// Ends all of them.
    stop: DropGuard,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A server to be configured.
    pub fn builder() -> Builder {
        Builder {
            address: DEFAULT_ADDRESS.to_owned(),
            allow_remote: false,
            progress_interval: DEFAULT_PROGRESS_INTERVAL,
        }
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as clients take it: `http://127.0.0.1:2379`.
    pub fn url(&self) -> &str {
        &self.url
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

    /// Allows to listen where other machines reach the server. It asks nobody for a password, so
    /// whoever reaches it can read and write everything.
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

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Runs a part of the server until the server stops.
#[allow(clippy::disallowed_methods)] // the tasks belong to the server, not to a client
fn spawn(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    part: impl Future<Output = ()> + Send + 'static,
) {
    let part = stop.clone().run_until_cancelled_owned(part);
    tasks.spawn(part);
}

fn routes(shared: &Arc<Shared>) -> Routes {
    /// Adds services that differ in nothing but their types.
    macro_rules! with_services {
        ($routes:expr, $($server:ident($service:expr),)*) => {
            $routes$(.add_service(
                $server::new($service).max_decoding_message_size(MAX_MESSAGE_BYTES),
            ))*
        };
    }
    let routes = with_services! {
        Routes::default(),
        AuthServer(AuthService::new(shared)),
        ClusterServer(ClusterService::new(shared)),
        ElectionServer(Unserved),
        KvServer(KvService::new(shared)),
        LeaseServer(LeaseService::new(shared)),
        LockServer(Unserved),
        MaintenanceServer(MaintenanceService::new(shared)),
        WatchServer(WatchService::new(shared)),
    };
    plain::beside(routes)
}

async fn serve(
    routes: Routes,
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
) {
    let served = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .max_concurrent_streams(u32::MAX)
        .add_routes(routes)
        .serve_with_incoming(connections)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server cannot go on");
    }
}

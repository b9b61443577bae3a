//! How a server is to be.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Result, Server, Tls,
    control::Control,
    routes::Routes,
    server::{serve, spawn},
    store::{
        journal::Opened,
        shared::{Shared, end_watches, expire},
    },
    transport::{
        address::{Address, check_url},
        connection::Connections,
        idle::Open,
        listener::Listener,
    },
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
/// assert!(server.addr().is_some_and(|addr| addr.ip().is_loopback()));
///
/// let refused = Server::builder().listen("0.0.0.0:0").start().await;
/// assert!(matches!(refused, Err(Error::Remote { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    address: String,
    advertised: Option<String>,
    allow_remote: bool,
    data_dir: Option<PathBuf>,
    progress_interval: Duration,
    tls: Option<Tls>,
}

impl Builder {
    /// Listens on `address`: a host and a port, where port zero is any free one, or `unix:` and the
    /// path of a Unix socket. 127.0.0.1:0 by default.
    ///
    /// A Unix socket is for the user who runs the server, and for nobody else. Its file takes the
    /// place of one that a dead server has left behind, never of another file, and goes with the
    /// server.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Tells clients that ask for the members of the cluster that this is the member's URL. Some
    /// connect to what they are told.
    ///
    /// By default it is the URL that the server listens on. A server that listens on all addresses,
    /// as on 0.0.0.0, tells the one by which its machine goes to others.
    #[must_use]
    pub fn advertise(mut self, url: impl Into<String>) -> Self {
        self.advertised = Some(url.into());
        self
    }

    /// Allows to listen where other machines reach the server. Until authentication is enabled
    /// it asks nobody for a password, so whoever reaches it can read and write everything.
    #[must_use]
    pub const fn allow_remote(mut self) -> Self {
        self.allow_remote = true;
        self
    }

    /// Keeps the store in a directory, which is made if it is not there, and goes on with what a former
    /// server left in it. Whatever was answered is on disk by then, and survives the end of the process
    /// in whatever way; leases begin their time to live anew. Without a directory everything is in
    /// memory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Tells quiet watches that ask for it this often how far they have come; ten minutes by default.
    #[must_use]
    pub const fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval;
        self
    }

    /// Serves over TLS, and nobody without it.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the server. It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Address`], [`Error::Advertise`], [`Error::Listen`], [`Error::Remote`] or
    /// [`Error::Tls`]; [`Error::DataDir`] or [`Error::DataDirInUse`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Server> {
        let asked = Address::resolve(&self.address).await?;
        if let Address::Tcp(address) = asked
            && !self.allow_remote
            && !address.ip().is_loopback()
        {
            return Err(Error::Remote { address });
        }
        if let Some(url) = &self.advertised {
            check_url(url)?;
        }
        let acceptor = self.tls.as_ref().map(Tls::acceptor).transpose()?;
        let listener = Listener::open(asked).await?;
        let is_secure = acceptor.is_some();
        let address = listener.addr();
        let url = listener.url(is_secure);
        let advertised = self.advertised;
        let advertised = advertised.unwrap_or_else(|| listener.advertised(is_secure));

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let opened = match self.data_dir {
            Some(path) => Some(Opened::open(path, &tasks, &stop).await?),
            None => None,
        };
        let open = Open::default();
        let interval = self.progress_interval.max(MIN_INTERVAL);
        let shared = Shared::new(advertised, interval, opened);
        let (ending, served) = (stop.child_token(), CancellationToken::new());
        let control = Control::new(Arc::clone(&shared), &stop, &ending);
        let connections = Connections {
            listener,
            acceptor,
            control: control.clone(),
            tasks: tasks.clone(),
            open: open.clone(),
        };
        let serving = serve(
            Routes::new(&shared, &control),
            connections.stream(),
            ending.clone(),
            served.clone().drop_guard(),
        );
        spawn(&tasks, &stop, serving);
        spawn(&tasks, &stop, expire(Arc::clone(&shared)));
        spawn(&tasks, &stop, end_watches(Arc::clone(&shared)));
        tasks.close();
        tracing::debug!(%url, "serving a store");
        Ok(Server {
            address,
            url,
            shared,
            open,
            control,
            tasks,
            ending,
            served,
            stop: stop.drop_guard(),
        })
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            address: DEFAULT_ADDRESS.to_owned(),
            advertised: None,
            allow_remote: false,
            data_dir: None,
            progress_interval: DEFAULT_PROGRESS_INTERVAL,
            tls: None,
        }
    }
}

//! What makes a server misbehave, for tests of its clients.

use std::{
    fmt,
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_engine::{LeaseId, Revision};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    body::Body,
    codegen::http::{Response, header::CONTENT_TYPE},
};

use crate::{
    store::shared::Shared,
    transport::cut::{Cut, Stream},
};

/// How the paths of calls end that are answered by a stream, in gRPC and in JSON.
const STREAMS: [&str; 8] = [
    "/Watch",
    "/LeaseKeepAlive",
    "/Snapshot",
    "/Observe",
    "/watch",
    "/keepalive",
    "/snapshot",
    "/observe",
];

/// Makes a [`Server`](crate::Server) misbehave, so that a test can see what its client makes of it.
/// Clones control the same server, and what they have set stays until it is set anew.
///
/// ```
/// use std::time::Duration;
///
/// use quorate::Client;
/// use quorate_server::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::start().await?;
/// let client = Client::connect(server.url()).await?;
/// let guard = client.lock("jobs").acquire().await?;
///
/// // The server's time jumps over the end of the lease, and the lock is lost.
/// server.control().advance(Duration::from_secs(3600));
/// guard.lost().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    replies: Mutex<Replies>,
    refuses_connections: AtomicBool,
    connections: Cut,
    streams: Cut,
}

/// What becomes of what a server tells its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replies {
    /// It arrives.
    #[default]
    Normal,
    /// It arrives so much later. A stream tells nothing else in the meantime.
    Delayed(Duration),
    /// It never arrives, though the requests are served: a call is without an answer until its
    /// client gives up, and a stream tells nothing.
    Lost,
    /// The next so many calls are without an answer, and then all is normal. Streams are too.
    LostNext(usize),
}

impl Control {
    /// Connections end with `stop`, and streams with `end` already.
    pub(crate) fn new(
        shared: Arc<Shared>,
        stop: &CancellationToken,
        end: &CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            shared,
            replies: Mutex::default(),
            refuses_connections: AtomicBool::new(false),
            connections: Cut::new(stop),
            streams: Cut::new(end),
        }))
    }

    /// Lets the server's time jump. Leases that are due by then have ended when this returns.
    pub fn advance(&self, by: Duration) {
        self.0.shared.advance(by);
    }

    /// Ends a lease as if its time had run out, and tells whether there was one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate_server::Result<()> {
    /// let server = quorate_server::Server::start().await?;
    /// assert!(!server.control().expire(7587), "nobody was granted that lease");
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire(&self, lease: i64) -> bool {
        let shared = &self.0.shared;
        let (ended, _) = shared.look(|state, _| state.store.revoke(LeaseId(lease)));
        ended.is_ok()
    }

    /// Forgets what was before a revision, and tells whether that is a revision that can be
    /// compacted.
    pub fn compact(&self, revision: i64) -> bool {
        let shared = &self.0.shared;
        let (compacted, _) = shared.look(|state, _| {
            state.watches.read_ahead(&state.store);
            state.store.compact(Revision(revision))
        });
        compacted.is_ok()
    }

    /// Breaks all streams, as of watches and keepalives. Their connections stay, and new streams may
    /// be opened.
    pub fn cut_streams(&self) {
        self.0.streams.cut();
    }

    /// Breaks all connections. New ones are accepted.
    pub fn cut_connections(&self) {
        self.0.connections.cut();
    }

    /// Closes each new connection at once, or ends that. Those that are there stay.
    ///
    /// ```
    /// use quorate::Client;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = quorate_server::Server::start().await?;
    /// let control = server.control();
    /// let client = Client::connect(server.url()).await?;
    /// client.put("k", "v").await?;
    ///
    /// control.refuse_connections(true);
    /// control.cut_connections();
    /// assert!(client.put("k", "v").await.is_err());
    ///
    /// control.refuse_connections(false);
    /// while client.put("k", "v").await.is_err() {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn refuse_connections(&self, refuse: bool) {
        self.0.refuses_connections.store(refuse, Ordering::Relaxed);
    }

    /// Says what becomes of what the server tells from now on.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use quorate::Client;
    /// use quorate_server::{Replies, Server};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::start().await?;
    /// let client = Client::connect(server.url()).await?;
    ///
    /// // The client makes calls of its own when it connects.
    /// client.get("k").await?;
    /// server.control().replies(Replies::LostNext(1));
    /// let put = client.put("k", "v");
    /// let unheard = tokio::time::timeout(Duration::from_millis(500), put).await;
    /// assert!(unheard.is_err());
    /// assert!(client.get("k").await?.is_some(), "it was applied");
    /// # Ok(())
    /// # }
    /// ```
    pub fn replies(&self, replies: Replies) {
        *self
            .0
            .replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = replies;
    }

    pub(crate) fn replies_now(&self) -> Replies {
        *self
            .0
            .replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the answer to a call.
    fn next_reply(&self) -> Replies {
        let mut replies = self
            .0
            .replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match *replies {
            Replies::LostNext(left) => {
                *replies = match left {
                    0 | 1 => Replies::Normal,
                    left => Replies::LostNext(left - 1),
                };
                if left == 0 {
                    Replies::Normal
                } else {
                    Replies::Lost
                }
            }
            other => other,
        }
    }

    pub(crate) fn refuses_connections(&self) -> bool {
        self.0.refuses_connections.load(Ordering::Relaxed)
    }

    pub(crate) fn connections_cut(&self) -> Pin<Box<WaitForCancellationFutureOwned>> {
        self.0.connections.register()
    }

    pub(crate) fn streams_cut(&self) -> Pin<Box<WaitForCancellationFutureOwned>> {
        self.0.streams.register()
    }

    /// Whether the call of a path is answered by a stream.
    pub(crate) fn is_stream(path: &str) -> bool {
        STREAMS.iter().any(|it| path.ends_with(it))
    }

    /// Passes an answer on, as far as that is allowed.
    pub(crate) async fn pass(&self, is_stream: bool, response: Response<Body>) -> Response<Body> {
        if is_stream {
            let kind = response.headers().get(CONTENT_TYPE);
            let is_grpc = kind.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
            return response.map(|body| Body::new(Stream::new(body, self.clone(), is_grpc)));
        }
        match self.next_reply() {
            Replies::Delayed(by) => sleep(by).await,
            Replies::Lost => pending().await,
            Replies::LostNext(_) | Replies::Normal => {}
        }
        response
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

//! A channel for gRPC clients that spreads calls over the instances of a service, and follows them.
//!
//! [`channel`] makes one of a [`Tracker`]; every client that tonic generates takes it in place of its
//! own. It connects to an instance at the first call that picks it, to the instance's address as
//! `http://ADDRESS` unless that says otherwise.
//!
//! - An instance that joins is called, one that drains or leaves is not any more; calls that run on it
//!   go on to their end.
//! - A service without an instance fails a call at once, or after [a wait](Options::wait), as
//!   `Unavailable`: it never hangs.
//! - An instance that cannot be called is left alone for a while, as [`Picker`] tells. A call of which
//!   nothing was sent yet goes to another instance; any other is the caller's to repeat.
//!
//! An instance that hangs is noticed by calls that have a deadline (`Request::set_timeout`) or by
//! [`Options::keep_alive`]. A call that the caller drops says nothing of its instance.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate::balance;
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//!
//! # let client = quorate::Client::connect("mem:").await?;
//! let tracker = client.service("api").track().await?;
//! let channel = balance::channel(&tracker, balance::Options::new());
//! let mut health = HealthClient::new(channel);
//! let error = health.check(HealthCheckRequest::default()).await.unwrap_err();
//! assert_eq!(error.code(), tonic::Code::Unavailable); // nobody is there yet
//! # Ok(())
//! # }
//! ```

mod loan;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::future::BoxFuture;
use http::{Request, Response};
use tonic::{
    Code, Status, TimeoutExpired,
    body::Body,
    transport::{self, ClientTlsConfig, Endpoint},
};

use self::loan::lend;
use crate::{Change, Instance, Pick, Picker, Strategy, Tracker, link::lock};

/// To how many instances one call is offered.
const ATTEMPTS: usize = 5;

/// Makes a channel over the instances that a tracker follows. It keeps the tracker's task.
pub fn channel(tracker: &Tracker, options: Options) -> Channel {
    Channel {
        shared: Arc::new(Shared {
            picker: tracker.picker(options.strategy),
            connections: Mutex::new(Connections {
                tracker: tracker.clone(),
                open: HashMap::new(),
            }),
            options,
        }),
    }
}

/// How a [`Channel`] picks, connects and waits.
#[derive(Clone, Debug)]
#[must_use = "options do nothing by themselves"]
pub struct Options {
    strategy: Strategy,
    wait: Duration,
    connect_timeout: Duration,
    timeout: Option<Duration>,
    keep_alive: Option<Duration>,
    tls: Option<ClientTlsConfig>,
}

impl Options {
    /// In turn, without a wait for instances, without TLS, and with a second to connect.
    pub fn new() -> Self {
        Self {
            strategy: Strategy::RoundRobin,
            wait: Duration::ZERO,
            connect_timeout: Duration::from_secs(1),
            timeout: None,
            keep_alive: None,
            tls: None,
        }
    }

    /// How calls are spread.
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// How long a call waits for an instance if there is none that it could go to.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How long it may take to connect to an instance.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// How long it may take from a call to the beginning of its answer, if the call does not say.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Pings an instance this often while calls run on it, and gives it up if it does not answer. The
    /// servers have to allow it: Go's refuse more than one ping in five minutes if nothing else is
    /// said.
    pub fn keep_alive(self, interval: Duration) -> Self {
        Self {
            keep_alive: Some(interval),
            ..self
        }
    }

    /// Connects with TLS. The name in an instance's certificate is the host of its address, unless the
    /// configuration has another.
    pub fn tls(self, tls: ClientTlsConfig) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// A channel over all instances of a service; see the [module's page](self).
///
/// Clones share everything. Dropping the last ends calls that run no sooner than they would end.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(request).await })
    }
}

struct Shared {
    picker: Picker,
    connections: Mutex<Connections>,
    options: Options,
}

/// The connections to instances, each opened when it is first used.
struct Connections {
    /// Tells which to let go of.
    tracker: Tracker,
    open: HashMap<Arc<str>, transport::Channel>,
}

impl Shared {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, mut body) = request.into_parts();
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut failure = None;
        while tried.len() < ATTEMPTS {
            let Some(pick) = self.pick().await else {
                break;
            };
            if tried.contains(pick.shared_id()) {
                break;
            }
            tried.push(Arc::clone(pick.shared_id()));
            let connection = match self.connection(&pick) {
                Ok(connection) => connection,
                Err(error) => {
                    failure = Some(unavailable(&pick, error));
                    pick.failed();
                    continue;
                }
            };
            let (lent, loan) = lend(body);
            let request = Request::from_parts(head.clone(), lent);
            match send(connection, request).await {
                Ok(response) => {
                    pick.succeeded();
                    return Ok(response);
                }
                Err(error) => {
                    let Some(untouched) = loan.back() else {
                        return Err(broken(pick, error));
                    };
                    failure = Some(unavailable(&pick, error));
                    pick.failed();
                    body = untouched;
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.nobody()))
    }

    /// Picks an instance, waiting for one if there is none and the options say so.
    async fn pick(&self) -> Option<Pick> {
        if let Some(pick) = self.picker.pick() {
            return Some(pick);
        }
        let mut tracker = self.tracker();
        tracker.snapshot();
        let runtime = tracker.link().runtime();
        let mut end = runtime.sleep_until(runtime.now() + self.options.wait);
        loop {
            if let Some(pick) = self.picker.pick() {
                return Some(pick);
            }
            tokio::select! {
                biased;
                changed = tracker.changed() => {
                    changed.ok()?;
                }
                () = &mut end => return None,
            }
        }
    }

    fn connection(&self, pick: &Pick) -> Result<transport::Channel, transport::Error> {
        let mut connections = lock(&self.connections);
        connections.close_former();
        if let Some(open) = connections.open.get(pick.id()) {
            return Ok(open.clone());
        }
        let opened = self.options.endpoint(pick.instance())?.connect_lazy();
        let id = Arc::clone(pick.shared_id());
        connections.open.insert(id, opened.clone());
        Ok(opened)
    }

    fn tracker(&self) -> Tracker {
        lock(&self.connections).tracker.clone()
    }

    /// Tells that there is nobody to call.
    fn nobody(&self) -> Status {
        let tracker = self.tracker();
        let name = tracker.name();
        let stale = match tracker.is_stale() {
            true => ", as far as is known without the store",
            false => "",
        };
        Status::unavailable(match tracker.peek().len() {
            0 => format!("service {name} has no instance{stale}"),
            all => format!("service {name}: all of {all} instances drain or have no weight{stale}"),
        })
    }
}

impl Connections {
    /// Lets go of the connections to addresses that are not told any more. What runs on them goes on.
    fn close_former(&mut self) {
        while let Some(change) = self.tracker.take_change() {
            match change {
                Change::Joined(..) => {}
                Change::Left(id) | Change::Updated(id, _) => {
                    self.open.remove(&id);
                }
            }
        }
    }
}

impl Options {
    fn endpoint(&self, instance: &Instance) -> Result<Endpoint, transport::Error> {
        let address = match instance.address.contains("://") {
            true => instance.address.clone(),
            false if self.tls.is_some() => format!("https://{}", instance.address),
            false => format!("http://{}", instance.address),
        };
        let mut endpoint = Endpoint::from_shared(address)?.connect_timeout(self.connect_timeout);
        if let Some(timeout) = self.timeout {
            endpoint = endpoint.timeout(timeout);
        }
        if let Some(interval) = self.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(interval);
        }
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()),
            None => Ok(endpoint),
        }
    }
}

async fn send(
    mut connection: transport::Channel,
    request: Request<Body>,
) -> Result<Response<Body>, transport::Error> {
    use tower::Service;

    std::future::poll_fn(|cx| connection.poll_ready(cx)).await?;
    connection.call(request).await
}

/// The failure of a call of which nothing was sent.
fn unavailable(pick: &Pick, error: transport::Error) -> Status {
    let address = &pick.instance().address;
    let mut status = Status::unavailable(format!(
        "{} at {address} cannot be called: {}",
        pick.id(),
        causes(&error)
    ));
    status.set_source(Arc::new(error));
    status
}

/// The failure of a call that may have reached its instance.
fn broken(pick: Pick, error: transport::Error) -> Status {
    // What the caller's own messages failed with says nothing of the instance.
    if is_caused_by::<Status>(&error) {
        return Status::from_error(error.into());
    }
    let address = &pick.instance().address;
    let message = format!(
        "{} at {address} did not answer: {}",
        pick.id(),
        causes(&error)
    );
    let code = match is_caused_by::<TimeoutExpired>(&error) {
        true => Code::DeadlineExceeded,
        // Of itself tonic tells one failure or another by the features that it was built with.
        false => Code::Unavailable,
    };
    pick.failed();
    let mut status = Status::new(code, message);
    status.set_source(Arc::new(error));
    status
}

fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<E>())
}

/// What an error says, and all that caused it.
fn causes(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<_> = chain(error).map(ToString::to_string).collect();
    texts.join(": ")
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("tracker", &self.shared.tracker())
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

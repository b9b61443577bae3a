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
//! - A deadline (`Request::set_timeout`, or [`Options::timeout`]) is for all that a call waits for: an
//!   instance, a connection, and the beginning of the answer.
//!
//! An instance that hangs is noticed by calls that have a deadline or by [`Options::keep_alive`]. A call
//! that the caller drops says nothing of its instance.
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

mod connections;
mod loan;
mod options;

use std::{
    error::Error,
    fmt, future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::future::BoxFuture;
use http::{Request, Response, request::Parts};
use tonic::{Code, Status, TimeoutExpired, body::Body, transport};

pub use self::options::Options;
use self::{
    connections::Connections,
    loan::{Loan, lend},
};
use crate::{Pick, Picker, Runtime, Tracker, link::lock};

/// To how many instances one call is offered.
const ATTEMPTS: usize = 5;

/// Makes a channel over the instances that a tracker follows. It keeps the tracker's task.
pub fn channel(tracker: &Tracker, options: Options) -> Channel {
    Channel {
        shared: Arc::new(Shared {
            picker: tracker.picker(options.strategy),
            connections: Mutex::new(Connections::new(tracker.clone())),
            runtime: Arc::clone(tracker.link().runtime()),
            options,
        }),
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
    runtime: Arc<dyn Runtime>,
    options: Options,
}

impl Shared {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, mut body) = request.into_parts();
        let mut deadline = self.deadline(&head);
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut failure = None;
        while tried.len() < ATTEMPTS {
            let pick = match self.pick(&mut deadline).await {
                Ok(Some(pick)) => pick,
                Ok(None) => break,
                Err(Late) => {
                    let failure = failure.unwrap_or_else(|| self.nobody());
                    return Err(Status::deadline_exceeded(failure.message()));
                }
            };
            if tried.contains(pick.shared_id()) {
                break;
            }
            tried.push(Arc::clone(pick.shared_id()));
            let connection = match lock(&self.connections).get(&pick, &self.options) {
                Ok(connection) => connection,
                Err(error) => {
                    failure = Some(unavailable(pick, error.into()));
                    continue;
                }
            };
            let (lent, loan) = lend(body);
            let request = Request::from_parts(head.clone(), lent);
            match self.send(connection, request, loan, &mut deadline).await {
                Ok(response) => {
                    pick.succeeded();
                    return Ok(response);
                }
                Err(Failure::Unsent(untouched, error)) => {
                    failure = Some(unavailable(pick, error));
                    body = untouched;
                }
                Err(Failure::Broken(error)) => return Err(broken(pick, error)),
                Err(Failure::Late) => return Err(late(pick)),
            }
        }
        Err(failure.unwrap_or_else(|| self.nobody()))
    }

    /// Waits until a call must have been answered.
    fn deadline(&self, head: &Parts) -> BoxFuture<'static, ()> {
        match asked_timeout(head).or(self.options.timeout) {
            Some(timeout) => self.runtime.sleep_until(self.runtime.now() + timeout),
            None => Box::pin(future::pending()),
        }
    }

    /// Picks an instance, waiting for one if there is none and the options say so.
    async fn pick(&self, deadline: &mut BoxFuture<'static, ()>) -> Result<Option<Pick>, Late> {
        if let Some(pick) = self.picker.pick() {
            return Ok(Some(pick));
        }
        let mut tracker = self.tracker();
        tracker.snapshot();
        let mut end = self
            .runtime
            .sleep_until(self.runtime.now() + self.options.wait);
        loop {
            if let Some(pick) = self.picker.pick() {
                return Ok(Some(pick));
            }
            tokio::select! {
                biased;
                changed = tracker.changed() => if changed.is_err() {
                    return Ok(None);
                },
                () = &mut end => return Ok(None),
                () = &mut *deadline => return Err(Late),
            }
        }
    }

    /// Sends a request over a connection. Those that wait for one fail one after the other, each after
    /// an attempt to connect of its own, so a request waits for no longer than one attempt may take.
    async fn send(
        &self,
        mut connection: transport::Channel,
        request: Request<Body>,
        loan: Loan,
        deadline: &mut BoxFuture<'static, ()>,
    ) -> Result<Response<Body>, Failure> {
        let patience = self.options.connect_timeout;
        let mut connecting = self.runtime.sleep_until(self.runtime.now() + patience);
        let mut is_connecting = true;
        let mut sending = pin!(async {
            use tower::Service;

            future::poll_fn(|cx| connection.poll_ready(cx)).await?;
            connection.call(request).await
        });
        loop {
            tokio::select! {
                biased;
                answer = &mut sending => return answer.map_err(|error| match loan.back() {
                    Some(body) => Failure::Unsent(body, error.into()),
                    None => Failure::Broken(error),
                }),
                () = &mut *deadline => return Err(Failure::Late),
                () = &mut connecting, if is_connecting => {
                    if let Some(body) = loan.back() {
                        let message = format!("no connection in {patience:?}");
                        return Err(Failure::Unsent(body, message.into()));
                    }
                    is_connecting = false;
                }
            }
        }
    }

    fn tracker(&self) -> Tracker {
        lock(&self.connections).tracker().clone()
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

/// The deadline of a call has passed.
struct Late;

/// Why an instance did not answer a call.
enum Failure {
    /// Nothing was sent.
    Unsent(Body, BoxError),
    /// What was sent has no answer.
    Broken(transport::Error),
    /// The deadline has passed.
    Late,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// The timeout that a call has of its own: digits and a unit.
fn asked_timeout(head: &Parts) -> Option<Duration> {
    let text = head.headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at(text.len().checked_sub(1)?);
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit.saturating_mul(digits.parse().ok()?))
}

/// The failure of a call of which nothing was sent.
fn unavailable(pick: Pick, error: BoxError) -> Status {
    let address = &pick.instance().address;
    let mut status = Status::unavailable(format!(
        "{} at {address} cannot be called: {}",
        pick.id(),
        causes(&*error)
    ));
    status.set_source(error.into());
    pick.failed();
    status
}

/// The failure of a call whose deadline has passed.
fn late(pick: Pick) -> Status {
    let address = &pick.instance().address;
    let message = format!("{} at {address} did not answer in time", pick.id());
    pick.failed();
    Status::deadline_exceeded(message)
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

//! One call: which members are asked, for how long, and when a write is given up.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use quorate_wire::etcdserverpb::{
    auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{
    auth::{Auth, Token},
    classify::{Failure, Remedy},
    line::Line,
    pool::{Connection, Pool},
    tasks::Tasks,
};
use crate::{Error, ErrorKind, Result};

/// The largest answer that is taken. etcd sends a range of any size in one piece.
const LARGEST_ANSWER: usize = 512 << 20;

/// How often a call authenticates anew before it believes that tokens do not help.
const TOKENS_A_CALL: usize = 3;

/// The pause after all members have failed: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(25);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// How long a call insists while no member can even be connected to. That spans a quick restart, and
/// lets a wrong address be told soon.
const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(1);

/// What a call is, as far as repeating it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing, and is asked again wherever it may be answered.
    Read,
    /// It is asked again only while it certainly was not done.
    Write,
}

/// Makes calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) pool: Arc<Pool>,
    pub(super) auth: Arc<Auth>,
    pub(super) tasks: Tasks,
    pub(super) attempt_timeout: Duration,
    pub(super) call_timeout: Duration,
}

/// One attempt at one member.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) connection: Connection,
    pub(super) token: Token,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

impl Caller {
    /// Sends one request to one member after another until one answers it.
    ///
    /// `send` makes the call of one attempt, from [`Attempt::request`] and one of the clients there.
    pub(super) async fn unary<T, F>(
        &self,
        kind: Kind,
        send: impl Fn(Attempt) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
        T: Send,
    {
        let once = |attempt: Attempt| self.once(attempt.clone(), send(attempt));
        self.attempts(kind, self.deadline(), once).await
    }

    /// When a call that begins now must be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.call_timeout
    }

    /// Awaits the answer to one attempt, and notes what it says about the member and the token.
    async fn once<T>(
        &self,
        attempt: Attempt,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, Failure> {
        let failure = match timeout_at(attempt.deadline, answer).await {
            Ok(Ok(answer)) => {
                self.pool.succeeded(&attempt.connection);
                return Ok(answer.into_inner());
            }
            Ok(Err(status)) => Failure::of(&status),
            Err(_) => Failure::unanswered(attempt.deadline - attempt.begun),
        };
        match failure.remedy {
            Remedy::Elsewhere if failure.is_untaken() => self.pool.gone(&attempt.connection),
            Remedy::Elsewhere => self.pool.failed(&attempt.connection),
            Remedy::None => self.pool.succeeded(&attempt.connection),
            Remedy::Token => self.auth.reject(&attempt.token),
        }
        Err(failure)
    }

    /// Runs attempts at one member after another until one succeeds, fails for good or may not be
    /// repeated, or `deadline` has come.
    pub(super) async fn attempts<T, F>(
        &self,
        kind: Kind,
        deadline: Instant,
        attempt: impl Fn(Attempt) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        let begun = Instant::now();
        let mut reasons = Reasons::default();
        let mut tried = Vec::new();
        let mut reached = false;
        let mut tokens = 0;
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(member) = self.pool.pick(&tried) else {
                let until = Instant::now() + pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                let unreachable = !reached && begun.elapsed() >= UNREACHABLE_PATIENCE;
                if unreachable || until >= deadline {
                    return Err(reasons.into_error());
                }
                tokio::time::sleep_until(until).await;
                pause = (pause * 2).min(PAUSE_LONGEST);
                tried.clear();
                reached = false;
                continue;
            };
            let failure = match self.prepare(member, deadline).await {
                Ok(prepared) => {
                    reached = true;
                    match attempt(prepared).await {
                        Ok(answer) => return Ok(answer),
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            if failure.remedy == Remedy::Token && self.auth.has_user() && tokens < TOKENS_A_CALL {
                tokens += 1;
                continue;
            }
            if !failure.may_ask_elsewhere(kind == Kind::Read) {
                let from_member = failure.remedy == Remedy::Elsewhere;
                let error = failure.into_error(kind == Kind::Write);
                // A refusal is the cluster's, and needs no address.
                return Err(if from_member {
                    error.context(self.pool.url(member))
                } else {
                    error
                });
            }
            reasons.add(self.pool.url(member), failure);
            tried.push(member);
            if Instant::now() >= deadline {
                return Err(reasons.into_error());
            }
        }
    }

    /// Connects and authenticates, if that is not done yet. Whatever fails here, the request was not sent.
    async fn prepare(&self, member: usize, deadline: Instant) -> Result<Attempt, Failure> {
        let begun = Instant::now();
        // Without another member there is nothing to save time for.
        let patience = if self.pool.len() == 1 {
            self.call_timeout
        } else {
            self.attempt_timeout
        };
        let deadline = deadline.min(begun + patience);
        let prepare = async {
            let connection = self.pool.connect(member, &self.tasks).await?;
            let token = self
                .auth
                .token(&connection.line, &self.tasks, deadline)
                .await;
            if token
                .as_ref()
                .is_err_and(|failure| failure.remedy == Remedy::Elsewhere)
            {
                self.pool.failed(&connection);
            }
            Ok(Attempt {
                connection,
                token: token?,
                begun,
                deadline,
            })
        };
        timeout_at(deadline, prepare)
            .await
            .unwrap_or_else(|_| Err(Failure::unanswered(deadline - begun).before_sending()))
    }
}

impl Attempt {
    /// A request with the token, to be refused at once by a member that has no leader.
    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = self.request_to_any(message);
        request
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        request
    }

    /// A request with the token, which a member without a leader serves too.
    pub(super) fn request_to_any<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token.value {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// Defines the clients of an attempt.
macro_rules! clients {
    ($($name:ident: $client:ident,)*) => {
        impl Attempt {$(
            pub(super) fn $name(&self) -> $client<Line> {
                $client::new(self.connection.line.clone())
                    .max_decoding_message_size(LARGEST_ANSWER)
            }
        )*}
    };
}

clients! {
    auth: AuthClient,
    cluster: ClusterClient,
    kv: KvClient,
    lease: LeaseClient,
    maintenance: MaintenanceClient,
    watch: WatchClient,
}

/// Why each member did not serve a call, the last reason of each.
#[derive(Debug, Default)]
struct Reasons {
    by_url: BTreeMap<String, String>,
    last: Option<ErrorKind>,
}

impl Reasons {
    fn add(&mut self, url: &str, failure: Failure) {
        self.last = Some(failure.kind);
        self.by_url.insert(url.to_owned(), failure.message);
    }

    fn into_error(self) -> Error {
        let mut message = String::from("no etcd server answered");
        let mut separator = ": ";
        for (url, reason) in &self.by_url {
            write!(message, "{separator}{url} ({reason})").expect("a string takes any text");
            separator = ", ";
        }
        let kind = self.last.unwrap_or(ErrorKind::Timeout);
        Error::new(kind, message)
    }
}

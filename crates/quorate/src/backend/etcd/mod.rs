//! The backend for real etcd clusters.
//!
//! # Layout
//!
//! - `options`: how to reach a cluster
//! - `pool`: the members, one connection each; `dial`: how it is made; `tcp` and `tls`: over what
//! - `line`: a connection, on which calls are made; `body`: what is sent and what comes back; `carrier`:
//!   its task; `gathered`: when it writes
//! - `socket`: members on sockets of this machine; `pipes`: in this process, for tests; `local`: one
//!   that is started when it is needed, and `starter`: the program that does
//! - `call`: one call, from member to member; `auth`: the tokens that it needs; `classify`: what its
//!   failures mean
//! - `watch`: opens watches; `mux` and `demux`: the stream that carries them, from either side;
//!   `buffer`: what a watcher has not read yet
//! - `lease`: the stream of keepalives
//! - `admin`: members, alarms, users and roles
//! - `convert`: protobuf messages and the vocabulary; `fit`: whether an answer is one to the request
//! - `tasks`: tasks that end with the backend

mod admin;
mod auth;
mod body;
mod buffer;
mod call;
mod carrier;
mod classify;
mod convert;
mod demux;
mod dial;
mod fit;
mod gathered;
mod lease;
mod line;
#[cfg_attr(not(unix), path = "no_local.rs")]
pub(crate) mod local;
mod mux;
mod options;
#[cfg(feature = "testing")]
mod pipes;
mod pool;
#[cfg(feature = "raw")]
mod raw;
pub(crate) mod socket;
#[cfg(unix)]
mod starter;
mod tasks;
mod tcp;
mod tls;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use quorate_engine::{
    Granted, Header, LeaseId, LeaseStatus, Range, RangeResult, Revision, Txn, TxnResult,
    WatchRequest,
};
use quorate_wire::etcdserverpb::{
    self as pb, maintenance_client::MaintenanceClient, response_op::Response,
};

use tokio::time::Instant;
use tonic::Request;

pub use self::options::{EtcdOptions, Identity, Tls, User};
#[cfg(feature = "testing")]
pub use self::pipes::Pipes;
#[cfg(feature = "raw")]
pub use self::raw::{Raw, RawChannel, TokenInterceptor};
use self::{
    admin::{alarm_from_wire, member_from_wire, status_from_wire},
    auth::{Auth, Token},
    call::{Attempt, Caller, Kind},
    classify::{Failure, Remedy},
    convert::{
        header_from_wire, is_read_only, lone_put, range_from_wire, range_to_wire, ttl_from_wire,
        ttl_to_wire, txn_from_wire, txn_to_wire,
    },
    dial::Dial,
    fit::{range_fits, txn_fits},
    line::Line,
    pool::Pool,
    tasks::Tasks,
    watch::Watches,
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Status, Watching},
    duration::LONGEST,
};

/// The least time between the probes of an idle connection that etcd puts up with.
const KEEPALIVE_LEAST: Duration = Duration::from_secs(5);

/// A real etcd cluster.
///
/// It holds at most one connection to each member and uses one of them, chosen at random at first, as
/// long as that serves it. When a member fails to connect or to answer in time, it moves on to the
/// next. Reads are asked again there; a write only if it certainly was not done.
///
/// The endpoints are members, or what passes calls on as they are. Nothing can be watched through etcd's
/// `grpc-proxy`, which numbers watches by itself and answers no request for progress.
///
/// # Drop
///
/// Dropping it ends its tasks and watches; calls under way fail, and keepalive streams go on.
pub struct Etcd {
    caller: Caller,
    watches: Watches,
    options: EtcdOptions,
    #[cfg(feature = "testing")]
    pipes: Option<Pipes>,
}

impl Etcd {
    /// Checks the options. Nothing is connected before the first call, which must be made within a
    /// tokio runtime, as all must.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if an endpoint is not a URL of a host and a port,
    /// a PEM block is missing or unreadable, or a time makes no sense.
    pub fn new(mut options: EtcdOptions) -> Result<Self> {
        // No clock shows what lies further ahead.
        for time in [
            &mut options.connect_timeout,
            &mut options.attempt_timeout,
            &mut options.call_timeout,
            &mut options.keepalive_interval,
            &mut options.keepalive_timeout,
        ] {
            *time = (*time).min(LONGEST);
        }
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        let EtcdOptions {
            connect_timeout,
            attempt_timeout,
            call_timeout,
            ..
        } = options;
        if [connect_timeout, attempt_timeout, call_timeout]
            .iter()
            .any(Duration::is_zero)
        {
            return invalid("a timeout of zero lets nothing be done");
        }
        if options.keepalive_interval < KEEPALIVE_LEAST {
            return invalid("etcd cuts off who probes connections more often than every 5s");
        }
        if options.keepalive_timeout.is_zero() {
            return invalid("a probe needs time to be answered");
        }
        let caller = Caller {
            pool: Pool::new(&options.endpoints, |url| Dial::new(url, &options))?,
            auth: Auth::new(options.user.clone()),
            tasks: Tasks::default(),
            attempt_timeout,
            call_timeout,
        };
        Ok(Self {
            caller,
            watches: Watches::default(),
            options,
            #[cfg(feature = "testing")]
            pipes: None,
        })
    }

    /// As [`new`](Etcd::new), and reaches every endpoint in this process: for tests.
    ///
    /// # Errors
    ///
    /// As `new`.
    #[cfg(feature = "testing")]
    pub fn through(pipes: Pipes, options: EtcdOptions) -> Result<Self> {
        let mut etcd = Self::new(options)?;
        etcd.pipes = Some(pipes);
        etcd.caller.pool = Pool::new(&etcd.options.endpoints, |url| etcd.dial(url))?;
        Ok(etcd)
    }

    /// How whoever is at a URL is connected to.
    fn dial(&self, url: &str) -> Result<Dial> {
        let dial = Dial::new(url, &self.options)?;
        #[cfg(feature = "testing")]
        let dial = dial.through(self.pipes.clone());
        Ok(dial)
    }

    /// Puts a key, and tells it as the transaction that does nothing else would: etcd applies that the same
    /// way, but takes longer over it.
    async fn put(&self, put: &pb::PutRequest) -> Result<pb::TxnResponse> {
        let send = |attempt: Attempt| {
            let request = attempt.request(put.clone());
            async move { attempt.kv().put(request).await }
        };
        let mut answer = self.caller.unary(Kind::Write, send).await?;
        Ok(pb::TxnResponse {
            header: answer.header.take(),
            succeeded: true,
            responses: vec![pb::ResponseOp {
                response: Some(Response::ResponsePut(answer)),
            }],
        })
    }

    /// Asks a member that may not be in the list of endpoints, by itself.
    async fn status_of(&self, url: &str) -> Result<Status> {
        let Caller { pool, tasks, .. } = &self.caller;
        let asked = async {
            if let Some(member) = pool.find(url) {
                let connection = pool.connect(member, tasks).await?;
                let asked = self.ask_status(&connection.line, true).await;
                let is_of_member = |failure: &Failure| failure.remedy == Remedy::Elsewhere;
                if asked.as_ref().is_err_and(is_of_member) {
                    pool.failed(&connection);
                }
                return asked;
            }
            if url.starts_with("local:") {
                // It may be a member that says so, and what it says starts nothing here.
                let message = "only a client of that address starts such a server";
                return Err(Failure::new(
                    ErrorKind::InvalidArgument,
                    message,
                    Remedy::None,
                ));
            }
            let dial = self
                .dial(url)
                .map_err(|error| Failure::new(error.kind(), error.to_string(), Remedy::None))?;
            let line = dial.connect().await?;
            // What the endpoints keep secret must not be shown to everybody on the way there.
            let is_plain = |url: &String| url.starts_with("http:");
            let may_authenticate = !is_plain(&dial.url) || pool.urls().iter().all(is_plain);
            self.ask_status(&line, may_authenticate).await
        };
        asked
            .await
            .map_err(|failure: Failure| failure.into_error(false).context(url))
    }

    /// Asks who is at the end of a line for its status. The member alone serves it, without a leader;
    /// some versions want a token all the same, which takes a quorum to come by.
    async fn ask_status(&self, line: &Line, may_authenticate: bool) -> Result<Status, Failure> {
        let Caller {
            auth,
            tasks,
            attempt_timeout: patience,
            ..
        } = &self.caller;
        let may_authenticate = may_authenticate && auth.has_user();
        let mut token = match may_authenticate {
            true => auth.present(),
            false => Token::default(),
        };
        let mut is_first = true;
        loop {
            let mut request = Request::new(pb::StatusRequest {});
            if let Some(token) = &token.value {
                request.metadata_mut().insert("token", token.clone());
            }
            let mut client = MaintenanceClient::new(line.clone());
            let failure = match tokio::time::timeout(*patience, client.status(request)).await {
                Ok(Ok(answer)) => return status_from_wire(answer.into_inner()),
                Ok(Err(status)) => Failure::of(&status),
                Err(_) => Failure::unanswered(*patience),
            };
            if !(is_first && may_authenticate && failure.remedy == Remedy::Token) {
                return Err(failure);
            }
            is_first = false;
            auth.reject(&token);
            token = auth.token(line, tasks, Instant::now() + *patience).await?;
        }
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Backend for Etcd {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        let serializable = request.serializable;
        let request = range_to_wire(request);
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = match serializable {
                    true => attempt.request_to_any(request.clone()),
                    false => attempt.request(request.clone()),
                };
                async move { attempt.kv().range(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            let answer = match range_fits(&request, &answer) {
                Ok(()) => range_from_wire(answer),
                Err(what) => Err(Failure::garbled(what)),
            };
            answer.map_err(|failure| failure.into_error(false))
        })
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        let kind = if is_read_only(&request) {
            Kind::Read
        } else {
            Kind::Write
        };
        let request = txn_to_wire(request);
        Box::pin(async move {
            let answer = match lone_put(&request) {
                Some(put) => self.put(put).await?,
                None => {
                    let send = |attempt: Attempt| {
                        let request = attempt.request(request.clone());
                        async move { attempt.kv().txn(request).await }
                    };
                    self.caller.unary(kind, send).await?
                }
            };
            let answer = match txn_fits(&request, &answer) {
                Ok(()) => txn_from_wire(answer),
                Err(what) => Err(Failure::garbled(what)),
            };
            answer.map_err(|failure| failure.into_error(kind == Kind::Write))
        })
    }

    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>> {
        let message = pb::CompactionRequest {
            revision: revision.0,
            physical,
        };
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(message);
                async move { attempt.kv().compact(request).await }
            };
            let answer = self.caller.unary(Kind::Write, send).await?;
            header_from_wire(answer.header).map_err(|failure| failure.into_error(true))
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        Box::pin(self.watches.open(&self.caller, request))
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        let message = pb::LeaseGrantRequest {
            id: id.0,
            ttl: ttl_to_wire(ttl),
        };
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(message);
                async move { attempt.lease().lease_grant(request).await }
            };
            let answer = self.caller.unary(Kind::Write, send).await?;
            if !answer.error.is_empty() {
                return Err(Failure::of_text(&answer.error).into_error(true));
            }
            // Two sessions with one lease would end each other, and a key with lease 0 would stay.
            if answer.id == 0 || (id.0 != 0 && answer.id != id.0) {
                let failure = Failure::garbled("a lease that was not asked for");
                return Err(failure.into_error(true));
            }
            let header = header_from_wire(answer.header);
            Ok(Granted {
                header: header.map_err(|failure| failure.into_error(true))?,
                id: LeaseId(answer.id),
                ttl: ttl_from_wire(answer.ttl),
            })
        })
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>> {
        let message = pb::LeaseRevokeRequest { id: id.0 };
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(message);
                async move { attempt.lease().lease_revoke(request).await }
            };
            let answer = self.caller.unary(Kind::Write, send).await?;
            header_from_wire(answer.header).map_err(|failure| failure.into_error(true))
        })
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        Box::pin(async move {
            let open = |attempt: Attempt| async move {
                let (pool, auth) = (Arc::clone(&self.caller.pool), Arc::clone(&self.caller.auth));
                Ok(lease::Beats::open(attempt, pool, auth))
            };
            let beats = self
                .caller
                .attempts(Kind::Read, self.caller.deadline(), open)
                .await?;
            Ok(Box::new(beats) as Box<dyn BeatStream>)
        })
    }

    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        let message = pb::LeaseTimeToLiveRequest { id: id.0, keys };
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(message);
                async move { attempt.lease().lease_time_to_live(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            let header = header_from_wire(answer.header);
            Ok(LeaseStatus {
                header: header.map_err(|failure| failure.into_error(false))?,
                id: LeaseId(answer.id),
                granted: ttl_from_wire(answer.granted_ttl),
                remaining: (answer.ttl >= 0).then(|| ttl_from_wire(answer.ttl)),
                keys: answer.keys.into_iter().map(Into::into).collect(),
            })
        })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(pb::LeaseLeasesRequest {});
                async move { attempt.lease().lease_leases(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            Ok(answer
                .leases
                .into_iter()
                .map(|lease| LeaseId(lease.id))
                .collect())
        })
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(pb::MemberListRequest { linearizable: true });
                async move { attempt.cluster().member_list(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            Ok(answer.members.into_iter().map(member_from_wire).collect())
        })
    }

    fn endpoints(&self) -> Vec<String> {
        self.caller.pool.urls()
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        Box::pin(async move {
            if let Some(endpoint) = endpoint {
                return self.status_of(&endpoint).await;
            }
            let send = |attempt: Attempt| {
                let request = attempt.request_to_any(pb::StatusRequest {});
                async move { attempt.maintenance().status(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            status_from_wire(answer).map_err(|failure| failure.into_error(false))
        })
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        Box::pin(async move {
            let send = |attempt: Attempt| {
                let request = attempt.request(pb::AlarmRequest::default());
                async move { attempt.maintenance().alarm(request).await }
            };
            let answer = self.caller.unary(Kind::Read, send).await?;
            Ok(answer.alarms.into_iter().map(alarm_from_wire).collect())
        })
    }

    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        Box::pin(admin::auth(self, request))
    }
}

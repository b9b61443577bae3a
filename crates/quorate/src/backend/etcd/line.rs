//! A connection to one member, as HTTP/2 has it: what the clients of the services send their calls on.
//!
//! Requests go to the connection from the task that makes them, and answers wake that task: nobody passes
//! them on between. Channels made for any server have up to three tasks in between, which costs a call as
//! much as etcd takes to answer it.

#![allow(unnameable_types, unreachable_pub)] // `RawChannel` is made of them, and is the name for them

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use h2::client::{Builder, SendRequest};
use http::{
    HeaderValue, Request, Response, Uri,
    header::USER_AGENT,
    uri::{Authority, Scheme},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{body::Body, codegen::Service};

use super::{
    body::{Answer, Upload, drop_details},
    carrier::{Carrier, Probing},
    tasks,
};

/// How much of an answer a server may send before it is read, and of all answers of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest piece in which answers come.
const FRAME: u32 = 64 << 10;

/// A connection to one member. Clones share it, and it closes with the last of them and of their calls.
#[derive(Clone)]
pub struct Line {
    requests: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// What all clones, all calls and the connection's task know.
#[derive(Debug)]
pub(super) struct Shared {
    scheme: Scheme,
    authority: Authority,
    /// How many calls there are.
    calls: AtomicUsize,
    /// Whether anything came since that was asked last.
    heard: AtomicBool,
    /// Whether the connection has ended.
    ended: AtomicBool,
    /// Whether it was ended here, since nobody answered a probe.
    unanswered: AtomicBool,
}

impl Line {
    /// Speaks HTTP/2 on a connection that has been made.
    pub(super) async fn new(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        origin: (Scheme, Authority),
        probing: Probing,
    ) -> Result<Self, Broken> {
        let (scheme, authority) = origin;
        let shared = Arc::new(Shared {
            scheme,
            authority,
            calls: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
        });
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .handshake(io);
        let (requests, connection) = handshake
            .await
            .map_err(|error| shared.broken(error, false))?;
        // It goes on when the backend is dropped, as calls and streams under way do.
        tasks::outlive(Carrier::new(connection, Arc::clone(&shared), probing));
        Ok(Self { requests, shared })
    }

    /// Whether the connection has ended, so that no call can be made on it.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    async fn send(mut self, request: Request<Body>) -> Result<Response<Answer>, Broken> {
        let call = self.shared.call();
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(self.shared.scheme.clone());
        uri.authority = Some(self.shared.authority.clone());
        head.uri = Uri::from_parts(uri).expect("the path is a method's, the rest was checked");
        head.headers
            .insert(USER_AGENT, HeaderValue::from_static(US));
        let untaken = |error| self.shared.broken(error, true);
        poll_fn(|context| self.requests.poll_ready(context))
            .await
            .map_err(untaken)?;
        let request = Request::from_parts(head, ());
        let (mut answer, stream) = self
            .requests
            .send_request(request, false)
            .map_err(untaken)?;
        let mut upload = Upload::new(body, stream);
        let answer = poll_fn(|context| {
            upload.advance(context);
            answer.poll_unpin(context)
        });
        let answer = answer
            .await
            .map_err(|error| self.shared.broken(error, false))?;
        self.shared.hear();
        let mut answer = answer.map(|body| Answer::new(body, upload, call));
        drop_details(answer.headers_mut());
        Ok(answer)
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<Answer>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("authority", &self.shared.authority)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Counts a call for as long as what this returns lives.
    fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }

    /// Whether there are calls.
    pub(super) fn is_in_use(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Something came.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether something came since this was asked last.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Nobody answered a probe.
    pub(super) fn miss(&self) {
        self.unanswered.store(true, Ordering::Release);
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn broken(&self, error: h2::Error, untaken: bool) -> Broken {
        let cause: Box<dyn StdError + Send + Sync> = match error.is_io() {
            _ if self.unanswered.load(Ordering::Acquire) => "a probe was not answered".into(),
            true => match error.into_io() {
                Some(error) => error.into(),
                None => "the connection broke".into(),
            },
            false => error.into(),
        };
        Broken { untaken, cause }
    }
}

/// A call that is counted.
pub(super) struct Call(Arc<Shared>);

impl Call {
    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that failed a call.
#[derive(Debug)]
pub struct Broken {
    /// Whether the connection certainly had not taken the request.
    pub(super) untaken: bool,
    cause: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection failed")
    }
}

impl StdError for Broken {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// Who we are, as servers log it.
const US: &str = concat!("quorate/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;

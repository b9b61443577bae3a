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
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture, task::AtomicWaker};
use h2::{
    RecvStream,
    client::{Builder, SendRequest},
};
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
    gathered::Gathered,
    tasks,
    tcp::CutOff,
};
use crate::link::lock;

/// How much of an answer a server may send before it is read, and of all answers of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest piece in which answers come.
const FRAME: u32 = 64 << 10;

/// The most that the headers and the trailers of an answer may take, in bytes.
const HEADERS: u32 = 16 << 10;

/// A connection to one member. Clones share it, and it closes with the last of them and of their calls.
#[derive(Clone)]
pub struct Line(Arc<Handle>);

struct Handle {
    requests: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// What all clones, all calls and the connection's task know.
#[derive(Debug)]
pub(super) struct Shared {
    scheme: Scheme,
    authority: Authority,
    /// How many calls there are, with the streams that go on.
    calls: AtomicUsize,
    /// How many of them have sent all and wait for the answer to begin.
    waiting: AtomicUsize,
    /// Whether anything came since that was asked last.
    heard: AtomicBool,
    /// Whether the connection has ended.
    ended: AtomicBool,
    /// Whether it was ended here, since nobody answered a probe.
    unanswered: AtomicBool,
    cut_off: CutOff,
    /// Wakes the connection's task where HTTP/2 does not.
    pub(super) wake: AtomicWaker,
    /// The streams of calls that are over; `None` once there is no handle.
    over: Mutex<Option<Vec<RecvStream>>>,
}

impl Line {
    /// Speaks HTTP/2 on a connection that has been made.
    pub(super) async fn new(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        origin: (Scheme, Authority),
        probing: Probing,
        cut_off: CutOff,
    ) -> Result<Self, Broken> {
        let shared = Arc::new(Shared::new(origin, cut_off));
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADERS)
            .handshake(Gathered::new(io, Arc::clone(&shared)));
        let (requests, connection) = handshake
            .await
            .map_err(|error| shared.broken(error, false))?;
        // It goes on when the backend is dropped, as calls and streams under way do.
        tasks::outlive(Carrier::new(connection, Arc::clone(&shared), probing));
        Ok(Self(Arc::new(Handle { requests, shared })))
    }

    /// Whether the connection has ended, so that no call can be made on it.
    pub(super) fn has_ended(&self) -> bool {
        self.0.shared.ended.load(Ordering::Acquire)
    }

    /// Nobody will ask anything on it any more: it is cut off once its calls have ended.
    pub(super) fn give_up(&self) {
        self.0.shared.cut_off.set();
        self.0.shared.wake.wake();
    }

    /// Whether this is the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Answer>, Broken> {
        let shared = &self.0.shared;
        let call = Count::of(shared, |shared| &shared.calls);
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(shared.scheme.clone());
        uri.authority = Some(shared.authority.clone());
        head.uri = Uri::from_parts(uri).expect("the path is a method's, the rest was checked");
        head.headers
            .insert(USER_AGENT, HeaderValue::from_static(US));
        let request = Request::from_parts(head, ());
        // A handle of its own is ready: if the server takes no more streams now, this one waits its turn.
        let sent = self.0.requests.clone().send_request(request, false);
        let (mut answer, stream) = sent.map_err(|error| shared.broken(error, true))?;
        let mut upload = Upload::new(body, stream);
        // The connection's task was just woken, so it is not once more by these.
        shared.let_go();
        let mut waiting = None;
        let answer = poll_fn(|context| {
            upload.advance(context);
            if upload.is_over() {
                waiting.get_or_insert_with(|| Count::of_waiting(shared));
            }
            answer.poll_unpin(context)
        });
        let answer = answer.await.map_err(|error| shared.broken(error, false))?;
        drop(waiting);
        shared.hear();
        let mut answer = answer.map(|body| Answer::new(body, upload, call));
        drop_details(answer.headers_mut());
        Ok(answer)
    }
}

impl Drop for Handle {
    /// The connection ends with the last of its streams, too.
    fn drop(&mut self) {
        let over = lock(&self.shared.over).take();
        drop(over);
        self.shared.wake.wake();
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
            .field("authority", &self.0.shared.authority)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new((scheme, authority): (Scheme, Authority), cut_off: CutOff) -> Self {
        Self {
            scheme,
            authority,
            calls: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
            cut_off,
            wake: AtomicWaker::new(),
            over: Mutex::new(Some(Vec::new())),
        }
    }

    /// Whether there are calls.
    pub(super) fn is_in_use(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Lets go of a stream whose call is over, when the next call is made. At once it would wake the
    /// connection's task for nothing.
    pub(super) fn let_go_later(&self, stream: RecvStream) {
        if let Some(over) = &mut *lock(&self.over) {
            over.push(stream);
        }
    }

    fn let_go(&self) {
        let over = lock(&self.over).as_mut().map(mem::take);
        drop(over);
    }

    /// Whether a call waits for its answer.
    pub(super) fn is_asked(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether several calls wait for their answers.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 1
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
        self.cut_off.set();
    }

    /// Whether it was given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.cut_off.is_set()
    }

    /// Whether nobody can ask anything on it any more.
    pub(super) fn is_forsaken(&self) -> bool {
        lock(&self.over).is_none()
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

/// Counts something for as long as it lives.
pub(super) struct Count {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl Count {
    fn of(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize) -> Self {
        counter(shared).fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            counter,
        }
    }

    /// Counts a call that waits for its answer.
    pub(super) fn of_waiting(shared: &Arc<Shared>) -> Self {
        Self::of(shared, |shared| &shared.waiting)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::Relaxed);
        if self.shared.is_given_up() {
            // It may have been the last.
            self.shared.wake.wake();
        }
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

//! What a client makes of servers that answer as no etcd does.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{self, BoxFuture},
    stream,
};
use quorate::{
    Client, ConnectOptions, ErrorKind, KeyRange, Moment, Revision, Runtime, TokioRuntime,
    backend::etcd::{Etcd, EtcdOptions, Pipes},
};
use tokio::{
    io::{DuplexStream, duplex},
    runtime::Handle,
    time::{Instant, sleep},
};
use tonic::{
    body::Body,
    codegen::{
        Bytes, Service,
        http::{HeaderMap, Request, Response},
    },
    server::NamedService,
    transport::Server,
};

/// A store that gives its answers in turn, whatever it is asked, and the last one for ever.
#[derive(Clone)]
struct Parrot {
    headers: HeaderMap,
    messages: Arc<Mutex<VecDeque<Bytes>>>,
    lessor: Lessor,
}

impl Parrot {
    fn refusing(headers: &[(&'static str, &str)]) -> Self {
        let header = |(name, value): &(&'static str, &str)| {
            let name = name.parse().expect("a name");
            (name, value.parse().expect("a value"))
        };
        Self {
            headers: headers.iter().map(header).collect(),
            ..Self::saying(&[])
        }
    }

    fn saying(messages: &[&[u8]]) -> Self {
        Self {
            headers: HeaderMap::new(),
            messages: Arc::new(Mutex::new(
                messages.iter().map(|said| framed(said)).collect(),
            )),
            lessor: Lessor(framed(&[])),
        }
    }

    /// What it says to whatever concerns leases.
    fn of_leases(self, message: &[u8]) -> Self {
        Self {
            lessor: Lessor(framed(message)),
            ..self
        }
    }

    /// The way to it.
    fn backend(self, options: EtcdOptions) -> Arc<Etcd> {
        let connect = move |_: &str| -> io::Result<DuplexStream> {
            let (client, server) = duplex(4096);
            let only = stream::iter([io::Result::Ok(server)]);
            let serving = Server::builder()
                .add_service(self.clone())
                .add_service(self.lessor.clone())
                .serve_with_incoming(only);
            tokio::spawn(serving);
            Ok(client)
        };
        Arc::new(Etcd::through(Pipes::new(connect), options).expect("fine options"))
    }

    fn client(self) -> Client {
        Client::with_backend(self.backend(EtcdOptions::default()))
    }

    /// A client whose leases are all to be number 7.
    fn client_of_lease_7(self) -> Client {
        let options = ConnectOptions::memory().runtime(Arc::new(Unlucky(TokioRuntime::new())));
        Client::with_backend_and(self.backend(EtcdOptions::default()), options)
    }
}

/// A message as gRPC sends it.
fn framed(message: &[u8]) -> Bytes {
    let length = u8::try_from(message.len()).expect("a short message");
    [&[0, 0, 0, 0, length], message].concat().into()
}

fn answer(message: Option<Bytes>) -> Response<Body> {
    let mut response = match message {
        Some(message) => Response::new(Body::new(Said(Some(message), false))),
        None => Response::new(Body::empty()),
    };
    let grpc = "application/grpc".parse().expect("a value");
    response.headers_mut().insert("content-type", grpc);
    response
}

impl NamedService for Parrot {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl Service<Request<Body>> for Parrot {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut messages = self.messages.lock().expect("no test panics there");
        let message = match messages.len() {
            0 | 1 => messages.front().cloned(),
            _ => messages.pop_front(),
        };
        let mut response = answer(message);
        response.headers_mut().extend(self.headers.clone());
        future::ready(Ok(response))
    }
}

/// A keeper of leases that gives every call the same answer.
#[derive(Clone)]
struct Lessor(Bytes);

impl NamedService for Lessor {
    const NAME: &'static str = "etcdserverpb.Lease";
}

impl Service<Request<Body>> for Lessor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        future::ready(Ok(answer(Some(self.0.clone()))))
    }
}

/// A runtime with one random number.
#[derive(Debug)]
struct Unlucky(TokioRuntime);

impl Runtime for Unlucky {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        self.0.sleep_until(moment)
    }

    fn random(&self) -> u64 {
        7 << 1
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

/// One message, and trailers that tell of no error but have details.
struct Said(Option<Bytes>, bool);

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.0.take() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(message))));
        }
        if std::mem::replace(&mut self.1, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let details = "(no base64)".parse().expect("a value");
        trailers.insert("grpc-status-details-bin", details);
        Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }
}

const ODD_DETAILS: [(&str, &str); 3] = [
    ("grpc-status", "3"),
    ("grpc-message", "no"),
    ("grpc-status-details-bin", "(no base64)"),
];

#[tokio::test(start_paused = true)]
async fn details_of_an_error_that_cannot_be_read_do_no_harm() {
    let client = Parrot::refusing(&ODD_DETAILS).client();
    let error = client.get("key").await.expect_err("a refusal");
    assert!(error.to_string().ends_with("no"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn time_outs_without_end_are_as_long_as_clocks_can_tell() {
    let options = EtcdOptions {
        attempt_timeout: Duration::MAX,
        call_timeout: Duration::MAX,
        connect_timeout: Duration::MAX,
        keepalive_interval: Duration::MAX,
        keepalive_timeout: Duration::MAX,
        ..EtcdOptions::default()
    };
    let parrot = Parrot::refusing(&ODD_DETAILS).backend(options.clone());
    let client = Client::with_backend_and(parrot, ConnectOptions::from(options));
    client.get("key").await.expect_err("a refusal");
    let status = client.status_of("http://another").await;
    assert_eq!(
        status.expect_err("no such service").kind(),
        ErrorKind::Unsupported
    );
}

const PAGE: [u8; 13] = [0x0a, 2, 0x18, 9, 0x12, 5, 0x0a, 1, b'a', 0x10, 9, 0x18, 1];

#[tokio::test(start_paused = true)]
async fn pages_that_go_back_end_with_an_error() {
    // A header with a revision, the key `a` with that of its creation, and that there are more.
    let client = Parrot::saying(&[&PAGE]).client();
    let pages: Vec<_> = client.pages(KeyRange::from("a")).take(5).collect().await;
    assert_eq!(pages.len(), 2, "{pages:?}");
    let error = pages[1].as_ref().expect_err("the same page again");
    assert!(error.to_string().contains("not asked for"), "{error}");
}

/// A header with a revision, lease 7, and a time to live of 10 s.
const LEASE_7: [u8; 8] = [0x0a, 2, 0x18, 9, 0x10, 7, 0x18, 10];

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_not_asked_for_is_no_session_s() {
    let client = Parrot::saying(&[]).of_leases(&LEASE_7).client();
    let ttl = Duration::from_secs(10);
    let (one, other) =
        future::join(client.session_with_ttl(ttl), client.session_with_ttl(ttl)).await;
    for session in [one, other] {
        let error = session.expect_err("another lease");
        assert!(
            error.is_indefinite() && error.to_string().contains("not asked for"),
            "{error}"
        );
    }
    // The wire's 0 is no lease: what is put with it never ends.
    let client = Parrot::saying(&[]).of_leases(&LEASE_7[..4]).client();
    let error = client.session().await.expect_err("no lease");
    assert!(error.to_string().contains("not asked for"), "{error}");
}

#[test]
fn a_lease_that_is_granted_twice_stops_nobody() {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = Parrot::saying(&[]).of_leases(&LEASE_7).client_of_lease_7();
            let ttl = Duration::from_secs(10);
            let one = client.session_with_ttl(ttl).await.expect("a lease");
            sleep(Duration::from_secs(1)).await;
            let other = client.session_with_ttl(ttl).await.expect("the same");
            assert_eq!(one.lease(), other.lease());
            sleep(Duration::from_secs(60)).await;
        });
        tell.send(()).expect("somebody waits for it");
    });
    told.recv_timeout(Duration::from_secs(20))
        .expect("the task that sends beats goes on");
}

/// A header with a revision, success, and the result of a put, of a deletion.
const PUT: [u8; 10] = [0x0a, 2, 0x18, 9, 0x10, 1, 0x1a, 2, 0x12, 0];
const DELETED: [u8; 10] = [0x0a, 2, 0x18, 9, 0x10, 1, 0x1a, 2, 0x1a, 0];

#[tokio::test(start_paused = true)]
async fn a_release_is_repeated_until_its_answer_is_one() {
    let store = Parrot::saying(&[&PUT, &PUT, &PUT, &DELETED]).of_leases(&LEASE_7);
    let answers = Arc::clone(&store.messages);
    let client = store.client_of_lease_7();
    let guard = client.lock("lock").try_acquire().await.expect("a lock");
    guard
        .expect("nobody else's")
        .release()
        .await
        .expect("a release");
    assert_eq!(answers.lock().expect("no test panics there").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_member_can_have_a_server_started_here() {
    let client = Parrot::saying(&[]).client();
    let error = client
        .status_of("local:other")
        .await
        .expect_err("no member");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_lost_early_leaves_no_task_until_its_next_beat() {
    let client = Client::connect("mem:").await.expect("a store in memory");
    // The store has a task of its own from its first lease on.
    client
        .grant_lease(Duration::from_secs(7200))
        .await
        .expect("a lease");
    sleep(Duration::from_secs(1)).await;
    let before = Handle::current().metrics().num_alive_tasks();
    let session = client
        .session_with_ttl(Duration::from_secs(3600))
        .await
        .expect("a session");
    client
        .revoke_lease(session.lease())
        .await
        .expect("a revocation");
    let lock = client.lock("lock").session(&session);
    lock.acquire().await.expect_err("a lost session");
    assert!(session.is_lost());
    drop((lock, session));

    let begun = Instant::now();
    while Handle::current().metrics().num_alive_tasks() > before {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn nothing_comes_after_the_last_revision() {
    assert_eq!(Revision(i64::MAX).next(), Revision(i64::MAX));
    assert_eq!(Revision(i64::MIN).previous(), Revision(i64::MIN));
}

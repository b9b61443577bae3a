//! What a client makes of servers that answer as no etcd does.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future, stream};
use quorate::{
    Client, ConnectOptions, ErrorKind, KeyRange, Revision,
    backend::etcd::{EtcdOptions, Pipes},
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

/// A service that gives every call the same answer.
#[derive(Clone)]
struct Parrot {
    headers: HeaderMap,
    message: Option<Bytes>,
}

impl Parrot {
    fn refusing(headers: &[(&'static str, &str)]) -> Self {
        let header = |(name, value): &(&'static str, &str)| {
            let name = name.parse().expect("a name");
            (name, value.parse().expect("a value"))
        };
        Self {
            headers: headers.iter().map(header).collect(),
            message: None,
        }
    }

    fn saying(message: &[u8]) -> Self {
        let length = u8::try_from(message.len()).expect("a short message");
        Self {
            headers: HeaderMap::new(),
            message: Some([&[0, 0, 0, 0, length], message].concat().into()),
        }
    }

    /// How it is reached.
    fn options(self) -> EtcdOptions {
        let connect = move |_: &str| -> io::Result<DuplexStream> {
            let (client, server) = duplex(4096);
            let only = stream::iter([io::Result::Ok(server)]);
            let serving = Server::builder()
                .add_service(self.clone())
                .serve_with_incoming(only);
            tokio::spawn(serving);
            Ok(client)
        };
        EtcdOptions {
            pipes: Some(Pipes::new(connect)),
            ..EtcdOptions::default()
        }
    }

    async fn client(self) -> Client {
        let options = ConnectOptions::from(self.options());
        Client::connect(options).await.expect("fine options")
    }
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
        let mut response = match self.message.clone() {
            Some(message) => Response::new(Body::new(Said(Some(message), false))),
            None => Response::new(Body::empty()),
        };
        *response.headers_mut() = self.headers.clone();
        let grpc = "application/grpc".parse().expect("a value");
        response.headers_mut().insert("content-type", grpc);
        future::ready(Ok(response))
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
    let client = Parrot::refusing(&ODD_DETAILS).client().await;
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
        ..Parrot::refusing(&ODD_DETAILS).options()
    };
    let client = Client::connect(ConnectOptions::from(options)).await;
    let client = client.expect("fine options");
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
    let client = Parrot::saying(&PAGE).client().await;
    let pages: Vec<_> = client.pages(KeyRange::from("a")).take(5).collect().await;
    assert_eq!(pages.len(), 2, "{pages:?}");
    let error = pages[1].as_ref().expect_err("the same page again");
    assert!(error.to_string().contains("not asked for"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_member_can_have_a_server_started_here() {
    let client = Parrot::saying(&[]).client().await;
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

//! The server that lies: its connections and calls.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use prost_reflect::MethodDescriptor;
use quorate::backend::etcd::Pipes;
use quorate_server::fuzzing::{Routes, Subject};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};
use tower::{ServiceExt, service_fn};

use super::{
    answer::relay,
    lies::{Lies, Meeting, Reception},
};
use crate::METHODS;

/// How much of what is sent may wait in between.
const PIPE_BYTES: usize = 64 * 1024;

/// How many calls a client may make. One that makes more does not pause between attempts.
const MAX_CALLS: usize = 20_000;

/// How a client reaches a server that answers by `lies`.
pub(crate) fn pipes(subject: &Subject, lies: Lies) -> Pipes {
    let server = Server {
        genuine: subject.routes(),
        lies,
        calls: Arc::default(),
    };
    Pipes::new(move |_| server.connect())
}

#[derive(Clone)]
struct Server {
    genuine: Routes,
    lies: Lies,
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn connect(&self) -> io::Result<DuplexStream> {
        let (client, server) = duplex(PIPE_BYTES);
        match self.lies.meeting() {
            Meeting::Honest => {
                tokio::spawn(self.clone().serve(server));
            }
            Meeting::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Meeting::Babble(bytes) => {
                tokio::spawn(babble(server, bytes));
            }
        }
        Ok(client)
    }

    async fn serve(self, connection: DuplexStream) {
        let answer = move |request: Request<tonic::body::Body>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        };
        let only = tokio_stream::once(io::Result::Ok(connection));
        // The client may break it off as it likes.
        let _ = tonic::transport::Server::builder()
            .max_concurrent_streams(u32::MAX)
            .serve_with_incoming(service_fn(answer), only)
            .await;
    }

    async fn answer(self, request: Request<tonic::body::Body>) -> Response<Body> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        assert!(calls < MAX_CALLS, "the client calls {path} without a pause");
        let Some(method) = method(&path) else {
            return status(StatusCode::NOT_FOUND);
        };
        match self.lies.reception() {
            Reception::Honest => {}
            Reception::Refused(refusal) => {
                let mut response = status(StatusCode::OK);
                *response.headers_mut() = refusal.trailers();
                let grpc = http::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert("content-type", grpc);
                return response;
            }
            Reception::Late(seconds) => sleep(Duration::from_secs(seconds)).await,
            Reception::Http(code) => {
                return status(StatusCode::from_u16(code).expect("a known status"));
            }
        }
        let Ok(answer) = self.genuine.oneshot(request).await;
        let (parts, body) = answer.into_parts();
        let body = relay(self.lies, method.output(), body);
        Response::from_parts(parts, body)
    }
}

async fn babble(mut connection: DuplexStream, bytes: Vec<u8>) {
    // It may have hung up.
    let _ = connection.write_all(&bytes).await;
    sleep(Duration::from_secs(1)).await;
}

fn method(path: &str) -> Option<&'static MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    METHODS
        .iter()
        .find(|it| it.name() == name && it.parent_service().full_name() == service)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

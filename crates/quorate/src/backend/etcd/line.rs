//! A connection that survives whatever a server puts beside its answers.
//!
//! tonic 0.14 panics on `grpc-status-details-bin` that is no base64, in the task of whoever asked. etcd
//! sends no such details, and this library reads none. Who uses the clients of feature `raw` does without
//! them, too.

#![allow(unnameable_types, unreachable_pub)] // `RawChannel` is made of them, and is the name for them

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::Service,
    transport::{Channel, Error},
};

/// Where a server puts details of an error.
const DETAILS: &str = "grpc-status-details-bin";

/// A connection to one member, as the clients of the services use it. Clones share it.
#[derive(Clone, Debug)]
pub struct Line(Channel);

/// An answer's body without details of errors.
#[derive(Debug)]
pub struct Plain(Body);

impl Line {
    pub(super) fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<Plain>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        async move {
            let mut answer = answer.await?;
            without_details(answer.headers_mut());
            Ok(answer.map(Plain))
        }
        .boxed()
    }
}

impl http_body::Body for Plain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            without_details(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn without_details(headers: &mut HeaderMap) {
    headers.remove(DETAILS);
}

//! What can be cut from outside: streams, and connections.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, HeaderValue},
};

use crate::control::{Control, Replies};

/// Cuts all that was registered before.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Cuts these as well, and all that comes later.
    end: CancellationToken,
    current: Mutex<CancellationToken>,
}

impl Cut {
    pub(crate) fn new(end: &CancellationToken) -> Self {
        Self {
            end: end.clone(),
            current: Mutex::new(end.child_token()),
        }
    }

    /// Ends at the next cut.
    pub(crate) fn register(&self) -> Pin<Box<WaitForCancellationFutureOwned>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(current.clone().cancelled_owned())
    }

    pub(crate) fn cut(&self) {
        let next = self.end.child_token();
        let last = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, next)
        };
        // Outside the lock: to wake may run foreign code.
        last.cancel();
    }
}

/// What a stream tells, until it is cut. Its messages may be delayed or lost on the way.
pub(crate) struct Stream {
    body: Option<Body>,
    control: Control,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What is on its way, and when it arrives.
    delayed: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
    is_grpc: bool,
}

impl Stream {
    pub(crate) fn new(body: Body, control: Control, is_grpc: bool) -> Self {
        Self {
            body: Some(body),
            cut: control.streams_cut(),
            control,
            delayed: None,
            is_grpc,
        }
    }

    /// The end of a stream that was cut. A client of gRPC is told to try again.
    fn end(&self) -> Option<Result<Frame<Bytes>, Status>> {
        let status = Status::unavailable("the stream was cut");
        if !self.is_grpc {
            return Some(Err(status));
        }
        let mut trailers = HeaderMap::new();
        let code = HeaderValue::from(i32::from(Code::Unavailable));
        trailers.insert(Status::GRPC_STATUS, code);
        trailers.insert(
            Status::GRPC_MESSAGE,
            HeaderValue::from_static("the stream was cut"),
        );
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if this.cut.as_mut().poll(cx).is_ready() {
            this.body = None;
            return Poll::Ready(this.end());
        }
        loop {
            if let Some((_, arrival)) = &mut this.delayed {
                ready!(arrival.as_mut().poll(cx));
                return Poll::Ready(this.delayed.take().map(|(frame, _)| Ok(frame)));
            }
            let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match this.control.replies_now() {
                Replies::Lost if frame.is_data() => {}
                Replies::Delayed(by) if by > Duration::ZERO => {
                    this.delayed = Some((frame, Box::pin(sleep(by))));
                }
                _ => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream) && self.delayed.is_none()
    }
}

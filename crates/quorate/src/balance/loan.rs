//! A request's body that comes back if nobody began to read it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::link::lock;

/// Lends a body to a connection. A connection reads a body as soon as it sends the head of the
/// request, so a body that was not read tells that nothing was sent.
pub(super) fn lend(body: Body) -> (Body, Loan) {
    let state = Arc::new(Mutex::new(State {
        body: Some(body),
        read: false,
    }));
    let lent = Lent(Arc::clone(&state));
    (Body::new(lent), Loan(state))
}

/// What is left to the lender.
pub(super) struct Loan(Arc<Mutex<State>>);

impl Loan {
    /// The body, if it was not read. If the connection still has the request it cannot read it any more.
    pub(super) fn back(&self) -> Option<Body> {
        let mut state = lock(&self.0);
        if state.read { None } else { state.body.take() }
    }
}

struct Lent(Arc<Mutex<State>>);

pub(super) struct State {
    /// Gone once it was taken back.
    body: Option<Body>,
    read: bool,
}

impl http_body::Body for Lent {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let mut state = lock(&self.0);
        state.read = true;
        match &mut state.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err(Status::aborted("the request goes elsewhere")))),
        }
    }

    /// Not even if it is empty: whether it was read is to be seen.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.0);
        state
            .body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

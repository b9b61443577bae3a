//! The bodies of a call: what is sent, and what comes back.

#![allow(unnameable_types, unreachable_pub)] // as in `line`

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::body::Body;

use super::line::{Broken, Call};

/// A request on its way. It goes on while somebody waits for the answer or reads it.
pub(super) struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// What was taken of the body and not sent: at most two pieces, so that the last is known to be.
    taken: VecDeque<Bytes>,
    /// Whether all of the body was taken.
    is_whole: bool,
    /// Whether all is sent, or nobody wants it.
    is_over: bool,
}

impl Upload {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            taken: VecDeque::with_capacity(2),
            is_whole: false,
            is_over: false,
        }
    }

    /// Sends what there is, as far as the server takes it. The task is woken when there is more to do.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        while !self.is_over {
            self.take(context);
            if self.send(context).is_pending() {
                return;
            }
        }
    }

    fn take(&mut self, context: &mut Context<'_>) {
        while !self.is_whole && self.taken.len() < 2 {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.taken
                        .extend(Some(data).filter(|data| !data.is_empty()));
                }
                Poll::Ready(Some(Err(_))) => {
                    self.stream.send_reset(Reason::CANCEL);
                    self.is_over = true;
                    return;
                }
                Poll::Ready(None) => self.is_whole = true,
                Poll::Pending => return,
            }
        }
    }

    /// Sends a piece, or waits until there is one, or room for it.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(first) = self.taken.front_mut() else {
            if !self.is_whole {
                return Poll::Pending;
            }
            // The answer tells if nobody takes it.
            let _ = self.stream.send_data(Bytes::new(), true);
            self.is_over = true;
            return Poll::Ready(());
        };
        self.stream.reserve_capacity(first.len());
        if self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.is_over = true,
            }
            return Poll::Ready(());
        }
        let piece = first.split_to(first.len().min(self.stream.capacity()));
        if first.is_empty() {
            self.taken.pop_front();
        }
        let is_last = self.is_whole && self.taken.is_empty();
        let sent = self.stream.send_data(piece, is_last);
        self.is_over |= is_last || sent.is_err();
        Poll::Ready(())
    }
}

/// What a server answers, without details of errors.
pub struct Answer {
    body: RecvStream,
    /// The rest of the request, for streams.
    upload: Option<Upload>,
    call: Call,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Data,
    Trailers,
    Over,
}

impl Answer {
    pub(super) fn new(body: RecvStream, upload: Upload, call: Call) -> Self {
        Self {
            body,
            upload: Some(upload).filter(|upload| !upload.is_over),
            call,
            state: State::Data,
        }
    }

    /// Nothing more will come, and nothing more is wanted.
    fn end(&mut self) {
        self.upload = None;
        self.state = State::Over;
    }

    fn broken(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.end();
        Poll::Ready(Some(Err(self.call.shared().broken(error, false))))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(upload) = &mut self.upload {
            upload.advance(context);
        }
        if let State::Data = self.state {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(data)) => {
                    self.call.shared().hear();
                    // What was received fits into the window, so this gives back no more than was taken.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.broken(error),
                None => self.state = State::Trailers,
            }
        }
        if let State::Over = self.state {
            return Poll::Ready(None);
        }
        match ready!(self.body.poll_trailers(context)) {
            Ok(trailers) => {
                self.end();
                Poll::Ready(trailers.map(|mut trailers| {
                    drop_details(&mut trailers);
                    Ok(Frame::trailers(trailers))
                }))
            }
            Err(error) => self.broken(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Drops the details of an error: this library reads none, and tonic panics on those that are no base64.
pub(super) fn drop_details(headers: &mut HeaderMap) {
    headers.remove("grpc-status-details-bin");
}

//! The bodies of a call: what is sent, and what comes back.

#![allow(unnameable_types, unreachable_pub)] // as in `line`

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::body::Body;

use super::line::{Broken, Count, Shared};

/// A request on its way. It goes on while somebody waits for the answer or reads it.
pub(super) struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// What was taken of the body and not sent, in its order: two pieces at the most, so that the last is
    /// known to be.
    next: Bytes,
    after: Bytes,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was sent.
    New,
    /// There may be more of the body.
    Open,
    /// All of the body was taken.
    Whole,
    /// All is sent, or nobody wants it.
    Over,
}

/// What is sent without asking whether there is room for it, as the one message of most calls is: it waits
/// in the connection.
const SMALL: usize = 16 << 10;

impl Upload {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            next: Bytes::new(),
            after: Bytes::new(),
            progress: Progress::New,
        }
    }

    /// Sends what there is, as far as the server takes it. The task is woken when there is more to do.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        let is_new = self.progress == Progress::New;
        if is_new {
            self.progress = Progress::Open;
        }
        self.take(context);
        if is_new && (1..=SMALL).contains(&self.next.len()) {
            let piece = std::mem::replace(&mut self.next, std::mem::take(&mut self.after));
            self.send(piece);
        }
        while !self.is_over() && self.send_next(context).is_ready() {
            self.take(context);
        }
    }

    /// Whether there is nothing left to send.
    pub(super) fn is_over(&self) -> bool {
        self.progress == Progress::Over
    }

    fn take(&mut self, context: &mut Context<'_>) {
        while self.progress == Progress::Open && self.after.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    match self.next.is_empty() {
                        true => self.next = data,
                        false => self.after = data,
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.stream.send_reset(Reason::CANCEL);
                    self.progress = Progress::Over;
                }
                Poll::Ready(None) => self.progress = Progress::Whole,
                Poll::Pending => return,
            }
        }
    }

    /// Sends a piece, or waits until there is one, or room for it.
    fn send_next(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.next.is_empty() {
            if self.progress != Progress::Whole {
                return Poll::Pending;
            }
            self.send(Bytes::new());
            return Poll::Ready(());
        }
        self.stream.reserve_capacity(self.next.len());
        let room = self.stream.capacity();
        if room == 0 {
            if let Some(Err(_)) | None = ready!(self.stream.poll_capacity(context)) {
                self.progress = Progress::Over;
            }
            return Poll::Ready(());
        }
        let piece = self.next.split_to(room.min(self.next.len()));
        if self.next.is_empty() {
            self.next = std::mem::take(&mut self.after);
        }
        self.send(piece);
        Poll::Ready(())
    }

    /// Sends a piece that was taken off what comes next.
    fn send(&mut self, piece: Bytes) {
        let is_last = self.progress == Progress::Whole && self.next.is_empty();
        // If nobody takes it, the answer tells why.
        let sent = self.stream.send_data(piece, is_last);
        if is_last || sent.is_err() {
            self.progress = Progress::Over;
        }
    }
}

/// What a server answers, without details of errors.
pub struct Answer {
    /// `None` once it is over.
    body: Option<RecvStream>,
    /// The rest of the request, for streams.
    upload: Option<Upload>,
    /// Counts it while it is not over.
    call: Option<Count>,
    shared: Arc<Shared>,
    /// Whether all but the trailers was read.
    is_read: bool,
}

impl Answer {
    pub(super) fn new(body: RecvStream, upload: Upload, call: Count) -> Self {
        Self {
            body: Some(body),
            upload: Some(upload).filter(|upload| !upload.is_over()),
            shared: Arc::clone(call.shared()),
            call: Some(call),
            is_read: false,
        }
    }

    /// Nothing more will come, and nothing more is wanted.
    fn end(&mut self) {
        // The server has to learn of it if the request was not whole.
        let was_whole = self.upload.take().is_none();
        self.call = None;
        if let Some(body) = self.body.take()
            && was_whole
        {
            self.shared.let_go_later(body);
        }
    }

    fn broken(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.end();
        Poll::Ready(Some(Err(self.shared.broken(error, false))))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(upload) = &mut this.upload {
            upload.advance(context);
        }
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if !this.is_read {
            match ready!(body.poll_data(context)) {
                Some(Ok(data)) => {
                    // What was received fits into the window, so this gives back no more than was taken.
                    let _ = body.flow_control().release_capacity(data.len());
                    this.shared.hear();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return this.broken(error),
                None => this.is_read = true,
            }
        }
        match ready!(body.poll_trailers(context)) {
            Ok(trailers) => {
                this.end();
                Poll::Ready(trailers.map(|mut trailers| {
                    drop_details(&mut trailers);
                    Ok(Frame::trailers(trailers))
                }))
            }
            Err(error) => this.broken(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Drops the details of an error: this library reads none, and tonic panics on those that are no base64.
pub(super) fn drop_details(headers: &mut HeaderMap) {
    headers.remove("grpc-status-details-bin");
}

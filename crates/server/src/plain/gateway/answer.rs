//! Answers: messages of gRPC that become JSON.

use std::{future::poll_fn, pin::Pin};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderName, StatusCode},
    response::Response,
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::plain::gateway::{http_status, json, within};

/// The bytes before each message: whether it is compressed, and how long it is.
const FRAME_HEADER_BYTES: usize = 5;

/// The messages of an answer.
pub(super) struct Answers {
    message: MessageDescriptor,
    headers: HeaderMap,
    body: Body,
    frames: BytesMut,
    deadline: Option<Instant>,
}

impl Answers {
    /// Fails if the answer is nothing but a refusal.
    pub(super) fn new(
        message: MessageDescriptor,
        response: Response,
        deadline: Option<Instant>,
    ) -> Result<Self, Status> {
        let (parts, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&parts.headers)
            && status.code() != Code::Ok
        {
            return Err(status);
        }
        Ok(Self {
            message,
            headers: parts.headers,
            body,
            frames: BytesMut::new(),
            deadline,
        })
    }

    /// The answer of a method that sends one message.
    pub(super) async fn only(mut self) -> Result<Response, Status> {
        let Some(message) = self.next().await? else {
            return Err(Status::internal("the answer has no message"));
        };
        let text = to_json(&message)?;
        // Only its end tells whether it is an answer.
        while self.next().await?.is_some() {}
        Ok(self.response(text.into()))
    }

    /// The answer of a method that sends many: objects in a line each, sent when they are there and
    /// fetched when they can be sent. It begins with the first message, since until then it may
    /// become a refusal.
    pub(super) async fn stream(mut self) -> Result<Response, Status> {
        let Some(first) = self.next_line().await? else {
            return Ok(self.response(Body::empty()));
        };
        let headers = std::mem::take(&mut self.headers);
        let rest = stream::unfold(Some(self), async |answers| {
            let mut answers = answers?;
            match answers.next_line().await {
                Ok(line) => Some((line?, Some(answers))),
                Err(status) => Some((error_line(&status), None)),
            }
        });
        let lines = stream::iter([first]).chain(rest);
        let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
        Ok(response(&headers, body))
    }

    async fn next_line(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(message) = self.next().await? else {
            return Ok(None);
        };
        let mut line = b"{\"result\":".to_vec();
        line.extend_from_slice(&to_json(&message)?);
        line.extend_from_slice(b"}\n");
        Ok(Some(line.into()))
    }

    /// The next message; none after the last.
    async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        loop {
            if let Some(bytes) = self.take_frame() {
                let message = DynamicMessage::decode(self.message.clone(), bytes)
                    .map_err(|error| Status::internal(error.to_string()))?;
                return Ok(Some(message));
            }
            let body = &mut self.body;
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            let frame = match within(self.deadline, frame).await? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Status::from_error(error.into())),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => self.frames.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = Status::from_header_map(&trailers);
                    match status.filter(|status| status.code() != Code::Ok) {
                        Some(status) => return Err(status),
                        None => return Ok(None),
                    }
                }
            }
        }
    }

    /// A whole message out of what has come so far.
    fn take_frame(&mut self) -> Option<Bytes> {
        let mut header = self.frames.get(..FRAME_HEADER_BYTES)?;
        header.advance(1); // compression was not offered
        let length = usize::try_from(header.get_u32()).ok()?;
        if self.frames.len() < FRAME_HEADER_BYTES + length {
            return None;
        }
        self.frames.advance(FRAME_HEADER_BYTES);
        Some(self.frames.split_to(length).freeze())
    }

    fn response(&self, body: Body) -> Response {
        response(&self.headers, body)
    }
}

/// A refusal before the first message. etcd 3.4 names its text `error`, 3.5.30 does not.
pub(super) fn refusal(status: &Status) -> Response {
    let text = status.message();
    let body = json!({"error": text, "code": i32::from(status.code()), "message": text});
    json(http_status(status.code()), body.to_string())
}

/// A refusal after it, in the words of etcd 3.4 and of 3.5.
fn error_line(status: &Status) -> Bytes {
    let code = i32::from(status.code());
    let http = http_status(status.code());
    let error = json!({
        "code": code,
        "message": status.message(),
        "grpc_code": code,
        "http_code": http.as_u16(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    });
    format!("{}\n", json!({ "error": error })).into()
}

fn response(headers: &HeaderMap, body: Body) -> Response {
    let mut response = json(StatusCode::OK, body);
    for (name, value) in headers {
        if let Ok(name) = HeaderName::try_from(format!("grpc-metadata-{name}")) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// In etcd's manner: names as they are declared, long numbers as strings, and no defaults.
fn to_json(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut text = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(text)
}

//! Requests: JSON that becomes messages of gRPC.

use axum::{
    BoxError,
    body::{Body, BodyDataStream},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor};
use serde_json::Value;
use tonic::Status;

use crate::services::MAX_MESSAGE_BYTES;

/// The longest text of a message. A message has fewer bytes than its text, and whatever is within
/// the limit of gRPC is so within this.
const MAX_TEXT_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// The messages of a request, each a JSON object, with or without space between them.
pub(super) struct Requests {
    message: MessageDescriptor,
    /// None once it has ended.
    body: Option<BodyDataStream>,
    text: BytesMut,
    scan: Scan,
    /// How many messages there were.
    count: usize,
}

impl Requests {
    pub(super) fn new(message: MessageDescriptor, body: Body) -> Self {
        Self {
            message,
            body: Some(body.into_data_stream()),
            text: BytesMut::new(),
            scan: Scan::default(),
            count: 0,
        }
    }

    /// The next message, in a frame of gRPC.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            match self.scan.end(&self.text) {
                Err(Unexpected(byte)) => {
                    let found = char::from(byte).escape_default();
                    let why =
                        format!("a message is a JSON object, and does not begin with '{found}'");
                    return Some(Err(self.invalid(why)));
                }
                Ok(Some(end)) => {
                    let text = self.text.split_to(end);
                    self.scan = Scan::default();
                    self.count += 1;
                    return Some(self.encode(&text));
                }
                Ok(None) if self.text.len() > MAX_TEXT_BYTES => {
                    return Some(Err(too_large(self.text.len(), MAX_TEXT_BYTES)));
                }
                Ok(None) => {}
            }
            match self.body.as_mut()?.next().await {
                Some(Ok(bytes)) => self.text.extend_from_slice(&bytes),
                Some(Err(error)) => {
                    self.body = None;
                    // Not "cancelled", which tonic takes for the end of a request.
                    return Some(Err(Status::unavailable(error.to_string())));
                }
                None => {
                    self.body = None;
                    if self.scan.is_inside() {
                        return Some(Err(self.invalid("unexpected EOF")));
                    }
                }
            }
        }
    }

    /// The messages one by one, as they are asked for. An error is the last.
    pub(super) fn frames(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        stream::unfold(Some(self), async |requests| {
            let mut requests = requests?;
            Some(match requests.next().await? {
                Ok(frame) => (Ok(frame), Some(requests)),
                Err(status) => (Err(status.into()), None),
            })
        })
    }

    fn encode(&self, text: &[u8]) -> Result<Bytes, Status> {
        let message = self.parse(text).map_err(|error| self.invalid(error))?;
        let length = message.encoded_len();
        if length > MAX_MESSAGE_BYTES {
            return Err(too_large(length, MAX_MESSAGE_BYTES));
        }
        let mut frame = header(length);
        message.encode_raw(&mut frame);
        Ok(frame.freeze())
    }

    fn parse(&self, text: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = || self.message.clone();
        let mut json = serde_json::Deserializer::from_slice(text);
        let error = match DynamicMessage::deserialize_with_options(message(), &mut json, &options) {
            Ok(message) => return Ok(message),
            Err(error) => error,
        };
        // Go passes over line breaks in base64, and some encoders make them.
        let mut json: Value = serde_json::from_slice(text)?;
        if !join_lines(&mut json, &self.message) {
            return Err(error);
        }
        DynamicMessage::deserialize_with_options(message(), json, &options)
    }

    fn invalid(&self, why: impl std::fmt::Display) -> Status {
        let text = match self.count {
            0 | 1 => format!("invalid JSON: {why}"),
            count => format!("invalid JSON in message {count}: {why}"),
        };
        Status::invalid_argument(text)
    }
}

/// Takes the line breaks out of all fields of bytes, and tells whether there were any.
fn join_lines(json: &mut Value, message: &MessageDescriptor) -> bool {
    let Value::Object(fields) = json else {
        return false;
    };
    let mut has_joined = false;
    for (name, value) in fields {
        let by_json_name = message.get_field_by_json_name(name);
        let Some(field) = by_json_name.or_else(|| message.get_field_by_name(name)) else {
            continue;
        };
        let values = match value {
            Value::Array(values) => values.iter_mut(),
            value => std::slice::from_mut(value).iter_mut(),
        };
        for value in values {
            match (field.kind(), value) {
                (Kind::Bytes, Value::String(text)) => {
                    let length = text.len();
                    text.retain(|it| !matches!(it, '\r' | '\n'));
                    has_joined |= text.len() < length;
                }
                (Kind::Message(message), value) => has_joined |= join_lines(value, &message),
                _ => {}
            }
        }
    }
    has_joined
}

/// The frame of a message in which nothing is set.
pub(super) fn empty() -> Bytes {
    header(0).freeze()
}

/// The beginning of a frame: not compressed, and of a length.
fn header(length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame
}

fn too_large(found: usize, limit: usize) -> Status {
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    Status::resource_exhausted(text)
}

/// Looks for the end of a JSON object in a text that grows.
#[derive(Debug, Default)]
struct Scan {
    /// How much was looked at.
    at: usize,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

/// What an object does not begin with.
#[derive(Debug, PartialEq)]
struct Unexpected(u8);

impl Scan {
    /// Where the object ends, if it does. Whether it is well-formed is for others to say.
    fn end(&mut self, text: &[u8]) -> Result<Option<usize>, Unexpected> {
        while let Some(&byte) = text.get(self.at) {
            self.at += 1;
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' => self.depth += 1,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Err(Unexpected(byte)),
                b'"' => self.is_in_string = true,
                b'}' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.at));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    const fn is_inside(&self) -> bool {
        self.depth > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(pieces: &[&str]) -> Result<Option<usize>, Unexpected> {
        let mut scan = Scan::default();
        let mut text = String::new();
        for piece in pieces {
            text.push_str(piece);
            if let Some(end) = scan.end(text.as_bytes())? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    #[test]
    fn an_object_ends_with_its_last_brace() {
        assert_eq!(ends(&[r#" {"a":{"b":"}\"}"}}{"#]), Ok(Some(19)));
        assert_eq!(ends(&[r#"{"a":"\"#, r#"\"}"#]), Ok(Some(10)));
        assert_eq!(ends(&["{", "\"", "}", "\"", "}"]), Ok(Some(5)));
        assert_eq!(ends(&["{{}", " "]), Ok(None));
        assert_eq!(ends(&[" [1]"]), Err(Unexpected(b'[')));
        assert_eq!(ends(&["}"]), Err(Unexpected(b'}')));
    }
}

//! Calls of gRPC without a network, and what their answers may be.

use std::{pin::Pin, time::Duration};

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, MethodDescriptor, prost::Message};
use quorate_server::fuzzing::Routes;
use tokio::time::timeout;
use tonic::{Code, Status};
use tower::ServiceExt;

/// The bytes before each message: whether it is compressed, and how long it is.
pub(crate) const FRAME_HEADER_BYTES: usize = 5;

/// How long a call may take that waits for nothing but the server.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many pieces of one stream are looked at.
const MAX_PIECES: usize = 64;

/// The methods that wait for others.
const WAITING: [&str; 2] = ["v3lockpb.Lock.Lock", "v3electionpb.Election.Campaign"];

/// Calls a method with messages, and gives back the first one that it answers.
pub(crate) async fn call(
    routes: &Routes,
    method: &MethodDescriptor,
    messages: &[DynamicMessage],
    token: Option<&str>,
) -> Option<DynamicMessage> {
    let mut body = BytesMut::new();
    for message in messages {
        body.put_u8(0);
        body.put_u32(message.encoded_len() as u32);
        message.encode(&mut body).expect("a buffer that grows");
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let request = request
        .body(Body::from(body.freeze()))
        .expect("a fine request");

    let waits = WAITING.contains(&method.full_name());
    let Ok(answer) = timeout(PATIENCE, routes.clone().oneshot(request)).await else {
        assert!(waits, "{} hangs", method.full_name());
        return None;
    };
    let Ok(answer) = answer;
    let (parts, body) = answer.into_parts();
    let (data, trailers) = collect(body, waits || method.is_server_streaming()).await;
    for headers in [&parts.headers, &trailers] {
        if let Some(status) = Status::from_header_map(headers) {
            check(method, &status);
        }
    }
    let message = data.get(FRAME_HEADER_BYTES..)?;
    let length = u32::from_be_bytes(data[1..FRAME_HEADER_BYTES].try_into().expect("four"));
    let message = message.get(..length as usize).expect("a whole message");
    Some(DynamicMessage::decode(method.output(), message).expect("a message of that type"))
}

/// What a body tells without waiting, and its trailers.
async fn collect(
    mut body: impl http_body::Body<Data = Bytes> + Unpin,
    may_wait: bool,
) -> (BytesMut, HeaderMap) {
    let mut data = BytesMut::new();
    for _ in 0..MAX_PIECES {
        let frame = timeout(PATIENCE, Pin::new(&mut body).frame()).await;
        match frame {
            Err(_) => {
                assert!(may_wait, "an answer hangs");
                break;
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return (data, trailers);
                }
            },
            Ok(Some(Err(_)) | None) => break,
        }
    }
    (data, HeaderMap::new())
}

/// Nothing that can be read may be an internal error.
fn check(method: &MethodDescriptor, status: &Status) {
    let is_fine = match status.code() {
        Code::Internal | Code::DataLoss => false,
        Code::Unknown => !status.message().is_empty(),
        _ => true,
    };
    assert!(is_fine, "{}: {status:?}", method.full_name());
}

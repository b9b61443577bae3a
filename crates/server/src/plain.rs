//! What is served beside gRPC on the same port, and the one error that tonic words otherwise than
//! etcd.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use tonic::{Code, Status, service::Routes};

use crate::{server::MAX_MESSAGE_BYTES, shared::VERSION};

/// Adds `/health` and `/version` to the services.
pub(crate) fn beside(services: Routes) -> Routes {
    let router = services
        .into_axum_router()
        .route("/health", get(health))
        .route("/version", get(version))
        .layer(map_response(reword));
    Routes::from(router)
}

async fn health() -> impl IntoResponse {
    json(r#"{"health":"true","reason":""}"#.to_owned())
}

async fn version() -> impl IntoResponse {
    json(format!(
        r#"{{"etcdserver":"{VERSION}","etcdcluster":"{VERSION}"}}"#
    ))
}

fn json(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], text)
}

/// Puts tonic's refusal of a message that is too large in etcd's words and code.
async fn reword(mut response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let Some(found) = (status.code() == Code::OutOfRange)
        .then(|| status.message())
        .and_then(|text| text.split_once("message length too large: found "))
        .and_then(|(_, rest)| rest.split(' ').next())
    else {
        return response;
    };
    let text = format!("grpc: received message larger than max ({found} vs. {MAX_MESSAGE_BYTES})");
    let headers = response.headers_mut();
    let code = i32::from(Code::ResourceExhausted);
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert(Status::GRPC_MESSAGE, text);
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(code));
    }
    response
}

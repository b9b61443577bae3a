//! What is served beside gRPC on the same port, and the errors that tonic words otherwise than etcd.
//!
//! - `gateway`: etcd's services by JSON; `request` and `answer` turn it into messages and back
//! - `health`, `metrics`: for those who watch over servers
//! - `calls`: counts the calls of every method

mod calls;
pub(crate) mod gateway;
mod health;
mod metrics;

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::any,
};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, service::Routes};
use tower::Service;

use crate::{
    plain::{
        calls::{Calls, count},
        gateway::Gateway,
    },
    server::MAX_MESSAGE_BYTES,
    store::shared::{Shared, VERSION},
};

/// What browsers are told, as by default etcd tells them: pages of any origin may ask.
const ORIGINS: [(HeaderName, HeaderValue); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    ),
];

/// All messages and services. It takes a millisecond to read, which those who start many servers need not wait for.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_wire::DESCRIPTORS).expect("the descriptors are generated")
});

/// Adds to the services what is not gRPC.
pub(crate) fn beside(services: Routes, shared: &Arc<Shared>) -> Routes {
    let calls = Arc::new(Calls::new(&POOL));
    let counting = from_fn_with_state(Arc::clone(&calls), count);
    let services = services.into_axum_router();
    let services = services.layer(map_response(reword)).layer(counting);
    let gateway = Gateway::new(&POOL, services.clone());
    let plain = health::routes(shared)
        .merge(metrics::routes(shared, &calls))
        .route("/version", any(version))
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"));
    let rest = async move |request| rest(gateway.clone(), plain.clone(), request).await;
    Routes::from(services.fallback(rest))
}

/// Answers what no service does.
async fn rest(gateway: Gateway, mut plain: Router, request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let path = request.uri().path().trim_start_matches('/');
        let service = path.split('/').next().unwrap_or_default();
        let status = Status::unimplemented(format!("unknown service {service}"));
        return status.into_http::<Body>();
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else if Gateway::has(request.uri().path()) {
        gateway.answer(request).await
    } else {
        let Ok(response) = plain.call(request).await;
        response
    };
    response.headers_mut().extend(ORIGINS);
    response
}

async fn version(method: Method) -> Response {
    get_only(&method).unwrap_or_else(|| {
        let text = format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"{VERSION}"}}"#);
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    })
}

/// Refuses a request that does not get, even one for the head of what could be got.
pub(crate) fn get_only(method: &Method) -> Option<Response> {
    (method != Method::GET).then(|| {
        let allowed = [(header::ALLOW, "GET")];
        let text = "Method Not Allowed\n";
        (StatusCode::METHOD_NOT_ALLOWED, allowed, text).into_response()
    })
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

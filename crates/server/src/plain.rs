//! What is served beside gRPC on the same port.
//!
//! - `gateway`: etcd's services by JSON; `request` and `answer` turn it into messages and back
//! - `health`, `metrics`: for those who watch over servers

pub(crate) mod gateway;
mod health;
mod metrics;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{self, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use tonic::{Status, body::Body};
use tower::Service;

use crate::{
    plain::gateway::Gateway,
    services::{Services, calls::Calls},
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

/// Answers what no service does.
pub(crate) struct Plain(Router);

impl Plain {
    pub(crate) fn new(services: &Services, shared: &Arc<Shared>, calls: &Arc<Calls>) -> Self {
        let gateway = Arc::new(Gateway::new(services.clone()));
        let pages = health::routes(shared)
            .merge(metrics::routes(shared, calls))
            .route("/version", any(version))
            .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"));
        let rest = async move |request| rest(&gateway, pages.clone(), request).await;
        Self(Router::new().fallback(rest))
    }

    pub(crate) async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        let Ok(response) = self.0.clone().call(request).await;
        response.map(Body::new)
    }
}

async fn rest(gateway: &Gateway, mut pages: Router, request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let path = request.uri().path().trim_start_matches('/');
        let service = path.split('/').next().unwrap_or_default();
        return Status::unimplemented(format!("unknown service {service}")).into_http();
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else if Gateway::has(request.uri().path()) {
        gateway.answer(request).await
    } else {
        let Ok(response) = pages.call(request).await;
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

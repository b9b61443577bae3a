//! The gateway: etcd's services by HTTP and JSON, each path a method of gRPC.
//!
//! A request becomes a message by its descriptor, goes to the very services that gRPC reaches, and
//! the answer comes back as JSON. Nothing here knows what any method does.

mod answer;
mod request;

use std::{collections::HashMap, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, Version, header,
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use prost_reflect::MethodDescriptor;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    plain::gateway::{
        answer::{Answers, refusal},
        request::Requests,
    },
    services::{POOL, Services},
};

/// What stands before the paths; the second as etcd 3.3 had it, which newer ones still take.
const PREFIXES: [&str; 2] = ["/v3/", "/v3beta/"];

/// The paths of each service, and the methods behind them.
pub(crate) const PATHS: [(&str, &[(&str, &str)]); 8] = [
    (
        "etcdserverpb.KV",
        &[
            ("kv/compaction", "Compact"),
            ("kv/deleterange", "DeleteRange"),
            ("kv/put", "Put"),
            ("kv/range", "Range"),
            ("kv/txn", "Txn"),
        ],
    ),
    ("etcdserverpb.Watch", &[("watch", "Watch")]),
    (
        "etcdserverpb.Lease",
        &[
            ("lease/grant", "LeaseGrant"),
            ("lease/keepalive", "LeaseKeepAlive"),
            ("lease/leases", "LeaseLeases"),
            ("kv/lease/leases", "LeaseLeases"),
            ("lease/revoke", "LeaseRevoke"),
            ("kv/lease/revoke", "LeaseRevoke"),
            ("lease/timetolive", "LeaseTimeToLive"),
            ("kv/lease/timetolive", "LeaseTimeToLive"),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("cluster/member/add", "MemberAdd"),
            ("cluster/member/list", "MemberList"),
            ("cluster/member/promote", "MemberPromote"),
            ("cluster/member/remove", "MemberRemove"),
            ("cluster/member/update", "MemberUpdate"),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("maintenance/alarm", "Alarm"),
            ("maintenance/defragment", "Defragment"),
            ("maintenance/downgrade", "Downgrade"),
            ("maintenance/hash", "Hash"),
            ("maintenance/hashkv", "HashKV"),
            ("maintenance/snapshot", "Snapshot"),
            ("maintenance/status", "Status"),
            ("maintenance/transfer-leadership", "MoveLeader"),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("auth/authenticate", "Authenticate"),
            ("auth/disable", "AuthDisable"),
            ("auth/enable", "AuthEnable"),
            ("auth/role/add", "RoleAdd"),
            ("auth/role/delete", "RoleDelete"),
            ("auth/role/get", "RoleGet"),
            ("auth/role/grant", "RoleGrantPermission"),
            ("auth/role/list", "RoleList"),
            ("auth/role/revoke", "RoleRevokePermission"),
            ("auth/status", "AuthStatus"),
            ("auth/user/add", "UserAdd"),
            ("auth/user/changepw", "UserChangePassword"),
            ("auth/user/delete", "UserDelete"),
            ("auth/user/get", "UserGet"),
            ("auth/user/grant", "UserGrantRole"),
            ("auth/user/list", "UserList"),
            ("auth/user/revoke", "UserRevokeRole"),
        ],
    ),
    (
        "v3lockpb.Lock",
        &[("lock/lock", "Lock"), ("lock/unlock", "Unlock")],
    ),
    (
        "v3electionpb.Election",
        &[
            ("election/campaign", "Campaign"),
            ("election/leader", "Leader"),
            ("election/observe", "Observe"),
            ("election/proclaim", "Proclaim"),
            ("election/resign", "Resign"),
        ],
    ),
];

/// How much earlier than its client the gateway gives up: tonic gives up when the client does, and
/// knows no JSON.
const MARGIN: Duration = Duration::from_millis(3);

/// Serves JSON by the services of gRPC.
pub(crate) struct Gateway {
    services: Services,
    methods: HashMap<&'static str, MethodDescriptor>,
}

impl Gateway {
    pub(crate) fn new(services: Services) -> Self {
        let methods = PATHS.iter().flat_map(|(service, paths)| {
            let service = POOL.get_service_by_name(service);
            paths.iter().map(move |(path, name)| {
                let mut methods = service.iter().flat_map(|service| service.methods());
                let method = methods.find(|method| method.name() == *name);
                (*path, method.expect("the descriptors have all methods"))
            })
        });
        Self {
            services,
            methods: methods.collect(),
        }
    }

    /// Whether a path is the gateway's to answer.
    pub(crate) fn has(path: &str) -> bool {
        PREFIXES.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Answers a request, or says why not.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path();
        let mut paths = PREFIXES.iter().filter_map(|it| path.strip_prefix(it));
        let method = paths.next().and_then(|path| self.methods.get(path));
        let answer = match method {
            None => Err(Status::not_found("Not Found")),
            Some(_) if request.method() != Verb::POST => {
                // The code that etcd 3.5 gives, and a client makes the same of it.
                Err(Status::unimplemented("Method Not Allowed"))
            }
            Some(method) => call(&self.services, method.clone(), request).await,
        };
        answer.unwrap_or_else(|status| refusal(&status))
    }
}

/// Sends a request to its method, and waits for the first message of the answer.
async fn call(
    services: &Services,
    method: MethodDescriptor,
    request: Request,
) -> Result<Response, Status> {
    let (parts, body) = request.into_parts();
    let deadline = deadline(&parts.headers)?;
    let mut requests = Requests::new(method.input(), body);
    let body = if method.is_client_streaming() {
        Body::from_stream(requests.frames())
    } else {
        // What comes after the first message is not read, as etcd does not either.
        let first = within(deadline, requests.next()).await?;
        Body::from(first.unwrap_or_else(|| Ok(request::empty()))?)
    };
    let request = inner(parts, &method, body);
    let request = request.map(tonic::body::Body::new);
    let response = within(deadline, services.answer(request)).await?;
    let response = response.map_err(|_| Status::internal("a method has no service"))?;
    let answers = Answers::new(method.output(), response.map(Body::new), deadline)?;
    if method.is_server_streaming() {
        answers.stream().await
    } else {
        answers.only().await
    }
}

/// The request of gRPC that carries a message.
fn inner(outer: Parts, method: &MethodDescriptor, body: Body) -> Request {
    let mut request = Request::new(body);
    let service = method.parent_service().full_name().to_owned();
    let path = format!("/{service}/{}", method.name());
    *request.uri_mut() = path.parse().expect("names are fit for a path");
    *request.method_mut() = Verb::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.extensions_mut() = outer.extensions; // who the peer is
    *request.headers_mut() = metadata(&outer.headers);
    request
}

/// What a service shall know of the headers: the token, and what is marked as metadata.
fn metadata(outer: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = outer.get(header::AUTHORIZATION) {
        headers.insert(header::AUTHORIZATION, token.clone());
        headers.insert(HeaderName::from_static("token"), token.clone());
    }
    for (name, value) in outer {
        let Some(name) = name.as_str().strip_prefix("grpc-metadata-") else {
            continue;
        };
        let is_grpc_s_own = name.starts_with("grpc-")
            || name.starts_with("grpcgateway-")
            || matches!(
                name,
                "connection" | "content-length" | "host" | "transfer-encoding"
            );
        if let (false, Ok(name)) = (is_grpc_s_own, HeaderName::try_from(name)) {
            headers.append(name, value.clone());
        }
    }
    // The mark of a gateway: whose certificate the connection shows does not matter then.
    let accept = outer.get(header::ACCEPT).cloned();
    let accept = accept.unwrap_or(HeaderValue::from_static("*/*"));
    headers.insert(HeaderName::from_static("grpcgateway-accept"), accept);
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers
}

/// When the client gives up, by a header as gRPC has it: digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(header) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = header.to_str().unwrap_or_default();
    let parse = || {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u32 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(3600) * number,
            "M" => Duration::from_secs(60) * number,
            "S" => Duration::from_secs(1) * number,
            "m" => Duration::from_millis(1) * number,
            "u" => Duration::from_micros(1) * number,
            "n" => Duration::from_nanos(1) * number,
            _ => return None,
        })
    };
    match parse() {
        Some(timeout) => Ok(Instant::now().checked_add(timeout.saturating_sub(MARGIN))),
        None => {
            let text = format!("invalid grpc-timeout: {text}");
            Err(Status::invalid_argument(text))
        }
    }
}

/// Waits no longer than until a deadline.
async fn within<T>(
    deadline: Option<Instant>,
    awaited: impl Future<Output = T>,
) -> Result<T, Status> {
    match deadline {
        None => Ok(awaited.await),
        Some(deadline) => tokio::time::timeout_at(deadline, awaited)
            .await
            .map_err(|_| Status::deadline_exceeded("context deadline exceeded")),
    }
}

/// The status of HTTP for a code of gRPC.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::FailedPrecondition | Code::InvalidArgument | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::DataLoss | Code::Internal | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An answer of JSON.
fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.into(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::shared::Shared;

    #[test]
    fn every_path_has_its_method() {
        let shared = Shared::new(String::new(), Duration::ZERO, None);
        let gateway = Gateway::new(Services::new(&shared, &Arc::default()));
        let paths: usize = PATHS.iter().map(|(_, paths)| paths.len()).sum();
        assert_eq!(gateway.methods.len(), paths);
        let method = &gateway.methods["kv/lease/revoke"];
        assert_eq!(method.full_name(), "etcdserverpb.Lease.LeaseRevoke");
    }

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        let at = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            deadline(&headers).is_ok_and(|deadline| deadline.is_some())
        };
        assert!(["1S", "99999999H", "0n", "20m"].into_iter().all(at));
        assert!(!["", "S", "500x", "-1S", "1.5S", "1 S"].into_iter().any(at));
    }

    #[test]
    fn metadata_cannot_pass_for_grpc_s_own_headers() {
        let mut outer = HeaderMap::new();
        for name in ["content-type", "grpc-encoding", "te", "connection", "color"] {
            let name = HeaderName::try_from(format!("grpc-metadata-{name}")).expect("a name");
            outer.insert(name, HeaderValue::from_static("red"));
        }
        let headers = metadata(&outer);
        assert_eq!(headers["color"], "red");
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers.get_all("te").iter().count(), 1);
        assert_eq!(headers.len(), 4);
    }
}

//! Counts the calls of every method.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::{Code, Status};

/// How many codes there are.
const CODES: usize = 17;

/// The names of all codes as Go has them, by number.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The calls of all methods.
pub(crate) struct Calls {
    /// By path.
    methods: HashMap<String, Arc<Method>>,
}

/// The calls of one method.
struct Method {
    /// What names it, for labels.
    labels: String,
    started: AtomicU64,
    /// By code.
    handled: [AtomicU64; CODES],
}

impl Calls {
    pub(crate) fn new(pool: &DescriptorPool) -> Self {
        let services = pool.services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            (path, Arc::new(Method::new(&method)))
        });
        Self {
            methods: methods.collect(),
        }
    }

    /// All counters, in the text format of Prometheus.
    pub(crate) fn write(&self, text: &mut String) {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_by_key(|method| &method.labels);
        text.push_str(
            "# HELP grpc_server_started_total Calls that have begun.\n\
             # TYPE grpc_server_started_total counter\n",
        );
        for method in &methods {
            let started = method.started.load(Ordering::Relaxed);
            let labels = &method.labels;
            text.push_str(&format!(
                "grpc_server_started_total{{{labels}}} {started}\n"
            ));
        }
        text.push_str(
            "# HELP grpc_server_handled_total Calls that have ended, by their codes.\n\
             # TYPE grpc_server_handled_total counter\n",
        );
        for method in &methods {
            let labels = &method.labels;
            for (code, handled) in CODE_NAMES.iter().zip(&method.handled) {
                let handled = handled.load(Ordering::Relaxed);
                // Codes that never came would be most of the text.
                if handled > 0 || *code == CODE_NAMES[0] {
                    let labels = format!("grpc_code=\"{code}\",{labels}");
                    text.push_str(&format!(
                        "grpc_server_handled_total{{{labels}}} {handled}\n"
                    ));
                }
            }
        }
    }
}

impl Method {
    fn new(method: &MethodDescriptor) -> Self {
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => "unary",
            (false, true) => "server_stream",
            (true, false) => "client_stream",
            (true, true) => "bidi_stream",
        };
        let (name, service) = (method.name(), method.parent_service());
        let service = service.full_name();
        Self {
            labels: format!(
                "grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\""
            ),
            started: AtomicU64::new(0),
            handled: Default::default(),
        }
    }
}

/// Counts a call on its way to a service, and its answer on the way back.
pub(crate) async fn count(
    State(calls): State<Arc<Calls>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(method) = calls.methods.get(request.uri().path()) else {
        return next.run(request).await;
    };
    method.started.fetch_add(1, Ordering::Relaxed);
    let mut call = Call {
        method: Arc::clone(method),
        code: Code::Cancelled,
    };
    let response = next.run(request).await;
    if let Some(status) = Status::from_header_map(response.headers()) {
        call.code = status.code();
        return response;
    }
    response.map(|body| Body::new(Counted { body, call }))
}

/// A call that goes on. It is counted when it is dropped, as cancelled unless its end was seen.
struct Call {
    method: Arc<Method>,
    code: Code,
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = usize::try_from(i32::from(self.code)).unwrap_or_default();
        if let Some(handled) = self.method.handled.get(code) {
            handled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The body of an answer, whose trailers tell the code.
struct Counted {
    body: Body,
    call: Call,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(status) = Status::from_header_map(trailers)
        {
            self.call.code = status.code();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

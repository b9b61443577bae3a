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

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status, body::Body, codegen::http::Response};

use super::POOL;

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

impl Default for Calls {
    fn default() -> Self {
        let services = POOL.services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            (path, Arc::new(Method::new(&method)))
        });
        Self {
            methods: methods.collect(),
        }
    }
}

impl Calls {
    /// Counts a call that begins; `None` if there is no such method.
    pub(super) fn begin(&self, path: &str) -> Option<Call> {
        let method = self.methods.get(path)?;
        method.started.fetch_add(1, Ordering::Relaxed);
        Some(Call {
            method: Arc::clone(method),
            code: Code::Cancelled,
        })
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

/// A call that goes on. It is counted when it is dropped, as cancelled unless its end was seen.
pub(super) struct Call {
    method: Arc<Method>,
    code: Code,
}

impl Call {
    /// The call goes on for as long as its answer does.
    pub(super) fn answered(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            self.code = status.code();
            return response;
        }
        response.map(|body| Body::new(Counted { body, call: self }))
    }
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
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
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

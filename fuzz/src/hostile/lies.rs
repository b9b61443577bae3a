//! What the input decides.

use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Result, Unstructured};
use tonic::Code;

/// The input, from which whoever lies next takes what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Lies(Arc<Mutex<Rest>>);

#[derive(Debug)]
struct Rest {
    input: Vec<u8>,
    taken: usize,
}

/// What becomes of a connection.
pub(super) enum Meeting {
    Honest,
    Refused,
    /// What the server says instead of HTTP/2.
    Babble(Vec<u8>),
}

/// What becomes of a call.
pub(super) enum Reception {
    Honest,
    Refused(Refusal),
    /// Seconds until it is done.
    Late(u64),
    /// An HTTP status rather than gRPC's.
    Http(u16),
}

/// What becomes of one message of an answer.
pub(super) enum Telling {
    Honest,
    /// How many fields are other than they were.
    Altered(u8),
    Invented,
    /// An invented message comes before it.
    Preceded,
    Twice,
    Never,
    /// Seconds until it comes.
    Late(u64),
    /// Some bytes are others.
    Damaged,
    /// No more comes, and this status, or none.
    Last(Option<Refusal>),
    /// The stream breaks.
    Broken,
}

/// An error status, etcd's or one that it never sends.
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) message: Vec<u8>,
    pub(super) details: Vec<u8>,
}

impl Lies {
    pub(crate) fn new(input: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Rest {
            input: input.to_vec(),
            taken: 0,
        })))
    }

    /// Takes a decision; none once the input has ended.
    pub(super) fn take<T>(
        &self,
        decide: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
    ) -> Option<T> {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = &rest.input[rest.taken..];
        if left.is_empty() {
            return None;
        }
        let mut u = Unstructured::new(left);
        let decided = decide(&mut u).ok();
        let used = left.len() - u.len();
        rest.taken += used.max(1);
        decided
    }

    pub(super) fn meeting(&self) -> Meeting {
        let meeting = self.take(|u| {
            Ok(match u.int_in_range(0..=31)? {
                1 | 2 => Meeting::Refused,
                3 => {
                    let length = u.int_in_range(0..=64)?.min(u.len());
                    Meeting::Babble(u.bytes(length)?.to_vec())
                }
                _ => Meeting::Honest,
            })
        });
        meeting.unwrap_or(Meeting::Honest)
    }

    pub(super) fn reception(&self) -> Reception {
        let reception = self.take(|u| {
            Ok(match u.int_in_range(0..=31)? {
                1 | 2 => Reception::Refused(refusal(u)?),
                3 => Reception::Late(late(u)?),
                4 => Reception::Http(*u.choose(&[200, 204, 302, 400, 429, 500, 503])?),
                _ => Reception::Honest,
            })
        });
        reception.unwrap_or(Reception::Honest)
    }

    pub(super) fn telling(&self) -> Telling {
        let telling = self.take(|u| {
            Ok(match u.int_in_range(0..=31)? {
                1..=8 => Telling::Altered(u.int_in_range(1..=3)?),
                9 | 10 => Telling::Invented,
                11 | 12 => Telling::Preceded,
                13 => Telling::Twice,
                14 => Telling::Never,
                15 => Telling::Late(late(u)?),
                16 => Telling::Damaged,
                17 => Telling::Last(if u.ratio(1, 2)? {
                    None
                } else {
                    Some(refusal(u)?)
                }),
                18 => Telling::Broken,
                _ => Telling::Honest,
            })
        });
        telling.unwrap_or(Telling::Honest)
    }
}

fn late(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(*u.choose(&[1, 2, 4, 6, 12, 60, 3600])?)
}

fn refusal(u: &mut Unstructured<'_>) -> Result<Refusal> {
    let code = match u.int_in_range(0..=19)? {
        // No code at all.
        18 => 99,
        19 => u32::MAX,
        code => code,
    };
    let message = match u.int_in_range(0..=2)? {
        0 => {
            let length = u.int_in_range(0..=16)?.min(u.len());
            u.bytes(length)?.to_vec()
        }
        _ => u.choose(TEXTS)?.as_bytes().to_vec(),
    };
    let length = u.int_in_range(0..=8)?.min(u.len());
    Ok(Refusal {
        code,
        message,
        details: u.bytes(length)?.to_vec(),
    })
}

/// What etcd says, and what only looks like it.
const TEXTS: &[&str] = &[
    "",
    "auth: invalid auth token",
    "auth: revision in header is old",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: authentication is not enabled",
    "etcdserver: corrupt cluster",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid auth token",
    "etcdserver: leader changed",
    "etcdserver: lease already exists",
    "etcdserver: key is not provided",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: no leader",
    "etcdserver: permission denied",
    "etcdserver: request is too large",
    "etcdserver: request timed out",
    "etcdserver: requested lease not found",
    "etcdserver: revision of auth store is old",
    "etcdserver: server stopped",
    "etcdserver: too many operations in txn request",
    "etcdserver: too many requests",
    "etcdserver: user name is empty",
    "operation was canceled",
];

impl Refusal {
    /// As headers or trailers have it.
    pub(super) fn trailers(&self) -> http::HeaderMap {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", self.code.into());
        if let Ok(message) = http::HeaderValue::from_bytes(&self.message) {
            trailers.insert("grpc-message", message);
        }
        if let Ok(details) = http::HeaderValue::from_bytes(&self.details) {
            trailers.insert("grpc-status-details-bin", details);
        }
        trailers
    }

    /// The end of a call that went well.
    pub(super) fn none() -> Self {
        Self {
            code: Code::Ok as u32,
            message: Vec::new(),
            details: Vec::new(),
        }
    }
}

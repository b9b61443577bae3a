//! Which calls there are, which are meant, and what can become of them.

use std::{fmt, time::Duration};

use quorate_engine::{Key, Op, Range, Txn, WatchRequest};

use crate::{Error, ErrorKind};

/// The kinds of calls that a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// Asking for alarms.
    Alarms,
    /// Administering users and roles.
    Auth,
    /// Dropping history.
    Compact,
    /// Granting a lease.
    Grant,
    /// Opening a keepalive stream.
    KeepAlive,
    /// Asking what is left of a lease.
    LeaseStatus,
    /// Listing the leases.
    Leases,
    /// Listing the members.
    Members,
    /// Reading keys.
    Range,
    /// Ending a lease.
    Revoke,
    /// Asking a member for its status.
    Status,
    /// A transaction; every write of a key is one.
    Txn,
    /// Opening a watch.
    Watch,
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alarms => "alarms",
            Self::Auth => "auth",
            Self::Compact => "compact",
            Self::Grant => "grant",
            Self::KeepAlive => "keep_alive",
            Self::LeaseStatus => "lease_status",
            Self::Leases => "leases",
            Self::Members => "members",
            Self::Range => "range",
            Self::Revoke => "revoke",
            Self::Status => "status",
            Self::Txn => "txn",
            Self::Watch => "watch",
        })
    }
}

/// The calls that a fault is for: all, those of one kind, those that name certain keys.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    kind: Option<CallKind>,
    key_part: Option<Vec<u8>>,
}

impl Calls {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }

    /// The calls of one kind.
    pub fn of(kind: CallKind) -> Self {
        Self {
            kind: Some(kind),
            key_part: None,
        }
    }

    /// Of these the ones that name a key with `part` in it. A range names its first key, a transaction
    /// those of all its conditions and operations; calls about leases and members name none.
    #[must_use]
    pub fn touching(self, part: impl AsRef<[u8]>) -> Self {
        Self {
            key_part: Some(part.as_ref().to_vec()),
            ..self
        }
    }

    pub(super) fn include(&self, call: &Call) -> bool {
        self.kind.is_none_or(|kind| kind == call.kind)
            && self.key_part.as_ref().is_none_or(|part| {
                let holds_part = |key: &Key| {
                    part.is_empty() || key.windows(part.len()).any(|window| window == part)
                };
                call.keys.iter().any(holds_part)
            })
    }
}

/// The calls of one kind.
impl From<CallKind> for Calls {
    fn from(kind: CallKind) -> Self {
        Self::of(kind)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is applied, and its answer is on the way for so long.
    DelayReply(Duration),
    /// It is on the way for so long before it is applied, even if the caller gives up meanwhile.
    DelayRequest(Duration),
    /// It is applied twice, as a network that repeats a request does it; the caller gets the first
    /// answer, once both are applied.
    Double,
    /// It is applied, and the caller waits for the answer in vain: until [`heal`](super::Faults::heal),
    /// and then gets an error.
    HangReply,
    /// It is not applied, and the caller waits in vain: until [`heal`](super::Faults::heal), and then
    /// gets an error.
    HangRequest,
    /// It is applied, but the caller gets an error at once: the connection broke.
    LoseReply,
    /// It is not applied, and the caller gets an error at once that does not tell so.
    LoseRequest,
    /// It is refused with a definite error of this kind, and not applied.
    Refuse(ErrorKind),
}

/// How a client is cut off from its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partition {
    /// Nothing goes through in either direction, and nothing fails. Calls wait, streams are silent, and
    /// when it heals what was sent meanwhile arrives late, as it does where a network drops packets
    /// and both sides send again.
    Hang,
    /// Requests arrive and are applied, answers and events do not come back. When it heals, calls that
    /// waited for an answer fail, and streams tell what they have missed.
    LoseReplies,
    /// Answers and events come back, requests do not arrive. When it heals, calls that were made
    /// meanwhile fail, and beats arrive late.
    LoseRequests,
    /// Calls fail at once as [`Unavailable`](ErrorKind::Unavailable), streams are cut.
    Refuse,
}

/// A call as the faults see it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: CallKind,
    keys: Vec<Key>,
    /// Whether it leaves anything changed, so that its fate matters when no answer comes.
    writes: bool,
}

impl Call {
    /// A call that names no key.
    pub(super) fn of(kind: CallKind) -> Self {
        let writes = matches!(
            kind,
            CallKind::Auth | CallKind::Compact | CallKind::Grant | CallKind::Revoke
        );
        Self {
            kind,
            keys: Vec::new(),
            writes,
        }
    }

    pub(super) fn range(request: &Range) -> Self {
        Self {
            keys: vec![request.keys.start.clone()],
            ..Self::of(CallKind::Range)
        }
    }

    pub(super) fn watch(request: &WatchRequest) -> Self {
        Self {
            keys: vec![request.keys.start.clone()],
            ..Self::of(CallKind::Watch)
        }
    }

    pub(super) fn txn(request: &Txn) -> Self {
        let mut call = Self::of(CallKind::Txn);
        call.add(request);
        call
    }

    fn add(&mut self, txn: &Txn) {
        let compared = txn
            .compares
            .iter()
            .map(|compare| compare.keys.start.clone());
        self.keys.extend(compared);
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Delete(delete) => {
                    self.writes = true;
                    self.keys.push(delete.keys.start.clone());
                }
                Op::Put(put) => {
                    self.writes = true;
                    self.keys.push(put.key.clone());
                }
                Op::Range(range) => self.keys.push(range.keys.start.clone()),
                Op::Txn(txn) => self.add(txn),
            }
        }
    }

    /// The error of a call that was sent and has no answer.
    pub(super) fn lost(&self, why: &str) -> Error {
        let error = self.unavailable(why);
        if self.writes {
            error.indefinite()
        } else {
            error
        }
    }

    /// The error of a call that was not sent.
    pub(super) fn unavailable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{}: {why}", self.kind))
    }
}

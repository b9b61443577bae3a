//! What a failed attempt means: what became of the request, and what is to be done.
//!
//! The gRPC code alone does not tell: which code a broken connection gets depends on the features that
//! tonic is built with, and etcd uses one code for different refusals. So a status with a cause is the
//! connection's, and any other is etcd's, whose texts are stable and compared by its own clients.

use std::{error::Error as StdError, io, time::Duration};

use quorate_engine::{Error as Refusal, Revision};
use tonic::{Code, Status};

use super::line::Broken;
use crate::{Error, ErrorKind};

/// An attempt that did not succeed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) fate: Fate,
    pub(super) remedy: Remedy,
    /// Nobody answered: the connection failed.
    pub(super) is_of_connection: bool,
    /// What the store refused the request for, if it did.
    refusal: Option<Refusal>,
}

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not done, and will not be.
    NotDone,
    /// It may have been done, or may yet be.
    Unknown,
}

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask another member.
    Elsewhere,
    /// Tell the caller: every member would say the same.
    None,
    /// Authenticate, and ask again.
    Token,
}

use Fate::{NotDone, Unknown};

impl Failure {
    /// A failure that was found out here.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            kind,
            message: message.into(),
            fate: NotDone,
            remedy,
            is_of_connection: false,
            refusal: None,
        }
    }

    /// The backend is gone.
    pub(super) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the client is closed", Remedy::None)
    }

    /// No connection came about.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self {
            is_of_connection: true,
            ..Self::new(ErrorKind::Unavailable, message, Remedy::Elsewhere)
        }
    }

    /// A request that was sent stayed unanswered.
    pub(super) fn unanswered(patience: Duration) -> Self {
        let mut failure = Self::new(
            ErrorKind::Timeout,
            format!("no answer within {patience:?}"),
            Remedy::Elsewhere,
        );
        failure.fate = Unknown;
        failure
    }

    /// The answer makes no sense.
    pub(super) fn garbled(what: &str) -> Self {
        let mut failure = Self::new(
            ErrorKind::Internal,
            format!("garbled answer: {what}"),
            Remedy::Elsewhere,
        );
        failure.fate = Unknown;
        failure
    }

    /// A watch begins before the oldest revision that is kept.
    pub(super) fn compacted(oldest: Revision) -> Self {
        Self::refused(Refusal::Compacted { oldest })
    }

    /// Reads what tonic reports.
    pub(super) fn of(status: &Status) -> Self {
        match status.source() {
            Some(source) => Self::of_transport(source),
            None => Self::of_answer(Some(status.code()), status.message()),
        }
    }

    /// Reads a refusal that came as text alone, as the reason of a cancelled watch does.
    pub(super) fn of_text(text: &str) -> Self {
        // etcd puts the printed form of a gRPC error in some of them.
        let text = text.rsplit_once("desc = ").map_or(text, |(_, text)| text);
        Self::of_answer(None, text)
    }

    /// The same failure of a step before the request proper, which therefore was not sent.
    pub(super) fn before_sending(mut self) -> Self {
        self.fate = NotDone;
        self
    }

    /// Whether the connection had ended, or was about to, before it took the request.
    pub(super) fn is_untaken(&self) -> bool {
        self.is_of_connection && self.fate == NotDone
    }

    /// Whether asking another member is harmless and may help.
    pub(super) fn may_ask_elsewhere(&self, idempotent: bool) -> bool {
        self.remedy == Remedy::Elsewhere && (idempotent || self.fate == NotDone)
    }

    /// The error for the caller. Only a write can be indefinite.
    pub(super) fn into_error(self, is_write: bool) -> Error {
        let indefinite = is_write && self.fate == Unknown;
        let error = match self.refusal {
            Some(refusal) => Error::from(refusal),
            None => Error::new(self.kind, self.message),
        };
        if indefinite {
            error.indefinite()
        } else {
            error
        }
    }

    fn refused(refusal: Refusal) -> Self {
        // The write that finds the database full is applied, and answered like those that are refused
        // because of it (etcd's quotaApplierV3, as of 3.4 to 3.6).
        let fate = match refusal {
            Refusal::NoSpace => Unknown,
            _ => NotDone,
        };
        Self {
            fate,
            refusal: Some(refusal.clone()),
            ..Self::new(ErrorKind::Internal, refusal.to_string(), Remedy::None)
        }
    }

    /// A connection that failed: the request was sent unless the connection had not taken it.
    fn of_transport(source: &(dyn StdError + 'static)) -> Self {
        let mut failure = Self::unreachable(root_cause(source));
        let broken = causes(source).find_map(|cause| cause.downcast_ref::<Broken>());
        if !broken.is_some_and(|broken| broken.untaken) {
            failure.fate = Unknown;
        }
        failure
    }

    /// What etcd said. Its text decides, and the code where the text is unknown.
    fn of_answer(code: Option<Code>, text: &str) -> Self {
        // First what a connection is to be blamed for: a request without its token is refused in the
        // words for an administrator who names no user.
        let known = TEXTS.iter().find(|(prefix, ..)| text.starts_with(prefix));
        let (kind, fate, remedy) = match (known, Refusal::from_text(text)) {
            (Some(&(_, kind, fate, remedy)), _) => (kind, fate, remedy),
            (None, Some(refusal)) => return Self::refused(refusal),
            (None, None) => of_code(code, text),
        };
        let message = match text {
            "" => format!("etcd answered {code:?} without a word"),
            text => text.to_owned(),
        };
        Self {
            fate,
            ..Self::new(kind, message, remedy)
        }
    }
}

/// The beginnings of etcd's texts that are no refusals of the store. A text stands before those that
/// it is the beginning of.
const TEXTS: &[(&str, ErrorKind, Fate, Remedy)] = {
    use ErrorKind::{PermissionDenied, Timeout, Unauthenticated, Unavailable};
    use Remedy::{Elsewhere, None, Token};
    &[
        ("auth: invalid auth token", Unauthenticated, NotDone, Token),
        (
            "auth: revision in header is old",
            Unauthenticated,
            NotDone,
            Token,
        ),
        (
            "etcdserver: authentication failed",
            Unauthenticated,
            NotDone,
            None,
        ),
        // Refused by all until somebody repairs the cluster.
        ("etcdserver: corrupt cluster", Unavailable, NotDone, None),
        (
            "etcdserver: invalid auth token",
            Unauthenticated,
            NotDone,
            Token,
        ),
        (
            "etcdserver: leader changed",
            Unavailable,
            Unknown,
            Elsewhere,
        ),
        ("etcdserver: no leader", Unavailable, NotDone, Elsewhere),
        ("etcdserver: not leader", Unavailable, NotDone, Elsewhere),
        (
            "etcdserver: permission denied",
            PermissionDenied,
            NotDone,
            None,
        ),
        // With "possibly due to ..." behind it.
        ("etcdserver: request timed out", Timeout, Unknown, Elsewhere),
        (
            "etcdserver: revision of auth store is old",
            Unauthenticated,
            NotDone,
            Token,
        ),
        (
            "etcdserver: rpc not supported for learner",
            Unavailable,
            NotDone,
            Elsewhere,
        ),
        (
            "etcdserver: server stopped",
            Unavailable,
            Unknown,
            Elsewhere,
        ),
        (
            "etcdserver: too many requests",
            Unavailable,
            NotDone,
            Elsewhere,
        ),
        // Users are required, and the request came without a token.
        (
            "etcdserver: user name is empty",
            Unauthenticated,
            NotDone,
            Token,
        ),
        (
            "grpc: received message larger than max",
            ErrorKind::InvalidArgument,
            NotDone,
            None,
        ),
    ]
};

/// What a code means where etcd's text is unknown.
fn of_code(code: Option<Code>, text: &str) -> (ErrorKind, Fate, Remedy) {
    use Code as C;
    use ErrorKind as K;
    match code {
        Some(C::AlreadyExists) => (K::AlreadyExists, NotDone, Remedy::None),
        // etcd has one code for much of users, roles and members.
        Some(C::FailedPrecondition) if text.contains("already exist") => {
            (K::AlreadyExists, NotDone, Remedy::None)
        }
        Some(C::FailedPrecondition)
            if text.contains("not found") || text.contains("does not exist") =>
        {
            (K::NotFound, NotDone, Remedy::None)
        }
        Some(C::FailedPrecondition | C::InvalidArgument) => {
            (K::InvalidArgument, NotDone, Remedy::None)
        }
        Some(C::NotFound) => (K::NotFound, NotDone, Remedy::None),
        // The answer is larger than is taken, on either side: the request was served.
        Some(C::OutOfRange | C::ResourceExhausted) => (K::InvalidArgument, Unknown, Remedy::None),
        Some(C::PermissionDenied) => (K::PermissionDenied, NotDone, Remedy::None),
        Some(C::Unauthenticated) => (K::Unauthenticated, NotDone, Remedy::Token),
        Some(C::Unimplemented) => (K::Unsupported, NotDone, Remedy::None),
        Some(C::DeadlineExceeded) => (K::Timeout, Unknown, Remedy::Elsewhere),
        Some(C::DataLoss | C::Internal) => (K::Internal, Unknown, Remedy::Elsewhere),
        Some(C::Aborted | C::Cancelled | C::Ok | C::Unavailable | C::Unknown) | None => {
            (K::Unavailable, Unknown, Remedy::Elsewhere)
        }
    }
}

/// The innermost cause in a few words.
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let innermost = causes(error).last().unwrap_or(error);
    match innermost.downcast_ref::<io::Error>() {
        // Without the number of the operating system.
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => innermost.to_string(),
    }
}

/// An error and its causes, the innermost last.
pub(super) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An io error that wraps another names it as itself rather than as its source.
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped as _),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_indefinite_only_if_etcd_may_have_taken_it() {
        let fate = |text: &str| Failure::of_text(text).into_error(true).is_indefinite();
        assert!(fate(
            "etcdserver: request timed out, possibly due to connection lost"
        ));
        assert!(fate("etcdserver: leader changed"));
        assert!(fate("something new"));
        assert!(fate("etcdserver: mvcc: database space exceeded"));
        assert!(!fate("etcdserver: no leader"));
        assert!(!fate("etcdserver: too many requests"));
        assert!(!fate("etcdserver: permission denied"));
        assert!(!fate("etcdserver: requested lease not found"));
        let lost = Failure::unanswered(Duration::from_secs(1));
        assert!(lost.clone().into_error(true).is_indefinite());
        assert!(!lost.into_error(false).is_indefinite());
    }

    #[test]
    fn the_store_s_refusals_keep_their_kind_and_text() {
        let refused = Status::not_found("etcdserver: requested lease not found");
        let error = Failure::of(&refused).into_error(true);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "etcdserver: requested lease not found");
        let text = "etcdserver: mvcc: required revision has been compacted";
        let error = Failure::of(&Status::out_of_range(text)).into_error(false);
        assert_eq!(error.kind(), ErrorKind::Compacted);
    }

    #[test]
    fn a_token_is_asked_for_on_each_of_etcd_s_errors_and_in_the_reason_of_a_watch() {
        for text in [
            "etcdserver: invalid auth token",
            "etcdserver: revision of auth store is old",
            "etcdserver: user name is empty",
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ] {
            assert_eq!(Failure::of_text(text).remedy, Remedy::Token, "{text}");
        }
        let failed = "etcdserver: authentication failed, invalid user ID or password";
        assert_eq!(Failure::of_text(failed).remedy, Remedy::None);
    }

    #[test]
    fn a_broken_connection_tells_its_root_cause() {
        let reset = io::Error::from_raw_os_error(111);
        let wrapped = io::Error::other(io::Error::other(reset));
        let failure = Failure::of(&Status::from_error(Box::new(wrapped)));
        assert_eq!(failure.message, "connection refused");
        assert_eq!((failure.fate, failure.remedy), (Unknown, Remedy::Elsewhere));
    }

    #[test]
    fn an_unknown_failure_of_users_and_members_is_read_off_its_words() {
        let kind = |text: &str| Failure::of(&Status::failed_precondition(text)).kind;
        assert_eq!(
            kind("etcdserver: Peer URLs already exists"),
            ErrorKind::AlreadyExists
        );
        assert_eq!(kind("etcdserver: peer not found"), ErrorKind::NotFound);
        assert_eq!(
            kind("etcdserver: authentication is not enabled"),
            ErrorKind::InvalidArgument
        );
    }
}

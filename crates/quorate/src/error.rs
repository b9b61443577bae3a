//! The one error type, and what its kinds ask of the caller.

use std::{fmt, sync::Arc};

use crate::{Loss, Revision};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: a [kind](ErrorKind) to act on, and a message for people.
///
/// Two questions matter beside the kind: [`is_retryable`](Error::is_retryable) and
/// [`is_indefinite`](Error::is_indefinite); the [crate's page](crate#errors) tells what to make of the
/// answers.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    indefinite: bool,
    oldest: Option<Revision>,
    loss: Option<Loss>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What the caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller should choose another name, or take what is there: it exists already.
    AlreadyExists,
    /// The caller should stop using this client or handle: it was closed.
    Closed,
    /// The caller should load everything anew: the cluster was restored from a backup, or the
    /// endpoints now lead to another one.
    ClusterChanged,
    /// The caller should read again from the present: the revision asked for is compacted away.
    Compacted,
    /// The caller should read again and retry: another writer was first.
    Conflict,
    /// The caller should report a bug: this should not happen.
    Internal,
    /// The caller should correct the call: retrying it cannot help.
    InvalidArgument,
    /// The caller should correct what is stored: it cannot be decoded.
    InvalidData,
    /// The caller should stop its work: the hold is gone.
    Lost,
    /// The caller should check the name: there is no such thing.
    NotFound,
    /// The caller should ask for the permission: the user lacks it.
    PermissionDenied,
    /// The caller should retry or give up: no answer came in time.
    Timeout,
    /// The caller should correct user and password.
    Unauthenticated,
    /// The caller should retry later: no member can serve the request now.
    Unavailable,
    /// The caller should do without: this backend or server cannot do it.
    Unsupported,
}

impl ErrorKind {
    /// A stable number for exit statuses and foreign interfaces; never zero.
    pub const fn code(self) -> u8 {
        match self {
            Self::InvalidArgument => 2,
            Self::NotFound => 3,
            Self::AlreadyExists => 4,
            Self::Conflict => 5,
            Self::Compacted => 6,
            Self::Lost => 7,
            Self::Timeout => 8,
            Self::Unavailable => 9,
            Self::Unauthenticated => 10,
            Self::PermissionDenied => 11,
            Self::Closed => 12,
            Self::ClusterChanged => 13,
            Self::Unsupported => 14,
            Self::Internal => 15,
            Self::InvalidData => 16,
        }
    }
}

impl Error {
    /// Makes an error that is definite: what was asked for did not happen.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            indefinite: false,
            oldest: None,
            loss: None,
            source: None,
        }))
    }

    /// Says that the write may have happened all the same.
    #[must_use]
    pub fn indefinite(mut self) -> Self {
        self.0.indefinite = true;
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Puts what was being done before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    pub(crate) fn compacted(message: impl Into<String>, oldest: Option<Revision>) -> Self {
        let mut error = Self::new(ErrorKind::Compacted, message);
        error.0.oldest = oldest;
        error
    }

    pub(crate) fn lost(loss: Loss, what: impl fmt::Display) -> Self {
        let mut error = Self::new(ErrorKind::Lost, format!("{what}: {loss}"));
        error.0.loss = Some(loss);
        error
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later. A write that [may have
    /// happened](Error::is_indefinite) is only retried by who knows that doing it twice is harmless.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout | ErrorKind::Unavailable)
    }

    /// Whether the write may have happened although this error came back: it was sent, and no answer
    /// told its fate.
    pub fn is_indefinite(&self) -> bool {
        self.0.indefinite
    }

    /// Whether what was known of the store is no ground to go on from: its reader starts over.
    pub(crate) fn is_history_lost(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::ClusterChanged | ErrorKind::Compacted
        )
    }

    /// The oldest revision that is kept, if that is what was missed and the server told.
    pub fn oldest_revision(&self) -> Option<Revision> {
        self.0.oldest
    }

    /// How the hold was lost, if it was.
    pub fn loss(&self) -> Option<Loss> {
        self.0.loss
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if self.0.indefinite {
            f.write_str(" (the write may have happened)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if self.0.indefinite {
            debug.field("indefinite", &true);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What cannot fail never makes an error.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A refusal of the store, with etcd's own text: the one table for every backend.
impl From<quorate_engine::Error> for Error {
    fn from(refusal: quorate_engine::Error) -> Self {
        use quorate_engine::Error as Refusal;
        let message = refusal.to_string();
        match refusal {
            Refusal::Compacted { oldest } => {
                Self::compacted(message, (oldest > Revision::ZERO).then_some(oldest))
            }
            Refusal::KeyNotFound
            | Refusal::LeaseNotFound
            | Refusal::PermissionNotGranted
            | Refusal::RoleNotFound
            | Refusal::RoleNotGranted
            | Refusal::RootRoleNotGranted
            | Refusal::RootUserNotFound
            | Refusal::UserNotFound => Self::new(ErrorKind::NotFound, message),
            Refusal::LeaseExists | Refusal::RoleExists | Refusal::UserExists => {
                Self::new(ErrorKind::AlreadyExists, message)
            }
            Refusal::NoSpace => Self::new(ErrorKind::Unavailable, message),
            Refusal::AuthenticationFailed | Refusal::InvalidToken => {
                Self::new(ErrorKind::Unauthenticated, message)
            }
            Refusal::PermissionDenied => Self::new(ErrorKind::PermissionDenied, message),
            Refusal::AuthenticationNotEnabled
            | Refusal::DuplicateKey
            | Refusal::EmptyKey
            | Refusal::EmptyWatchRange
            | Refusal::FutureRevision
            | Refusal::InvalidAuthManagement
            | Refusal::LeaseProvided
            | Refusal::LeaseTtlTooLarge
            | Refusal::PermissionNotGiven
            | Refusal::RequestTooLarge
            | Refusal::RoleNameEmpty
            | Refusal::TooManyOps
            | Refusal::UserNameEmpty
            | Refusal::ValueProvided => Self::new(ErrorKind::InvalidArgument, message),
            _ => Self::new(ErrorKind::Internal, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_that_a_write_may_have_happened() {
        let error = Error::new(ErrorKind::Timeout, "no answer within 5s").context("put k");
        assert_eq!(error.to_string(), "put k: no answer within 5s");
        assert!(error.is_retryable() && !error.is_indefinite());
        let error = error.indefinite();
        assert!(error.is_indefinite());
        assert!(error.to_string().ends_with("(the write may have happened)"));
    }
}

//! How a hold can end without being released.

use std::fmt;

/// Why a session, or what was held under it, is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// The session, or the client, was closed.
    Closed,
    /// Another owner took the name.
    Conflict,
    /// Somebody deleted the key.
    Deleted,
    /// The lease ran out: the server said so, or its time passed while this process did not run.
    Expired,
    /// The hold reached the longest time that it was asked for.
    HoldLimit,
    /// The guard was released or dropped.
    Released,
    /// The key was deleted and made anew by somebody.
    Replaced,
    /// The lease was revoked before its time.
    Revoked,
    /// No server confirmed the lease in time.
    Unreachable,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the session was closed",
            Self::Conflict => "another owner took the name",
            Self::Deleted => "its key was deleted",
            Self::Expired => "the lease expired",
            Self::HoldLimit => "the longest hold asked for is over",
            Self::Released => "it was released",
            Self::Replaced => "its key was replaced",
            Self::Revoked => "the lease was revoked",
            Self::Unreachable => "no server confirmed the lease in time",
        })
    }
}

//! What a request may be refused for.

use crate::Revision;

/// Why a request was refused. The texts are etcd's, since clients compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user or the password is wrong.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthenticationFailed,
    /// Nobody has to authenticate, so nobody can.
    #[error("etcdserver: authentication is not enabled")]
    AuthenticationNotEnabled,
    /// The revision asked for is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision that can still be read; zero if the answer did not tell.
        oldest: Revision,
    },
    /// A transaction writes one key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// The request names no key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// The range to watch holds no key.
    #[error("mvcc: watcher range is empty")]
    EmptyWatchRange,
    /// The revision asked for is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// Users and roles may not be left in this state.
    #[error("etcdserver: invalid auth management")]
    InvalidAuthManagement,
    /// The token is unknown, or was not used for too long.
    #[error("etcdserver: invalid auth token")]
    InvalidToken,
    /// A put that keeps the value or the lease of a key found no such key.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// The id of a new lease is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// There is no such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A put that keeps its lease names one.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// The time to live is out of etcd's bounds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The database is full.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The user may not do this.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// No permission was named that a role is to have.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// The role has no such permission.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// The request is larger than the server takes.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// The name of a new role is taken.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// The name of a new role is empty.
    #[error("etcdserver: role name is empty")]
    RoleNameEmpty,
    /// There is no such role.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// The user has no such role.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// Authentication needs the user `root` to have the role `root`.
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotGranted,
    /// Authentication needs the user `root`, who does not exist.
    #[error("etcdserver: root user does not exist")]
    RootUserNotFound,
    /// A list of a transaction holds more than 128 entries.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// The name of a new user is taken.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// The name of a new user is empty.
    #[error("etcdserver: user name is empty")]
    UserNameEmpty,
    /// There is no such user.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// A put that keeps its value brings one.
    #[error("etcdserver: value is provided")]
    ValueProvided,
}

impl Error {
    /// Reads a refusal off etcd's text for it.
    pub fn from_text(text: &str) -> Option<Self> {
        [
            Self::AuthenticationFailed,
            Self::AuthenticationNotEnabled,
            Self::Compacted {
                oldest: Revision::ZERO,
            },
            Self::DuplicateKey,
            Self::EmptyKey,
            Self::EmptyWatchRange,
            Self::FutureRevision,
            Self::InvalidAuthManagement,
            Self::InvalidToken,
            Self::KeyNotFound,
            Self::LeaseExists,
            Self::LeaseNotFound,
            Self::LeaseProvided,
            Self::LeaseTtlTooLarge,
            Self::NoSpace,
            Self::PermissionDenied,
            Self::PermissionNotGiven,
            Self::PermissionNotGranted,
            Self::RequestTooLarge,
            Self::RoleExists,
            Self::RoleNameEmpty,
            Self::RoleNotFound,
            Self::RoleNotGranted,
            Self::RootRoleNotGranted,
            Self::RootUserNotFound,
            Self::TooManyOps,
            Self::UserExists,
            Self::UserNameEmpty,
            Self::UserNotFound,
            Self::ValueProvided,
        ]
        .into_iter()
        .find(|refusal| refusal.to_string() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back() {
        for refusal in [
            Error::DuplicateKey,
            Error::EmptyWatchRange,
            Error::RoleNotGranted,
        ] {
            assert_eq!(Error::from_text(&refusal.to_string()), Some(refusal));
        }
        assert_eq!(Error::from_text("etcdserver: no leader"), None);
    }
}

//! Members, alarms, users and roles: the vocabulary of administration.

use quorate_engine::{Header, KeyRange, Revision};
pub use quorate_engine::{Permission, PermissionKind};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it only learns, and does not vote.
    pub is_learner: bool,
}

/// What one member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who answered.
    pub header: Header,
    /// The server's version.
    pub version: String,
    /// The size of its database on disk, in bytes.
    pub db_size: u64,
    /// The part of the database that is in use, in bytes.
    pub db_size_in_use: u64,
    /// How large the database may grow before writes are refused, in bytes; `None` if the member does
    /// not tell, as before etcd 3.6, and `u64::MAX` if there is no such limit.
    pub db_size_quota: Option<u64>,
    /// The member that it takes for the leader; zero if it sees none.
    pub leader: u64,
    /// The newest entry of its raft log.
    pub raft_index: u64,
    /// Its raft term.
    pub raft_term: u64,
    /// The newest entry that it has applied.
    pub raft_applied_index: u64,
    /// What it reports as wrong: the alarms that it knows of, and that it sees no leader.
    pub errors: Vec<String>,
    /// Whether it only learns, and does not vote.
    pub is_learner: bool,
}

/// An alarm that a member has raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The member.
    pub member_id: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What an [`Alarm`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The members' data differ.
    Corrupt,
    /// The database quota is exhausted: writes are refused.
    NoSpace,
    /// A number that this library does not know.
    Other(i32),
}

/// One act of administration.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each variant names one call of etcd's Auth service, its fields the arguments
pub enum AuthRequest {
    Enable,
    Disable,
    Status,
    UserAdd {
        name: String,
        password: Option<String>,
    },
    UserDelete {
        name: String,
    },
    UserChangePassword {
        name: String,
        password: String,
    },
    UserRoles {
        name: String,
    },
    UserList,
    UserGrantRole {
        name: String,
        role: String,
    },
    UserRevokeRole {
        name: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    RoleDelete {
        name: String,
    },
    RolePermissions {
        name: String,
    },
    RoleList,
    RoleGrant {
        name: String,
        permission: Permission,
    },
    RoleRevoke {
        name: String,
        keys: KeyRange,
    },
}

/// The answer to an [`AuthRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthResponse {
    /// It is done.
    Done,
    /// The names of users or roles.
    Names(Vec<String>),
    /// What a role allows.
    Permissions(Vec<Permission>),
    /// Whether users must authenticate.
    Status {
        /// Whether they must.
        enabled: bool,
        /// The revision of the users and roles.
        revision: Revision,
    },
}

/// Shows no password.
impl std::fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Enable => "Enable",
            Self::Disable => "Disable",
            Self::Status => "Status",
            Self::UserAdd { .. } => "UserAdd",
            Self::UserDelete { .. } => "UserDelete",
            Self::UserChangePassword { .. } => "UserChangePassword",
            Self::UserRoles { .. } => "UserRoles",
            Self::UserList => "UserList",
            Self::UserGrantRole { .. } => "UserGrantRole",
            Self::UserRevokeRole { .. } => "UserRevokeRole",
            Self::RoleAdd { .. } => "RoleAdd",
            Self::RoleDelete { .. } => "RoleDelete",
            Self::RolePermissions { .. } => "RolePermissions",
            Self::RoleList => "RoleList",
            Self::RoleGrant { .. } => "RoleGrant",
            Self::RoleRevoke { .. } => "RoleRevoke",
        };
        f.write_str(name)
    }
}

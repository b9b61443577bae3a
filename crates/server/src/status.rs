//! Refusals in etcd's codes and texts.

use quorate_engine::Error as Refusal;
use tonic::{Code, Status};

/// The status that etcd gives for a refusal of the store. Clients compare code and text.
pub(crate) fn refused(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::Compacted { .. } | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => {
            Code::OutOfRange
        }
        Refusal::AuthenticationFailed
        | Refusal::DuplicateKey
        | Refusal::EmptyKey
        | Refusal::EmptyWatchRange
        | Refusal::InvalidAuthManagement
        | Refusal::KeyNotFound
        | Refusal::LeaseProvided
        | Refusal::PermissionNotGiven
        | Refusal::RequestTooLarge
        | Refusal::RoleNameEmpty
        | Refusal::TooManyOps
        | Refusal::UserNameEmpty
        | Refusal::ValueProvided => Code::InvalidArgument,
        Refusal::InvalidToken => Code::Unauthenticated,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::NoSpace => Code::ResourceExhausted,
        Refusal::PermissionDenied => Code::PermissionDenied,
        Refusal::AuthenticationNotEnabled
        | Refusal::LeaseExists
        | Refusal::PermissionNotGranted
        | Refusal::RoleExists
        | Refusal::RoleNotFound
        | Refusal::RoleNotGranted
        | Refusal::RootRoleNotGranted
        | Refusal::RootUserNotFound
        | Refusal::UserExists
        | Refusal::UserNotFound => Code::FailedPrecondition,
        _ => Code::Unknown,
    };
    Status::new(code, refusal.to_string())
}

//! Members, alarms, users and roles.

use quorate_engine::{KeyRange, Revision};
use quorate_wire::{authpb, etcdserverpb as pb};

use super::{
    Etcd,
    call::{Attempt, Kind},
    classify::Failure,
    convert::header_from_wire,
};
use crate::{
    Result,
    backend::{
        Alarm, AlarmKind, AuthRequest, AuthResponse, Member, Permission, PermissionKind, Status,
    },
};

/// Makes one call of the Auth service.
macro_rules! ask {
    ($etcd:expr, $kind:ident, $method:ident, $message:expr) => {{
        let message = $message;
        let send = |attempt: Attempt| {
            let request = attempt.request(message.clone());
            async move { attempt.auth().$method(request).await }
        };
        $etcd.caller.unary(Kind::$kind, send).await
    }};
}

/// Makes a call that only succeeds or fails.
macro_rules! tell {
    ($($arguments:tt)*) => {
        ask!($($arguments)*).map(|_| AuthResponse::Done)
    };
}

pub(super) async fn auth(etcd: &Etcd, request: AuthRequest) -> Result<AuthResponse> {
    match request {
        AuthRequest::Enable => tell!(etcd, Write, auth_enable, pb::AuthEnableRequest {}),
        AuthRequest::Disable => tell!(etcd, Write, auth_disable, pb::AuthDisableRequest {}),
        AuthRequest::Status => {
            let answer = ask!(etcd, Read, auth_status, pb::AuthStatusRequest {})?;
            Ok(AuthResponse::Status {
                enabled: answer.enabled,
                revision: Revision(i64::try_from(answer.auth_revision).unwrap_or(i64::MAX)),
            })
        }
        AuthRequest::UserAdd { name, password } => {
            let message = pb::AuthUserAddRequest {
                name,
                options: Some(authpb::UserAddOptions {
                    no_password: password.is_none(),
                }),
                password: password.unwrap_or_default(),
                hashed_password: String::new(),
            };
            tell!(etcd, Write, user_add, message)
        }
        AuthRequest::UserDelete { name } => {
            tell!(etcd, Write, user_delete, pb::AuthUserDeleteRequest { name })
        }
        AuthRequest::UserChangePassword { name, password } => {
            let message = pb::AuthUserChangePasswordRequest {
                name,
                password,
                hashed_password: String::new(),
            };
            tell!(etcd, Write, user_change_password, message)
        }
        AuthRequest::UserRoles { name } => {
            let answer = ask!(etcd, Read, user_get, pb::AuthUserGetRequest { name })?;
            Ok(AuthResponse::Names(answer.roles))
        }
        AuthRequest::UserList => {
            let answer = ask!(etcd, Read, user_list, pb::AuthUserListRequest {})?;
            Ok(AuthResponse::Names(answer.users))
        }
        AuthRequest::UserGrantRole { name, role } => {
            let message = pb::AuthUserGrantRoleRequest { user: name, role };
            tell!(etcd, Write, user_grant_role, message)
        }
        AuthRequest::UserRevokeRole { name, role } => {
            tell!(
                etcd,
                Write,
                user_revoke_role,
                pb::AuthUserRevokeRoleRequest { name, role }
            )
        }
        AuthRequest::RoleAdd { name } => {
            tell!(etcd, Write, role_add, pb::AuthRoleAddRequest { name })
        }
        AuthRequest::RoleDelete { name } => {
            tell!(
                etcd,
                Write,
                role_delete,
                pb::AuthRoleDeleteRequest { role: name }
            )
        }
        AuthRequest::RolePermissions { name } => {
            let answer = ask!(etcd, Read, role_get, pb::AuthRoleGetRequest { role: name })?;
            let permissions = answer.perm.into_iter().map(permission_from_wire);
            let permissions = permissions.collect::<Result<_, Failure>>();
            permissions
                .map(AuthResponse::Permissions)
                .map_err(|failure| failure.into_error(false))
        }
        AuthRequest::RoleList => {
            let answer = ask!(etcd, Read, role_list, pb::AuthRoleListRequest {})?;
            Ok(AuthResponse::Names(answer.roles))
        }
        AuthRequest::RoleGrant { name, permission } => {
            let message = pb::AuthRoleGrantPermissionRequest {
                name,
                perm: Some(permission_to_wire(&permission)),
            };
            tell!(etcd, Write, role_grant_permission, message)
        }
        AuthRequest::RoleRevoke { name, keys } => {
            let (key, range_end) = keys.to_wire();
            let message = pb::AuthRoleRevokePermissionRequest {
                role: name,
                key,
                range_end,
            };
            tell!(etcd, Write, role_revoke_permission, message)
        }
    }
}

fn permission_to_wire(permission: &Permission) -> authpb::Permission {
    use authpb::permission::Type;
    let (key, range_end) = permission.keys.to_wire();
    let kind = match permission.kind {
        PermissionKind::Read => Type::Read,
        PermissionKind::Write => Type::Write,
        PermissionKind::ReadWrite => Type::Readwrite,
    };
    authpb::Permission {
        perm_type: kind.into(),
        key,
        range_end,
    }
}

fn permission_from_wire(permission: authpb::Permission) -> Result<Permission, Failure> {
    use authpb::permission::Type;
    let kind = match Type::try_from(permission.perm_type) {
        Ok(Type::Read) => PermissionKind::Read,
        Ok(Type::Write) => PermissionKind::Write,
        Ok(Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(Failure::garbled("a permission of unknown type")),
    };
    Ok(Permission {
        kind,
        keys: KeyRange::from_wire(permission.key, permission.range_end),
    })
}

pub(super) fn member_from_wire(member: pb::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_ur_ls,
        client_urls: member.client_ur_ls,
        is_learner: member.is_learner,
    }
}

pub(super) fn alarm_from_wire(alarm: pb::AlarmMember) -> Alarm {
    let kind = match pb::AlarmType::try_from(alarm.alarm) {
        Ok(pb::AlarmType::Corrupt) => AlarmKind::Corrupt,
        Ok(pb::AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(pb::AlarmType::None) | Err(_) => AlarmKind::Other(alarm.alarm),
    };
    Alarm {
        member_id: alarm.member_id,
        kind,
    }
}

pub(super) fn status_from_wire(status: pb::StatusResponse) -> Result<Status, Failure> {
    let bytes = |size: i64| u64::try_from(size).unwrap_or_default();
    Ok(Status {
        header: header_from_wire(status.header)?,
        version: status.version,
        db_size: bytes(status.db_size),
        db_size_in_use: bytes(status.db_size_in_use),
        // Zero is what a member sends that does not know of the field.
        db_size_quota: (status.db_size_quota != 0)
            .then(|| u64::try_from(status.db_size_quota).unwrap_or(u64::MAX)),
        leader: status.leader,
        raft_index: status.raft_index,
        raft_term: status.raft_term,
        raft_applied_index: status.raft_applied_index,
        errors: status.errors,
        is_learner: status.is_learner,
    })
}

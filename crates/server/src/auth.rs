//! The service Auth: the books of users and roles. Nobody authenticates.

use std::sync::Arc;

use quorate_engine::{Auth as Books, Error, KeyRange, Permission, PermissionKind};
use quorate_wire::{
    authpb::{self, permission::Type},
    etcdserverpb::{self as pb, auth_server::Auth},
};
use tonic::{Request, Response, Status};

use crate::shared::Shared;

pub(crate) struct AuthService {
    shared: Arc<Shared>,
}

impl AuthService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }

    /// Changes the books, or reads in them.
    async fn ask<T>(
        &self,
        ask: impl FnOnce(&mut Books) -> Result<T, Error>,
    ) -> Result<(Option<pb::ResponseHeader>, T), Status> {
        let answer = self.shared.answer(|state, _| {
            let answer = ask(state.store.auth_mut())?;
            Ok((state.header(), answer))
        });
        Ok(answer.await?.into_inner())
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        _request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let reason = "authentication cannot be enabled on a store in memory, \
                      which keeps no passwords";
        Err(Status::unimplemented(reason))
    }

    async fn auth_disable(
        &self,
        _request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (header, ()) = self
            .ask(|books| {
                books.disable();
                Ok(())
            })
            .await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (header, (enabled, revision)) = self
            .ask(|books| Ok((books.is_enabled(), books.revision())))
            .await?;
        Ok(Response::new(pb::AuthStatusResponse {
            header,
            enabled,
            auth_revision: revision.0.unsigned_abs(),
        }))
    }

    async fn authenticate(
        &self,
        _request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let text = "etcdserver: authentication is not enabled";
        Err(Status::failed_precondition(text))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let name = request.into_inner().name;
        let (header, ()) = self.ask(|books| books.add_user(&name)).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let name = request.into_inner().name;
        let (header, roles) = self.ask(|books| Ok(owned(books.roles_of(&name)?))).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        _request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (header, users) = self.ask(|books| Ok(owned(books.users()))).await?;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let name = request.into_inner().name;
        let (header, ()) = self.ask(|books| books.delete_user(&name)).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let name = request.into_inner().name;
        let (header, ()) = self.ask(|books| books.change_password(&name)).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let request = request.into_inner();
        let (header, ()) = self
            .ask(|books| books.grant_role(&request.user, &request.role))
            .await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let request = request.into_inner();
        let (header, ()) = self
            .ask(|books| books.revoke_role(&request.name, &request.role))
            .await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let name = request.into_inner().name;
        let (header, ()) = self.ask(|books| books.add_role(&name)).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let role = request.into_inner().role;
        let (header, permissions) = self.ask(|books| books.permissions(&role)).await?;
        let perm = permissions.iter().map(permission_to_wire).collect();
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        _request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (header, roles) = self.ask(|books| Ok(owned(books.roles()))).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let role = request.into_inner().role;
        let (header, ()) = self.ask(|books| books.delete_role(&role)).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let request = request.into_inner();
        let permission = permission_from_wire(request.perm)?;
        let (header, ()) = self
            .ask(|books| books.grant(&request.name, permission))
            .await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let request = request.into_inner();
        let keys = KeyRange::from_wire(request.key, request.range_end);
        let (header, ()) = self.ask(|books| books.revoke(&request.role, &keys)).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

pub(crate) fn permission_from_wire(
    permission: Option<authpb::Permission>,
) -> Result<Permission, Status> {
    let Some(permission) = permission else {
        let text = "etcdserver: permission not given";
        return Err(Status::invalid_argument(text));
    };
    let kind = match Type::try_from(permission.perm_type) {
        Ok(Type::Read) => PermissionKind::Read,
        Ok(Type::Readwrite) => PermissionKind::ReadWrite,
        Ok(Type::Write) => PermissionKind::Write,
        Err(_) => return Err(Status::invalid_argument("a permission of an unknown kind")),
    };
    let keys = KeyRange::from_wire(permission.key, permission.range_end);
    Ok(Permission { kind, keys })
}

pub(crate) fn permission_to_wire(permission: &Permission) -> authpb::Permission {
    let kind = match permission.kind {
        PermissionKind::Read => Type::Read,
        PermissionKind::ReadWrite => Type::Readwrite,
        PermissionKind::Write => Type::Write,
    };
    let (key, range_end) = permission.keys.to_wire();
    authpb::Permission {
        perm_type: kind.into(),
        key,
        range_end,
    }
}

//! The service Auth: the books of users and roles, and the tokens of users who know their passwords.

use std::{sync::Arc, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use prost::bytes::Bytes;
use quorate_engine::{Error, KeyRange, Password, Permission, PermissionKind, Revision};
use quorate_wire::{
    authpb::{self, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_server::Auth},
};
use tonic::{Request, Response, Status};

use crate::{
    access::{
        Need,
        caller::Caller,
        password::{Hasher, check_length},
        token::letters,
    },
    store::shared::{Shared, State},
};

pub(crate) struct AuthService {
    shared: Arc<Shared>,
    hasher: Hasher,
}

impl AuthService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        let hasher = Hasher::new();
        Self { shared, hasher }
    }

    /// Checks a password. It takes as long as it takes, so the books may change meanwhile: they are
    /// only right if their revision is still the one that is told.
    async fn verify(&self, name: &str, password: String) -> Result<Revision, Status> {
        let found = self.ask_anybody(|state, _| {
            let books = state.store.auth();
            if !books.is_enabled() {
                return Err(Error::AuthenticationNotEnabled);
            }
            let user = books.user(name).ok_or(Error::AuthenticationFailed)?;
            Ok((user.password.clone(), books.revision()))
        });
        let (expected, revision) = found.await?;
        self.hasher.verify(password, expected).await?;
        Ok(revision)
    }

    /// Answers who need not be known, since he is about to make himself known.
    async fn ask_anybody<T>(
        &self,
        call: impl FnOnce(&mut State, Duration) -> Result<T, Error>,
    ) -> Result<T, Status> {
        let nobody = Caller::default();
        let answer = self.shared.answer(&nobody, Need::Nothing, call).await?;
        Ok(answer.into_inner())
    }

    /// Changes the books, as nobody but `root` may.
    async fn change<T>(
        &self,
        caller: &Caller,
        change: impl FnOnce(&mut State) -> Result<(), Error>,
        answer: impl FnOnce(Option<pb::ResponseHeader>) -> T,
    ) -> Result<Response<T>, Status> {
        self.shared
            .answer(caller, Need::Root, |state, _| {
                change(state)?;
                Ok(answer(state.header()))
            })
            .await
    }

    /// The hash of a new password, for nobody but `root`: what it costs is not to be had for nothing.
    async fn hash(&self, caller: &Caller, password: String) -> Result<Bytes, Status> {
        check_length(&password)?;
        self.shared
            .answer(caller, Need::Root, |_, _| Ok(()))
            .await?;
        Ok(self.hasher.hash(password).await?.into())
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (caller, _) = Caller::part(request);
        let change = |state: &mut State| state.store.auth_mut().enable();
        let answer = |header| pb::AuthEnableResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (caller, _) = Caller::part(request);
        let change = |state: &mut State| {
            state.store.auth_mut().disable();
            state.tokens.clear();
            Ok(())
        };
        let answer = |header| pb::AuthDisableResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                let books = state.store.auth();
                Ok(pb::AuthStatusResponse {
                    header: state.header(),
                    enabled: books.is_enabled(),
                    auth_revision: books.revision().0.unsigned_abs(),
                })
            })
            .await
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        loop {
            let revision = self.verify(&name, password.clone()).await?;
            let letters = letters().map_err(|error| Status::internal(error.to_string()))?;
            let issued = self.ask_anybody(|state, now| {
                let is_right = state.store.auth().revision() == revision;
                let token = is_right.then(|| state.tokens.issue(&name, &letters, now));
                Ok(token.map(|token| (state.header(), token)))
            });
            if let Some((header, token)) = issued.await? {
                return Ok(Response::new(pb::AuthenticateResponse { header, token }));
            }
        }
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let password = match request.options {
            Some(UserAddOptions { no_password: true }) => Password::None,
            _ => Password::Hash(self.hash(&caller, request.password).await?),
        };
        let change = |state: &mut State| state.store.auth_mut().add_user(&request.name, password);
        let answer = |header| pb::AuthUserAddResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (caller, request) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Oneself(&request.name), |state, _| {
                let roles = owned(state.store.auth().roles_of(&request.name)?);
                let header = state.header();
                Ok(pb::AuthUserGetResponse { header, roles })
            })
            .await
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                let users = owned(state.store.auth().users());
                let header = state.header();
                Ok(pb::AuthUserListResponse { header, users })
            })
            .await
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| {
            state.store.auth_mut().delete_user(&request.name)?;
            state.tokens.end(&request.name);
            Ok(())
        };
        let answer = |header| pb::AuthUserDeleteResponse { header };
        self.change(&caller, change, answer).await
    }

    /// Without a password the request may bring a hash, which etcd takes for who made it elsewhere.
    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let hash = if request.password.is_empty() {
            let hash = BASE64_STANDARD.decode(&request.hashed_password);
            hash.ok().map(Bytes::from)
        } else {
            Some(self.hash(&caller, request.password).await?)
        };
        let change = |state: &mut State| {
            let books = state.store.auth_mut();
            let user = books.user(&request.name).ok_or(Error::UserNotFound)?;
            let hash = match (hash, &user.password) {
                (Some(hash), _) => hash,
                (None, Password::None) => Bytes::new(),
                (None, Password::Hash(_)) => return Err(Error::NoPassword),
            };
            books.change_password(&request.name, hash)?;
            state.tokens.end(&request.name);
            Ok(())
        };
        let answer = |header| pb::AuthUserChangePasswordResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| {
            let books = state.store.auth_mut();
            books.grant_role(&request.user, &request.role)
        };
        let answer = |header| pb::AuthUserGrantRoleResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| {
            let books = state.store.auth_mut();
            books.revoke_role(&request.name, &request.role)
        };
        let answer = |header| pb::AuthUserRevokeRoleResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| state.store.auth_mut().add_role(&request.name);
        let answer = |header| pb::AuthRoleAddResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (caller, request) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Role(&request.role), |state, _| {
                let permissions = state.store.auth().permissions(&request.role)?;
                let perm = permissions.iter().map(permission_to_wire).collect();
                let header = state.header();
                Ok(pb::AuthRoleGetResponse { header, perm })
            })
            .await
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                let roles = owned(state.store.auth().roles());
                let header = state.header();
                Ok(pb::AuthRoleListResponse { header, roles })
            })
            .await
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| state.store.auth_mut().delete_role(&request.role);
        let answer = |header| pb::AuthRoleDeleteResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let permission = request.perm.map(permission_from_wire).transpose()?;
        let change = |state: &mut State| {
            let permission = permission.ok_or(Error::PermissionNotGiven)?;
            state.store.auth_mut().grant(&request.name, permission)
        };
        let answer = |header| pb::AuthRoleGrantPermissionResponse { header };
        self.change(&caller, change, answer).await
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let change = |state: &mut State| {
            let keys = KeyRange::from_wire(request.key, request.range_end);
            state.store.auth_mut().revoke(&request.role, &keys)
        };
        let answer = |header| pb::AuthRoleRevokePermissionResponse { header };
        self.change(&caller, change, answer).await
    }
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

pub(crate) fn permission_from_wire(permission: authpb::Permission) -> Result<Permission, Status> {
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

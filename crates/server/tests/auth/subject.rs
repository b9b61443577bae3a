//! Who asks.

use quorate_wire::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_client::AuthClient},
};
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Channel};

pub use crate::support::subject::{Subject, on_both};

impl Subject {
    pub async fn nobody(&self) -> Caller {
        let endpoint = Channel::from_shared(self.url().to_owned()).unwrap();
        Caller {
            channel: endpoint.connect().await.unwrap(),
            token: None,
        }
    }

    /// Someone with the token of a user whose password is the name.
    pub async fn user(&self, name: &str) -> Caller {
        let nobody = self.nobody().await;
        let token = nobody.authenticate(name, name).await.unwrap();
        nobody.with_token(token)
    }
}

/// Someone who asks, with a token or without.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    pub token: Option<(&'static str, String)>,
}

impl Caller {
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        self.with_header("token", token)
    }

    pub fn with_header(&self, header: &'static str, token: impl Into<String>) -> Self {
        Self {
            channel: self.channel.clone(),
            token: Some((header, token.into())),
        }
    }

    pub fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some((header, token)) = &self.token {
            let token = MetadataValue::try_from(token).unwrap();
            request.metadata_mut().insert(*header, token);
        }
        request
    }

    pub async fn authenticate(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let mut auth = AuthClient::new(self.channel.clone());
        let answer = auth.authenticate(self.request(request)).await?;
        Ok(answer.into_inner().token)
    }

    pub async fn enable(&self) {
        let mut auth = AuthClient::new(self.channel.clone());
        let request = self.request(pb::AuthEnableRequest {});
        auth.auth_enable(request).await.unwrap();
    }

    /// Adds a user whose password is the name, with roles.
    pub async fn add_user(&self, name: &str, roles: &[&str]) {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: name.to_owned(),
            ..pb::AuthUserAddRequest::default()
        };
        let mut auth = AuthClient::new(self.channel.clone());
        auth.user_add(self.request(request)).await.unwrap();
        for &role in roles {
            let request = pb::AuthUserGrantRoleRequest {
                user: name.to_owned(),
                role: role.to_owned(),
            };
            auth.user_grant_role(self.request(request)).await.unwrap();
        }
    }

    pub async fn add_user_without_password(&self, name: &str) -> Result<(), Status> {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            options: Some(UserAddOptions { no_password: true }),
            ..pb::AuthUserAddRequest::default()
        };
        let mut auth = AuthClient::new(self.channel.clone());
        auth.user_add(self.request(request)).await.map(drop)
    }

    pub async fn add_role(&self, name: &str, permissions: &[(Type, &[u8], &[u8])]) {
        let request = pb::AuthRoleAddRequest {
            name: name.to_owned(),
        };
        let mut auth = AuthClient::new(self.channel.clone());
        auth.role_add(self.request(request)).await.unwrap();
        for &(kind, key, end) in permissions {
            self.grant(name, kind, key, end).await.unwrap();
        }
    }

    pub async fn grant(
        &self,
        role: &str,
        kind: Type,
        key: &[u8],
        end: &[u8],
    ) -> Result<(), Status> {
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(Permission {
                perm_type: kind.into(),
                key: key.to_vec().into(),
                range_end: end.to_vec().into(),
            }),
        };
        let mut auth = AuthClient::new(self.channel.clone());
        let granted = auth.role_grant_permission(self.request(request)).await;
        granted.map(drop)
    }

    pub async fn forbid(&self, role: &str, key: &[u8], end: &[u8]) -> Result<(), Status> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: key.to_vec().into(),
            range_end: end.to_vec().into(),
        };
        let mut auth = AuthClient::new(self.channel.clone());
        let revoked = auth.role_revoke_permission(self.request(request)).await;
        revoked.map(drop)
    }
}

/// An answer as it is compared: the code and text of a refusal, or that there was none.
pub fn told<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(status) => refusal(&status),
    }
}

pub fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

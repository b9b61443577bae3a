//! Members, status, alarms, users and roles.

use super::{Subject, subject::assert_refused};
use crate::{
    ErrorKind, KeyRange, Result,
    backend::{AuthRequest as Ask, AuthResponse, Permission, PermissionKind},
};

async fn ask(subject: &Subject, request: Ask) -> Result<AuthResponse> {
    subject.backend().auth(request).await
}

async fn tell(subject: &Subject, request: Ask) {
    assert_eq!(ask(subject, request).await.unwrap(), AuthResponse::Done);
}

async fn names(subject: &Subject, request: Ask) -> Vec<String> {
    match ask(subject, request).await.unwrap() {
        AuthResponse::Names(names) => names,
        other => panic!("names, not {other:?}"),
    }
}

async fn permissions(subject: &Subject, name: &str) -> Vec<Permission> {
    match ask(subject, Ask::RolePermissions { name: name.into() })
        .await
        .unwrap()
    {
        AuthResponse::Permissions(permissions) => permissions,
        other => panic!("permissions, not {other:?}"),
    }
}

fn add_user(name: &str) -> Ask {
    let password = Some("secret".into());
    Ask::UserAdd {
        name: name.into(),
        password,
    }
}

pub async fn the_members_are_listed(subject: &Subject) {
    let members = subject.backend().members().await.unwrap();
    assert!(!members.is_empty());
    for member in &members {
        assert!(member.id != 0);
        assert!(
            member.is_learner || !member.client_urls.is_empty(),
            "{member:?}"
        );
    }
    let answered = subject.read(subject.key("k")).await.header.member_id;
    assert!(members.iter().any(|member| member.id == answered));
}

pub async fn every_endpoint_tells_its_status(subject: &Subject) {
    let revision = subject.put("k", "v").await;
    let backend = subject.backend();
    let mut statuses = vec![backend.status(None).await.unwrap()];
    assert!(!backend.endpoints().is_empty());
    for endpoint in backend.endpoints() {
        statuses.push(backend.status(Some(endpoint)).await.unwrap());
    }
    let members = backend.members().await.unwrap();
    for status in statuses {
        assert!(
            members
                .iter()
                .any(|member| member.id == status.header.member_id)
        );
        assert!(members.iter().any(|member| member.id == status.leader));
        assert!(status.version.starts_with("3."), "{}", status.version);
        assert!(status.header.revision >= revision || members.len() > 1);
        assert!(status.raft_term > 0 && status.raft_applied_index <= status.raft_index);
        assert!(status.db_size >= status.db_size_in_use);
        assert!(status.errors.is_empty() && !status.is_learner);
    }
}

pub async fn a_healthy_store_has_no_alarm(subject: &Subject) {
    assert_eq!(subject.backend().alarms().await.unwrap(), []);
}

pub async fn users_come_and_go(subject: &Subject) {
    let name = subject.name("user");
    tell(subject, add_user(&name)).await;
    assert!(names(subject, Ask::UserList).await.contains(&name));
    assert!(
        names(subject, Ask::UserRoles { name: name.clone() })
            .await
            .is_empty()
    );
    let password = "other".to_owned();
    tell(
        subject,
        Ask::UserChangePassword {
            name: name.clone(),
            password,
        },
    )
    .await;
    tell(subject, Ask::UserDelete { name: name.clone() }).await;
    assert!(!names(subject, Ask::UserList).await.contains(&name));
}

pub async fn what_cannot_be_done_to_a_user_is_refused(subject: &Subject) {
    let (name, role) = (subject.name("user"), subject.name("role"));
    let missing = "etcdserver: user name not found";
    let refused = [
        Ask::UserDelete { name: name.clone() },
        Ask::UserRoles { name: name.clone() },
        Ask::UserChangePassword {
            name: name.clone(),
            password: "p".into(),
        },
        Ask::UserGrantRole {
            name: name.clone(),
            role: role.clone(),
        },
        Ask::UserRevokeRole {
            name: name.clone(),
            role: role.clone(),
        },
    ];
    for request in refused {
        assert_refused(ask(subject, request).await, ErrorKind::NotFound, missing);
    }
    tell(subject, add_user(&name)).await;
    let again = ask(subject, add_user(&name)).await;
    assert_refused(
        again,
        ErrorKind::AlreadyExists,
        "etcdserver: user name already exists",
    );
    let grant = Ask::UserGrantRole {
        name: name.clone(),
        role: role.clone(),
    };
    let text = "etcdserver: role name not found";
    assert_refused(ask(subject, grant).await, ErrorKind::NotFound, text);
    let revoke = Ask::UserRevokeRole {
        name: name.clone(),
        role,
    };
    let text = "etcdserver: role is not granted to the user";
    assert_refused(ask(subject, revoke).await, ErrorKind::NotFound, text);
    tell(subject, Ask::UserDelete { name }).await;
    // etcd says the same to who brings no token, so the kind is open.
    let nameless = ask(subject, add_user("")).await.unwrap_err();
    assert_eq!(nameless.to_string(), "etcdserver: user name is empty");
}

pub async fn users_have_the_roles_that_they_are_given(subject: &Subject) {
    let user = subject.name("user");
    let roles = [subject.name("a"), subject.name("b")];
    tell(subject, add_user(&user)).await;
    for role in &roles {
        tell(subject, Ask::RoleAdd { name: role.clone() }).await;
        let grant = Ask::UserGrantRole {
            name: user.clone(),
            role: role.clone(),
        };
        tell(subject, grant).await;
    }
    assert_eq!(
        names(subject, Ask::UserRoles { name: user.clone() }).await,
        roles
    );
    let [first, second] = roles;
    let revoke = Ask::UserRevokeRole {
        name: user.clone(),
        role: first.clone(),
    };
    tell(subject, revoke).await;
    assert_eq!(
        names(subject, Ask::UserRoles { name: user.clone() }).await,
        std::slice::from_ref(&second)
    );
    // A role that is deleted is taken from its users.
    tell(subject, Ask::RoleDelete { name: second }).await;
    assert!(
        names(subject, Ask::UserRoles { name: user.clone() })
            .await
            .is_empty()
    );
    tell(subject, Ask::RoleDelete { name: first }).await;
    tell(subject, Ask::UserDelete { name: user }).await;
}

pub async fn roles_have_the_permissions_that_they_are_given(subject: &Subject) {
    let name = subject.name("role");
    tell(subject, Ask::RoleAdd { name: name.clone() }).await;
    assert!(names(subject, Ask::RoleList).await.contains(&name));
    let permission = |kind, keys| Permission { kind, keys };
    let read = permission(PermissionKind::Read, KeyRange::prefix("a/"));
    let write = permission(PermissionKind::Write, KeyRange::key("b"));
    let both = permission(PermissionKind::ReadWrite, KeyRange::from("c"));
    for permission in [&write, &both, &read] {
        let permission = permission.clone();
        tell(
            subject,
            Ask::RoleGrant {
                name: name.clone(),
                permission,
            },
        )
        .await;
    }
    let mut granted = permissions(subject, &name).await;
    granted.sort_by(|a, b| a.keys.start.cmp(&b.keys.start));
    assert_eq!(granted, [read.clone(), write, both.clone()]);
    let keys = KeyRange::key("b");
    tell(
        subject,
        Ask::RoleRevoke {
            name: name.clone(),
            keys: keys.clone(),
        },
    )
    .await;
    assert_eq!(permissions(subject, &name).await, [read, both]);
    let again = ask(
        subject,
        Ask::RoleRevoke {
            name: name.clone(),
            keys,
        },
    )
    .await;
    let text = "etcdserver: permission is not granted to the role";
    assert_refused(again, ErrorKind::NotFound, text);
    tell(subject, Ask::RoleDelete { name: name.clone() }).await;
    assert!(!names(subject, Ask::RoleList).await.contains(&name));
}

pub async fn what_cannot_be_done_to_a_role_is_refused(subject: &Subject) {
    let name = subject.name("role");
    let permission = Permission {
        kind: PermissionKind::Read,
        keys: KeyRange::key("k"),
    };
    let keys = KeyRange::key("k");
    let missing = "etcdserver: role name not found";
    let refused = [
        Ask::RoleDelete { name: name.clone() },
        Ask::RolePermissions { name: name.clone() },
        Ask::RoleGrant {
            name: name.clone(),
            permission,
        },
        Ask::RoleRevoke {
            name: name.clone(),
            keys,
        },
    ];
    for request in refused {
        assert_refused(ask(subject, request).await, ErrorKind::NotFound, missing);
    }
    tell(subject, Ask::RoleAdd { name: name.clone() }).await;
    let again = ask(subject, Ask::RoleAdd { name: name.clone() }).await;
    assert_refused(
        again,
        ErrorKind::AlreadyExists,
        "etcdserver: role name already exists",
    );
    tell(subject, Ask::RoleDelete { name }).await;
}

pub async fn the_state_of_authentication_can_be_asked(subject: &Subject) {
    match ask(subject, Ask::Status).await {
        Ok(AuthResponse::Status { enabled, revision }) => {
            assert!(!enabled && revision.0 >= 1);
        }
        Ok(other) => panic!("a status, not {other:?}"),
        // etcd 3.4 cannot be asked.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    tell(subject, Ask::Disable).await;
}

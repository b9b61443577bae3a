//! Users and roles: one script on all stores. etcd 3.4 cannot tell the state of authentication.

use std::path::Path;

use quorate::{
    KeyRange,
    backend::{
        AuthRequest as Ask, AuthResponse, Backend, Memory, Permission, PermissionKind,
        etcd::{Etcd, EtcdOptions},
    },
};
use quorate_server::Server;

use crate::{
    compare::refusal,
    support::etcd::{self, Cluster},
};

pub fn compare_with(program: &Path) {
    let cluster = Cluster::builder().program(program.to_owned()).start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start().await.unwrap();
        let remote = [vec![server.url().to_owned()], cluster.endpoints()];
        let [served, etcd] = remote.map(|endpoints| {
            let options = EtcdOptions {
                endpoints,
                ..EtcdOptions::default()
            };
            Etcd::new(options).unwrap()
        });
        let memory = Memory::new();
        let has_status = etcd::version(program) >= (3, 5);
        for (number, request) in script().into_iter().enumerate() {
            if matches!(request, Ask::Status) && !has_status {
                continue;
            }
            let name = format!("{request:?}, request {number}");
            let expected = words(&etcd, request.clone()).await;
            assert_eq!(
                words(&memory, request.clone()).await,
                expected,
                "in memory: {name}"
            );
            assert_eq!(words(&served, request).await, expected, "server: {name}");
        }
    });
}

/// The answer without its kind if etcd uses one text for two refusals.
async fn words(backend: &dyn Backend, request: Ask) -> String {
    match backend.auth(request).await {
        Err(error) if error.to_string().ends_with("user name is empty") => error.to_string(),
        Err(error) => refusal(&error),
        // Permissions that begin alike have no order.
        Ok(AuthResponse::Permissions(mut permissions)) => {
            permissions.sort_by_key(|permission| permission.keys.to_wire());
            format!("{permissions:?}")
        }
        Ok(answer) => format!("{answer:?}"),
    }
}

fn script() -> Vec<Ask> {
    use PermissionKind::{Read, ReadWrite, Write};
    let user = |name: &str| Ask::UserAdd {
        name: name.into(),
        password: Some("secret".into()),
    };
    let name = String::from;
    let give = |user: &str, role: &str| Ask::UserGrantRole {
        name: user.into(),
        role: role.into(),
    };
    let take = |user: &str, role: &str| Ask::UserRevokeRole {
        name: user.into(),
        role: role.into(),
    };
    let allow = |kind, keys| Ask::RoleGrant {
        name: "r".into(),
        permission: Permission { kind, keys },
    };
    let forbid = |keys| Ask::RoleRevoke {
        name: "r".into(),
        keys,
    };
    let permissions = || Ask::RolePermissions { name: "r".into() };
    let roles = |user: &str| Ask::UserRoles { name: user.into() };
    vec![
        Ask::Status,
        Ask::UserList,
        Ask::RoleList,
        user(""),
        user("b"),
        user("a"),
        user("b"),
        Ask::UserList,
        Ask::UserChangePassword {
            name: name("a"),
            password: name("other"),
        },
        Ask::UserChangePassword {
            name: name("none"),
            password: name("other"),
        },
        Ask::RoleAdd { name: name("s") },
        Ask::RoleAdd { name: name("r") },
        Ask::RoleAdd { name: name("r") },
        Ask::RoleList,
        Ask::Status,
        roles("a"),
        roles("none"),
        give("a", "none"),
        give("none", "r"),
        give("a", "s"),
        give("a", "r"),
        give("a", "r"),
        give("b", "r"),
        give("b", "root"),
        roles("a"),
        roles("b"),
        take("a", "s"),
        take("a", "s"),
        take("none", "s"),
        roles("a"),
        Ask::Status,
        permissions(),
        Ask::RolePermissions { name: name("none") },
        allow(Read, KeyRange::key("k")),
        allow(Write, KeyRange::key("k")),
        allow(Read, KeyRange::prefix("k")),
        allow(ReadWrite, KeyRange::from("c")),
        allow(ReadWrite, KeyRange::between("a", "b")),
        permissions(),
        allow(Write, KeyRange::between("a", "b")),
        permissions(),
        forbid(KeyRange::key("a")),
        forbid(KeyRange::between("a", "b")),
        forbid(KeyRange::key("k")),
        forbid(KeyRange::key("k")),
        Ask::RoleRevoke {
            name: name("none"),
            keys: KeyRange::key("k"),
        },
        permissions(),
        Ask::Status,
        Ask::RoleDelete { name: name("r") },
        Ask::RoleDelete { name: name("r") },
        roles("a"),
        roles("b"),
        Ask::UserDelete { name: name("a") },
        Ask::UserDelete { name: name("a") },
        Ask::UserList,
        Ask::RoleList,
        Ask::Disable,
        Ask::Status,
    ]
}

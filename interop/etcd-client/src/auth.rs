//! Users, roles, and what they may do once authentication is enabled.

use etcd_client::{
    Client, ConnectOptions, DeleteOptions, GetOptions, Permission, RoleRevokePermissionOptions,
    Txn, TxnOp, UserAddOptions,
};

use crate::{Result, transcript::tell};

pub async fn run(client: &mut Client, endpoint: &str, is_35: bool) -> Result {
    books(client).await;
    // 3.4 grants what no key is in.
    if is_35 {
        empty_permissions(client).await;
    }
    tell("enable without root", client.auth_enable().await);
    tell("add root", client.user_add("root", "secret", None).await);
    tell("enable without its role", client.auth_enable().await);
    tell(
        "make root of root",
        client.user_grant_role("root", "root").await,
    );
    tell("enable", client.auth_enable().await);
    tell("nobody reads", client.get("k", None).await);
    // 3.4 lets everybody ask for leases, and compact.
    if is_35 {
        tell("nobody asks for leases", client.leases().await);
    }

    let connect = async |name: &str, password: &str| {
        let options = ConnectOptions::new().with_user(name, password);
        Client::connect([endpoint], Some(options)).await
    };
    for (name, password) in [("alice", "wrong"), ("none", "x"), ("bare", "x")] {
        let refused = connect(name, password).await.map(|_| "connected");
        tell("connect", refused);
    }
    let mut root = connect("root", "secret").await?;
    let mut alice = connect("alice", "new").await?;
    permissions(&mut alice).await;
    if is_35 {
        tell("leases", alice.leases().await);
        tell("compact", alice.compact(8, None).await);
    }
    tell("root puts", root.put("other", "v", None).await);
    tell(
        "root takes a role",
        root.user_revoke_role("alice", "reader").await,
    );
    tell("alice reads no more", alice.get("r/1", None).await);
    tell("root deletes root", root.user_delete("root").await);
    tell("alice disables", alice.auth_disable().await);
    tell("disable", root.auth_disable().await);
    tell("everybody reads", client.get("other", None).await);
    Ok(())
}

async fn books(client: &mut Client) {
    for name in ["alice", "bob", "alice", ""] {
        tell("add a user", client.user_add(name, "old", None).await);
    }
    let bare = UserAddOptions::new().with_no_pwd();
    tell(
        "add a user without password",
        client.user_add("bare", "", Some(bare)).await,
    );
    tell(
        "change a password",
        client.user_change_password("alice", "new").await,
    );
    tell(
        "change none",
        client.user_change_password("none", "new").await,
    );
    for name in ["reader", "writer", "reader"] {
        tell("add a role", client.role_add(name).await);
    }
    for (role, permission) in [
        ("reader", Permission::read("r/").with_prefix()),
        ("writer", Permission::write("w/").with_prefix()),
        ("writer", Permission::read_write("both")),
        ("writer", Permission::read_write("x").with_from_key()),
        ("none", Permission::read("r/")),
    ] {
        let granted = client.role_grant_permission(role, permission).await;
        tell("grant a permission", granted);
    }
    tell("a role", client.role_get("reader").await);
    tell("no role", client.role_get("none").await);
    let from = RoleRevokePermissionOptions::new().with_from_key();
    let revoked = client
        .role_revoke_permission("writer", "x", Some(from))
        .await;
    tell("revoke a permission", revoked);
    let revoked = client.role_revoke_permission("writer", "x", None).await;
    tell("revoke it again", revoked);
    for (user, role) in [
        ("alice", "reader"),
        ("alice", "writer"),
        ("alice", "none"),
        ("none", "reader"),
        ("bob", "reader"),
    ] {
        tell("grant a role", client.user_grant_role(user, role).await);
    }
    tell(
        "revoke no role",
        client.user_revoke_role("bob", "writer").await,
    );
    tell("a user", client.user_get("alice").await);
    tell("no user", client.user_get("none").await);
    tell("delete a user", client.user_delete("bob").await);
    tell("delete it again", client.user_delete("bob").await);
    tell("users", client.user_list().await);
    tell("roles", client.role_list().await);
}

async fn empty_permissions(client: &mut Client) {
    for permission in [
        Permission::read("b").with_range_end("b"),
        Permission::read("b").with_range_end("a"),
        Permission::read(""),
        Permission::read("").with_range_end("a"),
    ] {
        let granted = client.role_grant_permission("reader", permission).await;
        tell("grant nothing", granted);
    }
}

/// May read below `r/`, write below `w/`, and both `both`.
async fn permissions(alice: &mut Client) {
    let prefix = || Some(GetOptions::new().with_prefix());
    tell("read", alice.get("r/1", None).await);
    tell("read a prefix", alice.get("r/", prefix()).await);
    tell("read too much", alice.get("r", prefix()).await);
    tell("read what may be written", alice.get("w/1", None).await);
    tell("write", alice.put("w/1", "v", None).await);
    tell("write what may be read", alice.put("r/1", "v", None).await);
    let prev = Some(DeleteOptions::new().with_prev_key());
    tell("delete", alice.delete("w/1", None).await);
    tell("delete with prev", alice.delete("w/1", prev).await);
    let allowed = Txn::new().and_then([TxnOp::get("r/1", None), TxnOp::put("w/2", "v", None)]);
    tell("a txn", alice.txn(allowed).await);
    let refused = Txn::new().and_then([TxnOp::get("r/1", None), TxnOp::get("w/2", None)]);
    tell("a txn of too much", alice.txn(refused).await);
    let own = alice.user_get("alice").await;
    tell("who alice is", own);
    tell("who else is there", alice.user_get("root").await);
    tell("a role of hers", alice.role_get("reader").await);
    tell("all users", alice.user_list().await);
    let (mut stream, what) = match alice.watch("r/1", None).await {
        Ok(stream) => (stream, "a watch"),
        Err(error) => return println!("a watch: {error}"),
    };
    let created = stream.message().await;
    tell(what, created);
    if let Ok(mut stream) = alice.watch("other", None).await {
        tell("a watch of too much", stream.message().await);
    }
}

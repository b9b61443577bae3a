//! etcdctl administers and uses a store with users as it does a real etcd.

use crate::support::etcdctl::same_by_all;

/// What is typed, in turn. A user is told by his name and password.
const SCRIPT: &[&str] = &[
    "role add reader",
    "role grant-permission reader read --prefix a/",
    "role add writer",
    "role grant-permission writer readwrite a/ b",
    "role grant-permission writer write --from-key k",
    "role get reader",
    "role get writer",
    "role list",
    "user add root:secret",
    "user add ada:lovelace",
    "user add bare --no-password",
    "user grant-role ada reader",
    "auth enable",
    "user grant-role root root",
    "auth enable",
    "put a/1 one",
    "--user=root:secret put a/1 one",
    "--user=root:wrong put a/1 two",
    "--user=nobody:secret get a/1",
    "--user=bare:secret get a/1",
    "--user=ada:lovelace get a/1",
    "--user=ada:lovelace get --prefix a/",
    "--user=ada:lovelace get --prefix a",
    "--user=ada:lovelace put a/1 two",
    "--user=ada:lovelace user get ada",
    "--user=ada:lovelace user get root",
    "--user=ada:lovelace user list",
    "--user=ada:lovelace role get reader",
    "--user=ada:lovelace role get writer",
    "--user=ada:lovelace compaction 1",
    "--user=ada:lovelace lease timetolive 7",
    "--user=ada:lovelace member remove 7",
    "--user=ada:lovelace auth disable",
    "--user=root:secret user get ada --detail",
    "--user=root:secret user grant-role ada writer",
    "--user=root:secret user get ada",
    "--user=ada:lovelace put a/1 two",
    "--user=ada:lovelace put --prev-kv k/1 one",
    "--user=ada:lovelace del --prefix a/",
    "--user=root:secret user revoke-role ada writer",
    "--user=ada:lovelace put a/1 three",
    "--user=root:secret role revoke-permission reader --prefix a/",
    "--user=root:secret role revoke-permission reader --prefix a/",
    "--user=ada:lovelace get a/1",
    "--user=root:secret user delete ada",
    "--user=ada:lovelace get a/1",
    "--user=root:secret user delete root",
    "--user=root:secret user revoke-role root root",
    "--user=root:secret role delete reader",
    "--user=root:secret role delete reader",
    "--user=root:secret user list",
    "--user=root:secret auth disable",
    "get a/1",
    "--user=root:secret get a/1",
    "user delete root",
    "user list",
];

#[tokio::test]
async fn etcdctl_prints_the_same_as_of_a_real_etcd() {
    let told = same_by_all(SCRIPT).await;
    let refused = told.iter().filter(|told| told.code != Some(0)).count();
    assert!(refused > 10 && refused < told.len() - 10, "{told:#?}");
}

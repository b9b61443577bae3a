//! Leases are granted, kept alive, looked at and revoked.

use crate::support::etcdctl::{same, same_by_all};

const SCRIPT: &[&str] = &[
    "lease list",
    "lease list -w json",
    "lease grant 600",
    "put --lease=$lease a/1 one",
    "put --lease=$lease a/2 two",
    "get a/1 -w fields",
    "put a/2 two",
    "put a/1 uno --ignore-lease",
    "lease timetolive $lease",
    "lease timetolive --keys $lease",
    "lease timetolive --keys $lease -w json",
    "lease timetolive --keys $lease -w fields",
    "lease keep-alive --once $lease",
    "lease keep-alive --once $lease -w json",
    "lease keep-alive --once $lease -w fields",
    "lease list",
    "lease list -w json",
    "lease list -w fields",
    "txn <<< lease(\"a/1\") = \"$lease\"\n\nget a/1\n\nget a/2\n\n",
    "del a/1",
    "lease timetolive --keys $lease",
    "put --lease=$lease a/1 one",
    "lease revoke $lease",
    "lease revoke $lease",
    "get --prefix a/",
    "lease timetolive $lease",
    "lease timetolive --keys $lease -w json",
    "lease keep-alive --once $lease",
    "lease keep-alive $lease",
    "put --lease=$lease a/1 one",
    "lease grant 600 -w json",
    "lease grant 600 -w fields",
    "lease grant 0",
    "lease grant -- -1",
    "lease grant soon",
    "lease grant 9000000001",
    "lease grant",
    "lease revoke nonsense",
    "lease revoke",
    "lease timetolive 7",
    "lease timetolive nonsense",
    "lease keep-alive nonsense",
    "lease grant 600",
    "lease revoke $lease -w json",
];

#[tokio::test]
async fn leases_are_told_of_as_by_etcd() {
    same_by_all(SCRIPT).await;
}

#[tokio::test]
async fn a_lease_is_kept_alive_until_it_is_revoked() {
    let told = same(async |_, etcdctl| {
        let mut told = vec![format!("{:?}", etcdctl.told("lease grant 5").await)];
        let lease = etcdctl.lease().to_owned();
        etcdctl.told("put --lease=$lease k v").await;
        let mut kept = etcdctl.start(&format!("lease keep-alive {lease}"));
        // A beat comes each third of the time to live: this takes longer than that.
        for _ in 0..4 {
            told.push(kept.lines(1).await);
        }
        told.push(etcdctl.told("get k").await.stdout);
        told.push(etcdctl.told("lease revoke $lease").await.stdout);
        let (rest, errors, code) = kept.end().await;
        told.push(rest.lines().last().unwrap_or_default().to_owned());
        told.push(format!("{errors} {code:?}"));
        told.push(etcdctl.told("get k").await.stdout);
        told
    })
    .await;
    assert!(told[4].contains("keepalived"), "{told:#?}");
}

//! The etcd servers that other tests run against do what those tests rely on.

mod support;

use support::{certificates::Certificates, etcd::Cluster, until};

#[tokio::test]
async fn a_killed_member_comes_back_with_its_data_and_a_stopped_one_goes_on() {
    let cluster = Cluster::builder().members(3).fast().start();
    cluster.etcdctl(&["put", "k", "v"]);
    let leader = cluster.leader().expect("a healthy cluster has a leader");
    cluster.kill(leader);
    assert!(!cluster.is_healthy(leader));
    until("another member leads", async || {
        cluster.leader().is_some_and(|now| now != leader)
    })
    .await;
    cluster.restart(leader);
    until("the member is back", async || cluster.is_healthy(leader)).await;
    assert_eq!(cluster.etcdctl(&["get", "k", "--print-value-only"]), "v\n");
    cluster.stop(leader);
    assert!(!cluster.is_healthy(leader));
    cluster.cont(leader);
    until("the member goes on", async || cluster.is_healthy(leader)).await;
}

#[tokio::test]
async fn a_stopped_server_dies_with_its_cluster() {
    let cluster = Cluster::builder().start();
    let address = cluster.endpoint(0).replace("http://", "");
    cluster.stop(0);
    drop(cluster);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_cluster_can_demand_certificates() {
    let cluster = Cluster::builder().tls(Certificates::new(), true).start();
    assert_eq!(cluster.etcdctl(&["put", "k", "v"]), "OK\n");
}

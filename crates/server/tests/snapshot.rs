//! A snapshot is one that etcd takes for its own, and the hash of a store is the one that etcd reckons.
#![allow(unreachable_pub, missing_docs, dead_code, clippy::new_without_default)] // the support is shared with other programs
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[path = "../../quorate/tests/support/certificates.rs"]
pub mod certificates;
#[path = "../../quorate/tests/support/etcd.rs"]
pub mod etcd;

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quorate::{Client, KeyRange, Op, Put, Range, Revision};
use quorate_server::Server;
use quorate_wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RequestOp, TxnRequest,
    kv_client::KvClient, maintenance_client::MaintenanceClient, request_op::Request,
};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn etcdctl() -> PathBuf {
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    program.into()
}

/// Runs etcdctl, and returns what it prints.
async fn run(endpoint: &str, args: &[&str]) -> String {
    let mut command = Command::new(etcdctl());
    command
        .env("ETCDCTL_API", "3")
        .env_remove("ETCDCTL_BIN")
        .env("ETCDCTL_ENDPOINTS", endpoint)
        .args(args)
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("etcdctl hangs").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Writes what makes trees of several levels, rows larger than a page, deletions and a lease.
async fn fill(client: &Client) {
    for batch in 0..60 {
        let puts = (0..100).map(|at| Op::put(format!("many/{at:03}/{batch}"), vec![b'x'; 40]));
        let txn = puts.fold(client.txn(), |txn, put| txn.then(put));
        txn.commit().await.unwrap();
    }
    for kilobytes in [4, 5, 64, 1000] {
        let key = format!("large/{kilobytes}");
        client.put(key, vec![b'y'; kilobytes * 1024]).await.unwrap();
    }
    client.put(vec![b'k'; 9000], "a large key").await.unwrap();
    client.delete(KeyRange::prefix("many/01")).await.unwrap();
    let lease = client.grant_lease(Duration::from_secs(3600)).await.unwrap();
    let put = Put::new("leased", "v").lease(lease.id);
    client.put_with(put).await.unwrap();
}

/// Starts an etcd on a directory that was restored from a snapshot.
async fn restored(snapshot: &Path, directory: &Path) -> (Child, Client) {
    let data = directory.join("data");
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let (client, peer) = (free(), free());
    let cluster = format!("one={peer}");
    run(
        &client,
        &[
            "snapshot",
            "restore",
            snapshot.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
            "--name=one",
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &peer,
        ],
    )
    .await;
    let member = Command::new(etcd::server())
        .env_remove("ETCD_BIN")
        .env_remove("ETCD_BIN_35")
        .args(["--name=one", "--data-dir"])
        .arg(&data)
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &cluster])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = Client::connect(&*client).await.unwrap();
    let answers = async {
        while client.get("any").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers)
        .await
        .expect("etcd does not start");
    (member, client)
}

#[tokio::test]
async fn an_etcd_goes_on_from_a_snapshot() {
    let server = Server::start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    fill(&client).await;
    client.compact(Revision(40), true).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot.db");
    let path = file.to_str().unwrap();
    run(server.url(), &["snapshot", "save", path]).await;
    let status = run(server.url(), &["snapshot", "status", path]).await;
    let all = client.range(Range::new(KeyRange::all())).await.unwrap();
    let revision = all.header.revision.0.to_string();
    assert_eq!(status.split(", ").nth(1), Some(&*revision), "{status}");

    let (_member, etcd) = restored(&file, directory.path()).await;
    let found = etcd.range(Range::new(KeyRange::all())).await.unwrap();
    assert_eq!(found.kvs, all.kvs);
    let past = Range::new(KeyRange::prefix("many/")).revision(Revision(45));
    let before = client.range(past.clone()).await.unwrap();
    assert_eq!(etcd.range(past).await.unwrap().kvs, before.kvs);
    assert!(before.kvs.len() > 100);
}

/// The same writes, some of each kind, for two stores.
async fn write(kv: &mut KvClient<Channel>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for step in 0..300 {
        let key = format!("k{}", random.u8(..12));
        let put = PutRequest {
            key: key.clone().into(),
            value: format!("v{step}").into(),
            ..PutRequest::default()
        };
        let delete = DeleteRangeRequest {
            key: key.into(),
            ..DeleteRangeRequest::default()
        };
        match random.u8(..8) {
            0 | 1 => drop(kv.delete_range(delete).await.unwrap()),
            2 => {
                let other = PutRequest {
                    key: "other".into(),
                    ..put.clone()
                };
                let puts = [put, other].map(|put| RequestOp {
                    request: Some(Request::RequestPut(put)),
                });
                let success = puts.into();
                let txn = TxnRequest {
                    success,
                    ..TxnRequest::default()
                };
                kv.txn(txn).await.unwrap();
            }
            _ => drop(kv.put(put).await.unwrap()),
        }
    }
}

/// What a store tells of its hashes while it is compacted further and further.
async fn hashes(url: String, seed: u64) -> Vec<(i64, i64, u32, i64)> {
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut kv = KvClient::new(channel.clone());
    let mut maintenance = MaintenanceClient::new(channel);
    write(&mut kv, seed).await;
    let mut told = Vec::new();
    for compacted in [0, 50, 150] {
        if compacted > 0 {
            let request = CompactionRequest {
                revision: compacted,
                physical: true,
            };
            kv.compact(request).await.unwrap();
        }
        // At the very revision of a compaction etcd may answer what it reckoned before it.
        for revision in [0, 151, 175, 200] {
            let request = HashKvRequest { revision };
            let answer = maintenance.hash_kv(request).await.unwrap().into_inner();
            told.push((compacted, revision, answer.hash, answer.compact_revision));
        }
    }
    told
}

#[tokio::test]
async fn the_hash_is_the_one_that_etcd_reckons() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let server = Server::start().await.unwrap();
    let ours = hashes(server.url().to_owned(), seed).await;
    for program in [Some(etcd::server()), etcd::server_35()]
        .into_iter()
        .flatten()
    {
        let cluster = etcd::Cluster::builder().fast().program(program).start();
        assert_eq!(ours, hashes(cluster.endpoint(0), seed).await);
    }
}

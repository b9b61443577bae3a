//! What is measured goes by etcd's names, and tells what is.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{collections::BTreeSet, env, time::Duration};

use quorate_server::Server;
use support::{
    etcd::{Cluster, server_35},
    http::Http,
};
use tokio::process::Command;

/// The value of a metric, by all that stands before it.
async fn value(http: &Http, name: &str) -> Option<u64> {
    let text = http.get("/metrics").await.body;
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(rest.parse().unwrap())
}

/// The names of all metrics, with their kinds.
fn names(text: &str) -> BTreeSet<&str> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds.collect()
}

#[tokio::test]
async fn every_metric_is_one_of_etcd_s() {
    let Some(program) = server_35() else { return };
    let etcd = Cluster::builder().program(program).start();
    let theirs = Http::new(&etcd.endpoint(0)).get("/metrics").await;
    let server = Server::start().await.unwrap();
    let ours = Http::new(server.url()).get("/metrics").await;
    let (ours, theirs) = (names(&ours.body), names(&theirs.body));
    let unknown: Vec<_> = ours.difference(&theirs).collect();
    assert!(unknown.is_empty() && ours.len() > 20, "{unknown:?}");
}

#[tokio::test]
async fn the_store_is_measured() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    http.json("/v3/kv/put", r#"{"key":"YQ==","value":"YmI="}"#)
        .await;
    http.json("/v3/kv/put", r#"{"key":"Yg==","value":"YmI="}"#)
        .await;
    http.json("/v3/kv/deleterange", r#"{"key":"Yg=="}"#).await;
    let create = r#"{"create_request":{"key":"dw=="}}{"create_request":{"key":"dw=="}}"#;
    let mut watch = http.open("/v3/watch", create).await.answer().await;
    watch.line().await.unwrap();
    watch.line().await.unwrap();
    for (name, expected) in [
        ("etcd_server_has_leader", 1),
        ("etcd_server_is_leader", 1),
        ("etcd_debugging_mvcc_current_revision", 4),
        ("etcd_debugging_mvcc_keys_total", 2),
        ("etcd_debugging_mvcc_watch_stream_total", 1),
        ("etcd_debugging_mvcc_watcher_total", 2),
        ("etcd_mvcc_db_total_size_in_bytes", 7),
    ] {
        assert_eq!(value(&http, name).await, Some(expected), "{name}");
    }
    http.json("/v3/kv/compaction", r#"{"revision":4,"physical":true}"#)
        .await;
    http.json("/v3/kv/put", r#"{"key":"YQ=="}"#).await;
    let name = "etcd_debugging_mvcc_compact_revision";
    assert_eq!(value(&http, name).await, Some(4));
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    for body in [r#"{"key":"YQ=="}"#, r#"{"key":"Yg=="}"#, "{}"] {
        http.post("/v3/kv/put", body).await;
    }
    let put = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    let started = format!("grpc_server_started_total{{{put}");
    assert_eq!(value(&http, &started).await, Some(3));
    for (code, expected) in [
        ("OK", Some(2)),
        ("InvalidArgument", Some(1)),
        ("Unknown", None),
    ] {
        let name = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{put}");
        assert_eq!(value(&http, &name).await, expected, "{code}");
    }

    let watch = r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}"#;
    let cancelled = format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{watch}");
    let create = r#"{"create_request":{"key":"dw=="}}"#;
    let length = create.len().to_string();
    let headers = [("Content-Length", &*length)];
    let stream = http.start("/v3/watch", &headers, create).await;
    let mut stream = stream.answer().await;
    stream.line().await.unwrap();
    assert_eq!(value(&http, &cancelled).await, None);
    drop(stream);
    let counted = async {
        while value(&http, &cancelled).await != Some(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(20), counted).await;
    counted.expect("the end of the stream is not counted");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_can_check_the_scale_of_data() {
    let server = Server::start().await.unwrap();
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    let mut command = Command::new(program);
    command.env("ETCDCTL_API", "3").env_remove("ETCDCTL_BIN");
    command.env("ETCDCTL_ENDPOINTS", server.url());
    command
        .args(["check", "datascale", "--load=s"])
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.expect("etcdctl hangs").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{output:?}");
    let used = told.split("PASS: Approximate system memory used : ").nth(1);
    let used: f64 = used.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(used > 1.0, "{told}");
}

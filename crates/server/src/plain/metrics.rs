//! What is measured, in the text format of Prometheus and under etcd's names.

use std::{fmt::Display, fs, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::any,
};

use crate::{
    services::calls::Calls,
    store::shared::{Shared, VERSION},
};

/// What the numbers come from.
#[derive(Clone)]
struct Sources {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
}

pub(crate) fn routes(shared: &Arc<Shared>, calls: &Arc<Calls>) -> Router {
    let (shared, calls) = (Arc::clone(shared), Arc::clone(calls));
    Router::new()
        .route("/metrics", any(metrics))
        .with_state(Sources { shared, calls })
}

async fn metrics(State(Sources { shared, calls }): State<Sources>) -> Response {
    let mut text = String::new();
    store(&shared, &mut text);
    process(&mut text);
    calls.write(&mut text);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

fn store(shared: &Shared, text: &mut String) {
    let ((header, bytes, keys, compacted, watches, auth_revision), _) = shared.look(|state, _| {
        let store = &state.store;
        (
            store.header(),
            store.bytes(),
            store.key_count(),
            store.compacted(),
            (state.watches.stream_count(), state.watches.watch_count()),
            store.auth().revision(),
        )
    });
    let (streams, watchers) = watches;
    let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    let mut gauge = |name: &str, help: &str, value: &dyn Display| {
        write_metric(text, name, "gauge", help, value);
    };

    gauge("etcd_server_has_leader", "Whether there is a leader.", &1);
    gauge("etcd_server_is_leader", "Whether it is this member.", &1);
    gauge("etcd_server_is_learner", "Whether this member learns.", &0);
    gauge(
        &format!("etcd_server_version{{server_version=\"{VERSION}\"}}"),
        "The version of etcd that is served.",
        &1,
    );
    gauge(
        &format!("etcd_cluster_version{{cluster_version=\"{minor}\"}}"),
        "The version that all members have.",
        &1,
    );
    gauge(
        &format!("etcd_server_id{{server_id=\"{:x}\"}}", header.member_id),
        "The id of this member.",
        &1,
    );
    let help = "Writes that were agreed on.";
    gauge(
        "etcd_server_proposals_committed_total",
        help,
        &header.revision.0,
    );
    let help = "Writes that were done.";
    gauge(
        "etcd_server_proposals_applied_total",
        help,
        &header.revision.0,
    );
    let help = "Writes that wait.";
    gauge("etcd_server_proposals_pending", help, &0);
    let help = "The bytes of all keys and values, old ones included.";
    gauge("etcd_mvcc_db_total_size_in_bytes", help, &bytes);
    gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, &bytes);
    let help = "Keys, with those whose deletion is not yet compacted.";
    gauge("etcd_debugging_mvcc_keys_total", help, &keys);
    let help = "The latest revision.";
    gauge(
        "etcd_debugging_mvcc_current_revision",
        help,
        &header.revision.0,
    );
    let help = "The oldest revision that can be read.";
    gauge("etcd_debugging_mvcc_compact_revision", help, &compacted.0);
    let help = "Streams of watches.";
    gauge("etcd_debugging_mvcc_watch_stream_total", help, &streams);
    let help = "Watches.";
    gauge("etcd_debugging_mvcc_watcher_total", help, &watchers);
    let help = "The revision of users and roles.";
    gauge("etcd_debugging_auth_revision", help, &auth_revision.0);
    let help = "How often the leader has changed.";
    let name = "etcd_server_leader_changes_seen_total";
    write_metric(text, name, "counter", help, &1);
}

/// What Linux tells of this process. Elsewhere there is nothing of it.
fn process(text: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let mut lines = status.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max_fds = limits.lines().find_map(|line| {
        let rest = line.strip_prefix("Max open files")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    let open_fds = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|fds| fds.count() as u64);
    let found = [
        (
            "process_resident_memory_bytes",
            "Memory in use.",
            bytes("VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "Memory that was asked for.",
            bytes("VmSize:"),
        ),
        ("process_open_fds", "Open file descriptors.", open_fds),
        ("process_max_fds", "How many there can be.", max_fds),
    ];
    for (name, help, value) in found {
        if let Some(value) = value {
            write_metric(text, name, "gauge", help, &value);
        }
    }
}

/// Adds a metric of one value; the name may bear labels.
fn write_metric(text: &mut String, name: &str, kind: &str, help: &str, value: &dyn Display) {
    let bare = name.split('{').next().unwrap_or(name);
    let lines = format!("# HELP {bare} {help}\n# TYPE {bare} {kind}\n{name} {value}\n");
    text.push_str(&lines);
}

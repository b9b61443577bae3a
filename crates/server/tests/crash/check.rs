//! The comparison of what a server says with what was told.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use quorate::{
    Client, Event, Header, Key, KeyRange, LeaseId, Range, Revision, Value, WatchRequest,
};
use quorate_wire::etcdserverpb::{HashKvRequest, maintenance_client::MaintenanceClient};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::{
    clients::OF_A_TXN,
    told::{Changes, Facts, Told},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Panics if the server has lost or changed anything that was told.
pub(crate) async fn check(url: &str, told: &Told) {
    let client = Client::connect(url).await.unwrap();
    let found = client.range(KeyRange::all()).await.unwrap();
    let header = found.header;
    let compacted = compacted(url).await;
    let history = history(&client, compacted, header).await;
    let now: Vec<(Key, Value)> = found.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
    let before = before(&client, compacted).await;
    assert_eq!(now, replay(before, &history), "the history leads elsewhere");
    for (revision, changes) in &history {
        check_whole(*revision, changes);
    }

    let leases = {
        let mut facts = told.facts();
        let known = facts.revision;
        assert!(
            header.revision >= known,
            "{} after {known}",
            header.revision
        );
        assert!(compacted >= facts.compacted, "a compaction is undone");
        facts.header(header);
        check_changes(&facts, compacted, &history);
        // What is found now is told too.
        facts.compacted = compacted;
        facts.changes = history;
        (facts.leases.clone(), facts.ended.clone())
    };
    for (lease, key) in leases.0 {
        check_lease(&client, lease, &key).await;
    }
    let living = client.leases().await.unwrap();
    let back = living.iter().find(|lease| leases.1.contains(lease));
    assert_eq!(back, None, "it was revoked");
    client.close().await.unwrap();
}

async fn check_lease(client: &Client, lease: LeaseId, key: &Key) {
    let status = client.lease_status(lease).await.unwrap();
    assert_eq!(status.granted, Duration::from_secs(600), "lease {lease}");
    assert_eq!(status.keys, std::slice::from_ref(key), "lease {lease}");
}

/// Everything that was told is so.
fn check_changes(facts: &Facts, compacted: Revision, history: &BTreeMap<Revision, Changes>) {
    for (revision, told) in facts.changes.range(compacted..) {
        let Some(changes) = history.get(revision) else {
            panic!("revision {revision} is lost: {told:?}");
        };
        for (key, value) in told {
            let found = changes.get(key);
            assert_eq!(found, Some(value), "{key}@{revision}");
        }
    }
}

/// What one transaction wrote is all there.
fn check_whole(revision: Revision, changes: &Changes) {
    let of_txns = changes
        .iter()
        .filter(|(key, _)| key.to_string().starts_with("txn/"));
    let values: Vec<_> = of_txns.map(|(_, value)| value).collect();
    if !values.is_empty() {
        assert_eq!(values.len(), OF_A_TXN.len(), "revision {revision} is torn");
        assert!(values.iter().all(|value| *value == values[0]));
    }
}

/// The changes of each revision that is kept.
async fn history(
    client: &Client,
    compacted: Revision,
    header: Header,
) -> BTreeMap<Revision, Changes> {
    let mut history: BTreeMap<Revision, Changes> = BTreeMap::new();
    let request = WatchRequest::new(KeyRange::all()).start(compacted.max(Revision(1)));
    let mut watch = client.watch(request);
    // Each revision but the first has changes.
    while history.keys().next_back().map_or(1, |last| last.0) < header.revision.0 {
        let batch = timeout(PATIENCE, watch.next()).await;
        for event in batch.expect("a change").unwrap().unwrap().events {
            let (revision, key) = (event.revision(), event.key().clone());
            let value = match event {
                Event::Delete { .. } => None,
                Event::Put { kv, .. } => Some(kv.value),
            };
            history.entry(revision).or_default().insert(key, value);
        }
    }
    history
}

/// What stood at the oldest revision that is kept.
async fn before(client: &Client, compacted: Revision) -> BTreeMap<Key, Value> {
    if compacted <= Revision(1) {
        return BTreeMap::new();
    }
    let range = Range::new(KeyRange::all()).revision(compacted);
    let found = client.range(range).await.unwrap();
    found.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

fn replay(
    mut state: BTreeMap<Key, Value>,
    history: &BTreeMap<Revision, Changes>,
) -> Vec<(Key, Value)> {
    for (key, value) in history.values().flatten() {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state.into_iter().collect()
}

async fn compacted(url: &str) -> Revision {
    let endpoint = Channel::from_shared(url.to_owned()).unwrap();
    let mut maintenance = MaintenanceClient::new(endpoint.connect().await.unwrap());
    let hash = maintenance.hash_kv(HashKvRequest { revision: 0 });
    // Below zero there was no compaction yet.
    Revision(hash.await.unwrap().into_inner().compact_revision.max(0))
}

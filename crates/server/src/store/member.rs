//! How a member of etcd keeps a store: as rows of a database. Snapshots and hashes are made of them.

use std::collections::HashMap;

use crc32c::{crc32c, crc32c_append};
use prost::Message;
use quorate_engine::{AuthRecord, Key, KeyValue, LeaseId, Record, Revision};

use crate::{
    convert::ttl_to_wire,
    store::{
        bolt::{Bucket, Row},
        rows,
    },
};

/// The table of all changes.
const KEYS: &str = "key";

/// The mark behind the revision of a deletion.
const DELETED: u8 = b't';

/// A lease, as a member keeps it.
#[derive(Clone, PartialEq, Message)]
struct LeaseRow {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

/// The database of a member whose store is this.
pub(crate) fn buckets(records: Vec<Record>, revision: Revision, term: u64) -> Vec<Bucket> {
    let mut keys = Vec::new();
    let mut leases = Vec::new();
    let mut auth = None;
    let mut compacted = Revision::ZERO;
    for record in records {
        match record {
            Record::Auth(books) => auth = Some(books),
            Record::Change {
                revision,
                sub,
                key,
                kv,
            } => keys.push(change_row(revision, sub, key, kv)),
            Record::Compacted { revision, .. } => compacted = revision,
            Record::LeaseGranted { id, ttl } => leases.push(lease_row(id, ttl_to_wire(ttl))),
            _ => {}
        }
    }
    leases.sort_by(|a, b| a.key.cmp(&b.key));
    let [books, users, roles] = auth.map(auth_buckets).unwrap_or_default();
    let bucket = |name, rows| Bucket { name, rows };
    vec![
        bucket("alarm", Vec::new()),
        bucket("auth", books),
        bucket("authRoles", roles),
        bucket("authUsers", users),
        bucket("cluster", Vec::new()),
        bucket(KEYS, keys),
        bucket("lease", leases),
        bucket("members", Vec::new()),
        bucket("members_removed", Vec::new()),
        bucket("meta", meta_rows(revision, term, compacted)),
    ]
}

/// The hash of the changes up to a revision, and how far the store was compacted then; as a member
/// reckons it, of what is compacted only the changes count that can be seen at the revision.
pub(crate) fn hash(records: Vec<Record>, at: Revision) -> (u32, Revision) {
    let mut changes = Vec::new();
    let mut standing = HashMap::new();
    let mut compacted = Revision::ZERO;
    for record in records {
        match record {
            Record::Change {
                revision,
                sub,
                key,
                kv,
            } if revision <= at => {
                match kv {
                    Some(_) => standing.insert(key.clone(), (revision, sub)),
                    None => standing.remove(&key),
                };
                changes.push((revision, sub, key, kv));
            }
            Record::Compacted { revision, .. } => compacted = revision,
            _ => {}
        }
    }
    let mut hash = crc32c(KEYS.as_bytes());
    for (revision, sub, key, kv) in changes {
        let is_seen = standing.get(&key) == Some(&(revision, sub));
        if revision > compacted || is_seen || standing.is_empty() {
            let Row { key, value } = change_row(revision, sub, key, kv);
            hash = crc32c_append(crc32c_append(hash, &key), &value);
        }
    }
    (hash, compacted)
}

/// A change of a key, by its revision.
fn change_row(revision: Revision, sub: i64, key: Key, kv: Option<KeyValue>) -> Row {
    let mut at = place(revision, sub).to_vec();
    if kv.is_none() {
        at.push(DELETED);
    }
    row(at, rows::of_change(key, kv))
}

fn place(revision: Revision, sub: i64) -> [u8; 17] {
    let mut place = [b'_'; 17];
    place[..8].copy_from_slice(&revision.0.to_be_bytes());
    place[9..].copy_from_slice(&sub.to_be_bytes());
    place
}

fn lease_row(LeaseId(id): LeaseId, ttl: i64) -> Row {
    Row {
        key: id.to_be_bytes().to_vec(),
        value: LeaseRow { id, ttl }.encode_to_vec(),
    }
}

/// The state of authentication, the users and the roles.
fn auth_buckets(books: AuthRecord) -> [Vec<Row>; 3] {
    let state = vec![
        row("authEnabled", vec![books.enabled.into()]),
        row("authRevision", books.revision.0.to_be_bytes().to_vec()),
    ];
    let users = rows::of_users(&books).map(|(name, value)| row(name, value));
    let roles = rows::of_roles(&books).map(|(name, value)| row(name, value));
    let (mut users, mut roles): (Vec<_>, Vec<_>) = (users.collect(), roles.collect());
    for rows in [&mut users, &mut roles] {
        rows.sort_by(|a, b| a.key.cmp(&b.key));
    }
    [state, users, roles]
}

/// How far the store is, and how far it was compacted.
fn meta_rows(revision: Revision, term: u64, compacted: Revision) -> Vec<Row> {
    let index = revision.0.to_be_bytes().to_vec();
    let mut rows = vec![row("consistent_index", index)];
    if compacted > Revision::ZERO {
        let compacted = place(compacted, 0).to_vec();
        rows.push(row("finishedCompactRev", compacted.clone()));
        rows.push(row("scheduledCompactRev", compacted));
    }
    rows.push(row("term", term.to_be_bytes().to_vec()));
    rows
}

fn row(key: impl Into<Vec<u8>>, value: Vec<u8>) -> Row {
    let key = key.into();
    Row { key, value }
}

//! A snapshot: a database from which a member of etcd can begin, and the pieces in which it is sent.

use bytes::Bytes;
use quorate_engine::{Header, Record};
use quorate_wire::etcdserverpb as pb;
use sha2::{Digest, Sha256};

use crate::{
    convert::header_to_wire,
    store::{bolt, member::buckets},
};

const PIECE_BYTES: usize = 32 * 1024;

/// The database in pieces, and its SHA-256 as the last of them.
pub(crate) fn pieces(
    header: Header,
    records: Vec<Record>,
) -> impl Iterator<Item = pb::SnapshotResponse> {
    let mut file = Bytes::from(bolt::file(&buckets(
        records,
        header.revision,
        header.raft_term,
    )));
    let sum = Bytes::copy_from_slice(&Sha256::digest(&file));
    let count = file.len().div_ceil(PIECE_BYTES);
    let pieces = (0..count).map(move |_| {
        let piece = file.split_to(PIECE_BYTES.min(file.len()));
        (file.len() as u64, piece)
    });
    let pieces = pieces.chain([(0, sum)]);
    pieces.map(move |(remaining_bytes, blob)| pb::SnapshotResponse {
        header: Some(header_to_wire(header)),
        remaining_bytes,
        blob,
        version: String::new(),
    })
}

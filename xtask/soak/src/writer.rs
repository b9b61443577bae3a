//! Writers, each of keys of its own.

use std::sync::{Arc, atomic::Ordering};

use quorate_wire::etcdserverpb::{DeleteRangeRequest, PutRequest, kv_client::KvClient};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{Result, load::Counts};

pub(crate) const WRITERS: usize = 64;

/// How many keys each of them writes.
pub(crate) const KEYS: usize = 16;

/// The value that is written last.
pub(crate) const END: &[u8] = b"end";

const MAX_VALUE_BYTES: usize = 1024;

pub(crate) struct Writer {
    number: usize,
    client: KvClient<Channel>,
    counts: Arc<Counts>,
}

impl Writer {
    pub(crate) fn new(number: usize, channel: Channel, counts: Arc<Counts>) -> Self {
        let client = KvClient::new(channel);
        Self {
            number,
            client,
            counts,
        }
    }

    /// Puts, and now and then deletes, until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result {
        while !stop.is_cancelled() {
            let key = key(self.number, fastrand::usize(..KEYS)).into();
            let header = if fastrand::u8(..20) == 0 {
                let request = DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                };
                self.client.delete_range(request).await?.into_inner().header
            } else {
                let request = PutRequest {
                    key,
                    value: vec![b'v'; fastrand::usize(4..MAX_VALUE_BYTES)].into(),
                    ..PutRequest::default()
                };
                self.client.put(request).await?.into_inner().header
            };
            let revision = header.ok_or("an answer without a header")?.revision;
            self.counts.revision.fetch_max(revision, Ordering::Relaxed);
            self.counts.writes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Writes every key once more, so that every watcher can tell that it has seen everything.
pub(crate) async fn write_ends(channel: Channel) -> Result {
    let mut client = KvClient::new(channel);
    for (writer, number) in (0..WRITERS).flat_map(|it| (0..KEYS).map(move |number| (it, number))) {
        let request = PutRequest {
            key: key(writer, number).into(),
            value: END.into(),
            ..PutRequest::default()
        };
        client.put(request).await?;
    }
    Ok(())
}

pub(crate) fn key(writer: usize, number: usize) -> String {
    format!("soak/{writer:02}/{number:02}")
}

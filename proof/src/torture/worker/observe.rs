//! Watches and observes keys.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use quorate::{ErrorKind, Event, KeyRange, KeyValue, Observed, Range, Revision, WatchRequest};

use super::Desk;
use crate::history::{Change, What};

/// What is written, and watched.
pub(super) const PREFIX: &str = "w/";

/// Observes the keys, from the oldest revision that there is.
pub(super) async fn observe(desk: &Desk) {
    begin(desk);
    let mut observer = desk.client.observe(KeyRange::prefix(PREFIX));
    while let Some(observed) = desk.unless_stopping(observer.next()).await {
        match observed {
            Some(Ok(Observed::Reset(snapshot))) => reset(desk, snapshot.revision, snapshot.kvs),
            Some(Ok(Observed::Changes(changes))) => {
                told(desk, changes.revision(), changes.events());
            }
            Some(Err(error)) => return desk.unexpected(format!("observer: {error}")),
            None => return desk.unexpected("an observer ended by itself"),
        }
    }
}

/// Watches the keys, and reads them itself when history was lost.
pub(super) async fn watch(desk: &Desk) {
    begin(desk);
    let mut next = Revision(1);
    while !desk.is_stopping() {
        let request = WatchRequest::new(KeyRange::prefix(PREFIX)).start(next);
        let mut watch = desk.client.watch(request);
        while let Some(batch) = desk.unless_stopping(watch.next()).await {
            match batch {
                Some(Ok(batch)) => {
                    for events in batch.events.chunk_by(|a, b| a.revision() == b.revision()) {
                        told(desk, events[0].revision(), events);
                        next = events[0].revision().next();
                    }
                }
                Some(Err(error)) if error.kind() == ErrorKind::Compacted => break,
                Some(Err(error)) => return desk.unexpected(format!("watch: {error}")),
                None => return desk.unexpected("a watch ended by itself"),
            }
        }
        if !desk.is_stopping() {
            next = read(desk).await.unwrap_or(next);
        }
    }
}

/// Reads all keys, and returns the revision after that.
async fn read(desk: &Desk) -> Option<Revision> {
    loop {
        let range = Range::new(KeyRange::prefix(PREFIX));
        let read = desk.timed("read of a range", 1, desk.client.range(range));
        match desk.unless_stopping(read).await? {
            Ok(range) => {
                reset(desk, range.header.revision, range.kvs);
                return Some(range.header.revision.next());
            }
            Err(error) => desk.failed("read", &error).await,
        }
    }
}

fn begin(desk: &Desk) {
    desk.note(What::Watching {
        prefix: PREFIX.to_owned(),
    });
}

fn told(desk: &Desk, revision: Revision, events: &[Event]) {
    desk.note(What::Told {
        revision: revision.0,
        changes: events.iter().map(change).collect(),
    });
}

fn reset(desk: &Desk, revision: Revision, kvs: Vec<KeyValue>) {
    let keys: BTreeMap<_, _> = kvs
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect();
    desk.note(What::Reset {
        revision: revision.0,
        keys,
    });
}

/// A change as it is written down. Values that only fill the store are cut short.
pub(crate) fn change(event: &Event) -> Change {
    match event {
        Event::Put { kv, .. } => Change {
            key: text(&kv.key),
            value: Some(text(&kv.value[..kv.value.len().min(100)])),
            created: kv.create_revision.0,
        },
        Event::Delete { key, .. } => Change {
            key: text(key),
            value: None,
            created: 0,
        },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

//! What an observer tells: the state at one revision, and the changes of each later one.

use std::sync::Arc;

use crate::{Event, KeyValue, Revision, WatchBatch};

/// The keys as they all stood at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// The keys, in their order.
    pub kvs: Vec<KeyValue>,
}

/// All changes that one revision made to the keys observed: those of a transaction are never parted.
///
/// Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    revision: Revision,
    events: Vec<Event>,
    bytes: usize,
}

impl Changes {
    /// The revision that made them.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// The changes, at least one.
    pub fn events(&self) -> &[Event] {
        &self.0.events
    }

    /// Their size, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Parts a batch into its revisions.
    pub(crate) fn of(batch: WatchBatch) -> impl Iterator<Item = Self> {
        let mut events = batch.events.into_iter().peekable();
        std::iter::from_fn(move || {
            let first = events.next()?;
            let revision = first.revision();
            let mut bytes = size(&first);
            let mut same = vec![first];
            while let Some(event) = events.next_if(|event| event.revision() == revision) {
                bytes += size(&event);
                same.push(event);
            }
            Some(Self(Arc::new(Inner {
                revision,
                events: same,
                bytes,
            })))
        })
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.events.iter()
    }
}

fn size(event: &Event) -> usize {
    /// What an event costs beside its bytes.
    const OVERHEAD: usize = 128;

    let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
    OVERHEAD
        + match event {
            Event::Put { kv, prev } => of(kv) + prev.as_ref().map_or(0, of),
            Event::Delete { key, prev, .. } => key.len() + prev.as_ref().map_or(0, of),
        }
}

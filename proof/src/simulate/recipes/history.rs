//! All that ever was in the store, as a watch tells that nothing happens to.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ops::RangeBounds,
    sync::{Mutex, MutexGuard},
};

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Event, Key, KeyRange, KeyValue, Range, Revision, WatchRequest,
    backend::{Backend, Memory, WatchStream},
};

use crate::simulate::world::lock;

/// The history of a store. It is up to date whenever it is looked at: the store answers at once.
pub(super) struct History(Mutex<Past>);

/// What was told of the store so far.
pub(super) struct Past {
    store: Memory,
    stream: Box<dyn WatchStream>,
    /// What each revision changed, in the order in which it is told.
    revisions: BTreeMap<Revision, Vec<Event>>,
    /// How each key stood from each of its revisions on; none if it was deleted.
    keys: BTreeMap<Key, BTreeMap<Revision, Option<KeyValue>>>,
    /// The oldest revision kept, when that was asked last.
    oldest: Cell<Revision>,
}

impl History {
    /// Begins with a store that is empty.
    pub(super) fn new(store: &Memory) -> Self {
        let opened = store
            .watch(WatchRequest::new(KeyRange::all()).start(Revision(1)))
            .now_or_never()
            .and_then(Result::ok)
            .expect("the store answers at once");
        Self(Mutex::new(Past {
            store: store.clone(),
            stream: opened.stream,
            revisions: BTreeMap::new(),
            keys: BTreeMap::new(),
            oldest: Cell::new(Revision(1)),
        }))
    }

    /// All up to now.
    pub(super) fn now(&self) -> MutexGuard<'_, Past> {
        let mut past = lock(&self.0);
        past.catch_up();
        past
    }
}

impl Past {
    fn catch_up(&mut self) {
        while let Some(told) = self.stream.next().now_or_never() {
            let batch = told.and_then(Result::ok).expect("it is never behind");
            for event in batch.events {
                let stands = match &event {
                    Event::Put { kv, .. } => Some(kv.clone()),
                    Event::Delete { .. } => None,
                };
                let states = self.keys.entry(event.key().clone()).or_default();
                states.insert(event.revision(), stands);
                let changes = self.revisions.entry(event.revision()).or_default();
                changes.push(event);
            }
        }
    }

    /// The revision of the store.
    pub(super) fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// The oldest revision that the store keeps.
    pub(super) fn oldest(&self) -> Revision {
        let known = self.oldest.get();
        let read = Range::new("none").revision(known);
        let kept = self.store.range(read).now_or_never();
        if kept.is_none_or(|kept| kept.is_err()) {
            // Only a watch is told.
            let watch = self.store.watch(WatchRequest::new("none").start(known));
            let mut refused = watch.now_or_never().and_then(Result::ok);
            let refused = refused.as_mut().map(|watching| watching.stream.next());
            let refusal = refused.and_then(FutureExt::now_or_never).flatten();
            let refusal = refusal.and_then(Result::err);
            let oldest = refusal.and_then(|error| error.oldest_revision());
            self.oldest.set(oldest.unwrap_or(known));
        }
        self.oldest.get()
    }

    /// What some revisions changed.
    pub(super) fn changes(
        &self,
        revisions: impl RangeBounds<Revision>,
    ) -> impl DoubleEndedIterator<Item = (Revision, &[Event])> {
        let changes = self.revisions.range(revisions);
        changes.map(|(revision, events)| (*revision, events.as_slice()))
    }

    /// The keys as they stood at a revision.
    pub(super) fn present(&self, keys: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let all = self.keys.range(keys.start.clone()..);
        let inside = all.take_while(|(key, _)| keys.contains(key));
        let standing = inside.filter_map(|(_, states)| standing(states, at));
        standing.cloned().collect()
    }

    /// A key as it stood at a revision.
    pub(super) fn get(&self, key: &Key, at: Revision) -> Option<&KeyValue> {
        standing(self.keys.get(key)?, at)
    }

    /// All that ever was in a key.
    pub(super) fn values(&self, key: &Key) -> impl Iterator<Item = &KeyValue> {
        let states = self.keys.get(key).into_iter().flat_map(BTreeMap::values);
        states.flatten()
    }

    /// The revisions from one to another at which some keys stood each in its own way.
    pub(super) fn moments(
        &self,
        keys: &KeyRange,
        first: Revision,
        last: Revision,
    ) -> impl Iterator<Item = Revision> {
        let later = self.revisions.range(first.next()..);
        let later = later.take_while(move |(revision, _)| **revision <= last);
        let changed = later.filter(|(_, events)| events.iter().any(|e| keys.contains(e.key())));
        std::iter::once(first).chain(changed.map(|(revision, _)| *revision))
    }
}

fn standing(states: &BTreeMap<Revision, Option<KeyValue>>, at: Revision) -> Option<&KeyValue> {
    states.range(..=at).next_back()?.1.as_ref()
}

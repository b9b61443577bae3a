//! All watches of all streams, and whom a change concerns.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    task::Waker,
};

use quorate_engine::{Error, Key, Revision, Store, WatchBatch, Watcher};

/// The watches of all streams. A change wakes the streams that it concerns, and tells them which of
/// their watches to look at.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    streams: HashMap<u64, Watching>,
    last_stream: u64,
    /// The watches of single keys, and those of ranges.
    by_key: HashMap<Key, BTreeSet<Place>>,
    by_range: BTreeSet<Place>,
}

/// The watches of one stream.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    watches: BTreeMap<i64, Watch>,
    /// Where to look for an id that is free.
    next_id: i64,
    /// The watches that may have something to tell, the one that has waited longest first.
    ready: VecDeque<i64>,
    /// Who waits for the next change.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Watch {
    /// None once its changes were compacted away: the id stays taken until the client cancels it.
    watcher: Option<Watcher>,
    is_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    stream: u64,
    watch: i64,
}

impl Watches {
    /// Opens a stream, and tells its number.
    pub(crate) fn open(&mut self) -> u64 {
        self.last_stream += 1;
        self.streams.insert(self.last_stream, Watching::default());
        self.last_stream
    }

    /// Ends a stream with its watches. It must be dropped outside the lock, since its waker may own
    /// a task that owns another stream.
    pub(crate) fn close(&mut self, stream: u64) -> Option<Watching> {
        let watching = self.streams.remove(&stream)?;
        for (&watch, Watch { watcher, .. }) in &watching.watches {
            if let Some(watcher) = watcher {
                self.unlist(watcher, Place { stream, watch });
            }
        }
        Some(watching)
    }

    /// Adds a watch to a stream, by the id that the client gave or, for zero, by one that is free.
    /// None if the id is taken.
    pub(crate) fn add(&mut self, stream: u64, id: i64, watcher: Watcher) -> Option<i64> {
        let watching = self.streams.get_mut(&stream)?;
        let id = match id {
            0 => watching.free_id(),
            id if watching.watches.contains_key(&id) => return None,
            id => id,
        };
        let place = Place { stream, watch: id };
        let keys = watcher.keys();
        if keys.is_single() {
            let places = self.by_key.entry(keys.start.clone()).or_default();
            places.insert(place);
        } else {
            self.by_range.insert(place);
        }
        let watch = Watch {
            watcher: Some(watcher),
            is_ready: true, // it may begin in the past
        };
        watching.watches.insert(id, watch);
        watching.ready.push_back(id);
        Some(id)
    }

    /// Removes a watch, and tells whether there was one.
    pub(crate) fn remove(&mut self, stream: u64, id: i64) -> bool {
        let Some(watching) = self.streams.get_mut(&stream) else {
            return false;
        };
        let Some(watch) = watching.watches.remove(&id) else {
            return false;
        };
        watching.ready.retain(|&ready| ready != id);
        if let Some(watcher) = watch.watcher {
            self.unlist(&watcher, Place { stream, watch: id });
        }
        true
    }

    /// Removes all watches of a stream.
    pub(crate) fn clear(&mut self, stream: u64) {
        let watches = self.streams.get(&stream).map(|it| &it.watches);
        let ids: Vec<_> = watches
            .into_iter()
            .flat_map(|it| it.keys().copied())
            .collect();
        for id in ids {
            self.remove(stream, id);
        }
    }

    /// The next changes of one of the stream's watches, or that they were compacted away. The
    /// watches take turns.
    pub(crate) fn next(
        &mut self,
        store: &Store,
        stream: u64,
    ) -> Option<(i64, Result<WatchBatch, Error>)> {
        let watching = self.streams.get_mut(&stream)?;
        while let Some(id) = watching.ready.pop_front() {
            let Some(watch) = watching.watches.get_mut(&id) else {
                continue;
            };
            watch.is_ready = false;
            let Some(watcher) = &mut watch.watcher else {
                continue;
            };
            match watcher.next(store) {
                Ok(Some(batch)) => {
                    watch.is_ready = true;
                    watching.ready.push_back(id);
                    return Some((id, Ok(batch)));
                }
                Ok(None) => {}
                Err(refusal) => {
                    if let Some(watcher) = watch.watcher.take() {
                        self.unlist(&watcher, Place { stream, watch: id });
                    }
                    return Some((id, Err(refusal)));
                }
            }
        }
        None
    }

    /// How many streams there are.
    pub(crate) fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// How many watches there are in all streams.
    pub(crate) fn watch_count(&self) -> usize {
        let counts = self.streams.values().map(|stream| stream.watches.len());
        counts.sum()
    }

    /// Whether a watch is there and has told all that there was to tell.
    pub(crate) fn is_up_to_date(&self, stream: u64, id: i64) -> bool {
        let watch = self
            .streams
            .get(&stream)
            .and_then(|watching| watching.watches.get(&id));
        watch.is_some_and(|watch| watch.watcher.is_some() && !watch.is_ready)
    }

    /// Whether a watch of the stream may have something to tell.
    pub(crate) fn is_ready(&self, stream: u64) -> bool {
        let watching = self.streams.get(&stream);
        watching.is_some_and(|watching| !watching.ready.is_empty())
    }

    /// Lets the next change wake `waker`. The former one is returned, to be dropped outside the lock.
    pub(crate) fn wait(&mut self, stream: u64, waker: Waker) -> Option<Waker> {
        match self.streams.get_mut(&stream) {
            Some(watching) => watching.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Tells the watches of what changed after a revision, and takes the wakers of their streams.
    pub(crate) fn tell(&mut self, store: &Store, before: Revision, wakers: &mut Vec<Waker>) {
        let Self {
            streams,
            by_key,
            by_range,
            ..
        } = self;
        let mut changed: Vec<&Key> = store.changed_since(before).collect();
        if changed.is_empty() {
            return;
        }
        // In order, so that no watch has to look at every key while everybody waits for the lock.
        changed.sort_unstable();
        changed.dedup();
        let concerns = |watcher: &Watcher| {
            let keys = watcher.keys();
            let first = changed.partition_point(|&key| *key < keys.start);
            changed.get(first).is_some_and(|key| keys.contains(key))
        };
        let of_keys = changed.iter().filter_map(|&key| by_key.get(key)).flatten();
        for place in of_keys.chain(by_range.iter()) {
            let Some(watching) = streams.get_mut(&place.stream) else {
                continue;
            };
            let Some(watch) = watching.watches.get_mut(&place.watch) else {
                continue;
            };
            if !watch.is_ready && watch.watcher.as_ref().is_some_and(concerns) {
                watch.is_ready = true;
                watching.ready.push_back(place.watch);
                wakers.extend(watching.waker.take());
            }
        }
    }

    /// Takes the wakers of all streams.
    pub(crate) fn wakers(&mut self) -> Vec<Waker> {
        let streams = self.streams.values_mut();
        streams
            .filter_map(|watching| watching.waker.take())
            .collect()
    }

    /// Lets every watch hold what a compaction might take from it.
    pub(crate) fn read_ahead(&mut self, store: &Store) {
        for watching in self.streams.values_mut() {
            for watch in watching.watches.values_mut() {
                if let Some(watcher) = &mut watch.watcher {
                    watcher.read_ahead(store);
                }
            }
        }
    }

    fn unlist(&mut self, watcher: &Watcher, place: Place) {
        let keys = watcher.keys();
        if !keys.is_single() {
            self.by_range.remove(&place);
        } else if let Some(places) = self.by_key.get_mut(&keys.start) {
            places.remove(&place);
            if places.is_empty() {
                self.by_key.remove(&keys.start);
            }
        }
    }
}

impl Watching {
    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use quorate_engine::{Delete, KeyRange, Op, Txn, WatchRequest};

    use super::*;

    #[test]
    fn a_large_deletion_holds_nobody_up_however_many_watch() {
        const KEYS: usize = 12_800;
        const WATCHES: usize = 4000;

        let mut store = Store::new(1, 1);
        for first in (0..KEYS).step_by(128) {
            let puts = (first..first + 128).map(|key| Op::put(format!("k{key:05}"), "v"));
            store
                .txn(&puts.fold(Txn::new(), Txn::then))
                .expect("plain puts");
        }
        let mut watches = Watches::default();
        let stream = watches.open();
        for watch in 0..WATCHES {
            // Every second one is concerned.
            let prefix = ["a", "k"][watch % 2];
            let request = WatchRequest::new(KeyRange::prefix(prefix));
            let (watcher, _) = Watcher::new(&store, request).expect("a range");
            watches.add(stream, 0, watcher).expect("a free id");
        }
        assert!(watches.next(&store, stream).is_none());

        let before = store.header().revision;
        let delete = Txn::new().then(Delete::new(KeyRange::all()));
        store.txn(&delete).expect("a plain deletion");
        let begun = Instant::now();
        watches.tell(&store, before, &mut Vec::new());
        let taken = begun.elapsed();
        let ready = watches.streams[&stream].ready.len();
        assert_eq!(ready, WATCHES / 2);
        assert!(taken < Duration::from_secs(1), "{taken:?}");
    }
}

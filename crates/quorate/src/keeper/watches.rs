//! How the keeper hears of changes: a watch for each of a few keys, one for many of a directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};

use crate::{
    Error, ErrorKind, Key, KeyRange, Revision, WatchBatch, WatchRequest,
    link::Link,
    watch::{Feed, Resume, Signal},
};

/// How many keys of one directory are watched one by one. The watch of a directory tells of every key
/// in it, whoever's it is.
const SINGLY: usize = 8;

/// How long one of a few keys stands before it is watched, so that a short-lived one never is. The watch begins
/// where the knowledge ends, so nothing is missed.
const SINGLE_DELAY: Duration = Duration::from_millis(100);

/// The watches of one keeper.
pub(super) struct Watches {
    link: Link,
    directories: BTreeMap<Key, Directory>,
    singles: BTreeMap<Key, AbortHandle>,
    feeds: FuturesUnordered<Abortable<BoxFuture<'static, Told>>>,
}

/// The keys of ours that have a prefix up to and with the last slash in common.
#[derive(Default)]
struct Directory {
    keys: BTreeSet<Key>,
    /// The watch of all of them.
    watch: Option<AbortHandle>,
    /// Whether that is refused, so that each is watched by itself.
    is_refused: bool,
}

/// What a feed told.
struct Told {
    scope: Scope,
    feed: Feed,
    signal: Result<Signal, Error>,
}

#[derive(Clone, Debug)]
enum Scope {
    Directory(Key),
    Single(Key),
}

/// What the keeper hears.
pub(super) enum News {
    Changes(WatchBatch),
    /// Changes of these keys may have been missed. They are watched no more.
    Missed(Vec<Key>),
    /// This key cannot be watched now.
    Refused(Key),
    /// The store is not the one that it was.
    Exchanged,
}

impl Watches {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            directories: BTreeMap::new(),
            singles: BTreeMap::new(),
            feeds: FuturesUnordered::new(),
        }
    }

    /// Takes note of a key, which is yet to be [watched](Self::watch).
    pub(super) fn add(&mut self, key: &Key) {
        if let Some(name) = directory(key) {
            let directory = self.directories.entry(name).or_default();
            directory.keys.insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(watch) = self.singles.remove(key) {
            watch.abort();
        }
        let Some(name) = directory(key) else {
            return;
        };
        let Some(directory) = self.directories.get_mut(&name) else {
            return;
        };
        directory.keys.remove(key);
        if directory.keys.is_empty() {
            if let Some(watch) = directory.watch.take() {
                watch.abort();
            }
            self.directories.remove(&name);
        }
    }

    /// When to watch a key that is known now; `None` if its directory is watched, which tells of it, too. One of
    /// many is watched at once: later it would cost more, since all would be told that was made meanwhile.
    pub(super) fn delay(&self, key: &Key) -> Option<Duration> {
        match directory(key).filter(|name| self.is_wide(name)) {
            None => Some(SINGLE_DELAY),
            Some(name) if self.is_watched(&name) => None,
            Some(_) => Some(Duration::ZERO),
        }
    }

    /// Watches the keys from the revisions at which they were known.
    pub(super) fn watch(&mut self, keys: &[(Key, Revision)]) {
        let mut wide: BTreeMap<Key, Revision> = BTreeMap::new();
        for (key, from) in keys {
            match directory(key).filter(|name| self.is_wide(name)) {
                None => self.watch_single(key, *from),
                Some(name) => {
                    let start = wide.entry(name).or_insert(*from);
                    *start = (*start).min(*from);
                }
            }
        }
        for (name, from) in wide {
            self.watch_directory(&name, from);
        }
    }

    /// The next news.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> News {
        loop {
            match self.feeds.next().await {
                None => std::future::pending().await,
                // The watch was ended.
                Some(Err(_)) => {}
                Some(Ok(told)) => {
                    if let Some(news) = self.take(told) {
                        return news;
                    }
                }
            }
        }
    }

    fn take(&mut self, told: Told) -> Option<News> {
        let Told {
            scope,
            feed,
            signal,
        } = told;
        match signal {
            Ok(signal) => {
                let handle = self.listen(scope.clone(), feed);
                match scope {
                    Scope::Single(key) => {
                        self.singles.insert(key, handle);
                    }
                    Scope::Directory(name) => {
                        if let Some(directory) = self.directories.get_mut(&name) {
                            directory.watch = Some(handle);
                        }
                    }
                }
                match signal {
                    Signal::Broken | Signal::Opened(_) => None,
                    Signal::Batch(batch) => Some(News::Changes(batch)),
                }
            }
            Err(error) if error.kind() == ErrorKind::ClusterChanged => Some(News::Exchanged),
            Err(error) => {
                if !error.is_history_lost() {
                    tracing::warn!(%error, ?scope, "ephemeral keys cannot be watched");
                    match &scope {
                        // A user may be let at single keys, and not at what lies between them.
                        Scope::Directory(name) => {
                            self.directories.get_mut(name)?.is_refused = true;
                        }
                        Scope::Single(key) => return Some(News::Refused(key.clone())),
                    }
                }
                Some(News::Missed(self.missed(scope)))
            }
        }
    }

    fn missed(&mut self, scope: Scope) -> Vec<Key> {
        match scope {
            Scope::Single(key) => {
                self.singles.remove(&key);
                vec![key]
            }
            Scope::Directory(name) => match self.directories.get_mut(&name) {
                None => Vec::new(),
                Some(directory) => {
                    directory.watch = None;
                    directory.keys.iter().cloned().collect()
                }
            },
        }
    }

    /// Whether all keys of a directory are watched together, once any of them is.
    fn is_wide(&self, name: &Key) -> bool {
        let directory = self.directories.get(name);
        directory
            .is_some_and(|one| !one.is_refused && (one.watch.is_some() || one.keys.len() > SINGLY))
    }

    fn is_watched(&self, name: &Key) -> bool {
        let directory = self.directories.get(name);
        directory.is_some_and(|one| one.watch.is_some())
    }

    fn watch_single(&mut self, key: &Key, from: Revision) {
        let request = WatchRequest::new(key).start(from);
        let feed = Feed::new(&self.link, request, Resume::Exactly);
        let handle = self.listen(Scope::Single(key.clone()), feed);
        if let Some(former) = self.singles.insert(key.clone(), handle) {
            former.abort();
        }
    }

    /// Watches a directory, unless it is: its watch then tells of the new keys too. Those that were
    /// watched one by one go on being so, which costs no more than it did.
    fn watch_directory(&mut self, name: &Key, from: Revision) {
        if self.is_watched(name) {
            return;
        }
        let request = WatchRequest::new(KeyRange::prefix(name.clone())).start(from);
        let feed = Feed::new(&self.link, request, Resume::Exactly);
        let handle = self.listen(Scope::Directory(name.clone()), feed);
        if let Some(directory) = self.directories.get_mut(name) {
            directory.watch = Some(handle);
        }
    }

    fn listen(&mut self, scope: Scope, mut feed: Feed) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        let told: BoxFuture<'static, Told> = Box::pin(async move {
            let signal = feed.next().await;
            Told {
                scope,
                feed,
                signal,
            }
        });
        self.feeds.push(Abortable::new(told, registration));
        handle
    }
}

/// The key up to and with its last slash.
fn directory(key: &Key) -> Option<Key> {
    let end = key.iter().rposition(|byte| *byte == b'/')?;
    Some(Key::new(key.clone().into_bytes().slice(..=end)))
}

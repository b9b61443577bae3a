//! The calls of the C library etcd-api, which was made for etcd's version 2, in its own terms: for the
//! interfaces that keep them.
//!
//! Keys are paths. Slashes at their beginning do not count, as there; a path of nothing else is the root,
//! which can be read and watched. Everything else is taken as it is.

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, TryStreamExt};

use crate::{
    Client, Compare, Error, ErrorKind, Event, Key, KeyRange, KeyValue, LeaseId, Observed, Observer,
    Put, Range, Result, Revision, Value,
};

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its new value; `None` if it was deleted.
    pub value: Option<Value>,
    /// The revision of the change. The changes of one transaction have the same.
    pub index: Revision,
}

/// The value of a key; or of a directory all values below it, a line each, in the order of their keys.
/// Both are looked for at one revision.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) if there is neither; otherwise as [`Client::get`].
pub async fn get(client: &Client, key: &[u8]) -> Result<Vec<u8>> {
    let path = path(key)?;
    let directory = Range::new(KeyRange::prefix(below(path)));
    let pages: Vec<_> = loop {
        let directory = match path {
            [] => directory.clone(),
            _ => {
                let found = client.range(path).await?;
                if let Some(kv) = found.kvs.first() {
                    return Ok(kv.value.to_vec());
                }
                directory.clone().revision(found.header.revision)
            }
        };
        match client.pages(directory).try_collect().await {
            // Its history was dropped just now: look again.
            Err(error) if error.kind() == ErrorKind::Compacted => {}
            pages => break pages?,
        }
    };
    let kvs = pages.iter().flat_map(|page| &page.kvs);
    let values: Vec<&[u8]> = kvs.map(|kv| &*kv.value).collect();
    if values.is_empty() {
        return Err(no_key(path));
    }
    Ok(values.join(&b'\n'))
}

/// Writes a key, if it has the value `precond`, should that be given; with `ttl` it vanishes after that.
///
/// The lease that the key lived by before is left to its time: it may be somebody's session.
///
/// # Errors
///
/// [`Conflict`](ErrorKind::Conflict) if it has another value or none; otherwise as [`Client::put`].
pub async fn set(
    client: &Client,
    key: &[u8],
    value: &[u8],
    precond: Option<&[u8]>,
    ttl: Option<Duration>,
) -> Result<()> {
    let path = name(key)?;
    let mut put = Put::new(path, value);
    if let Some(ttl) = ttl {
        put = put.lease(client.grant_lease(ttl).await?.id);
    }
    let granted = put.lease;
    let mut txn = client.txn().then(put);
    if let Some(precond) = precond {
        txn = txn.when(Compare::value(path).eq(precond));
    }
    let done = txn.commit().await;
    match done {
        Ok(answer) if answer.succeeded => Ok(()),
        Ok(_) => {
            revoke(client, granted).await;
            let message = format!("{}: its value is another", Key::from(path));
            Err(Error::new(ErrorKind::Conflict, message))
        }
        Err(error) => {
            // What may have been written lives by it.
            if !error.is_indefinite() {
                revoke(client, granted).await;
            }
            Err(error)
        }
    }
}

/// Deletes a key.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) if there is none; otherwise as [`Client::delete`].
pub async fn delete(client: &Client, key: &[u8]) -> Result<()> {
    let path = name(key)?;
    match client.delete(path).await? {
        0 => Err(no_key(path)),
        _ => Ok(()),
    }
}

/// The first client URL of the member that leads the cluster.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) while nobody leads; otherwise as [`Client::cluster_leader`].
pub async fn leader(client: &Client) -> Result<String> {
    let leader = client.cluster_leader().await?;
    let url = leader.and_then(|leader| leader.client_urls.into_iter().next());
    url.ok_or_else(|| Error::new(ErrorKind::NotFound, "no leader is known"))
}

/// Acquires the lock of a name for `ttl`, or with an index renews the hold that has it, and returns the
/// index.
///
/// # Errors
///
/// As [`Lock::acquire_detached`](crate::Lock::acquire_detached) and
/// [`Detached::renew`](crate::Detached::renew).
pub async fn lock(
    client: &Client,
    key: &[u8],
    ttl: Duration,
    index: Option<Revision>,
) -> Result<Revision> {
    let lock = client.lock(name(key)?);
    match index {
        None => Ok(lock.acquire_detached(ttl).await?.token()),
        Some(index) => {
            lock.find_detached(index).await?.renew(ttl).await?;
            Ok(index)
        }
    }
}

/// Releases the hold of a name that has this index.
///
/// # Errors
///
/// As [`Detached::release`](crate::Detached::release).
pub async fn unlock(client: &Client, key: &[u8], index: Revision) -> Result<()> {
    let hold = client.lock(name(key)?).find_detached(index).await?;
    hold.release().await
}

/// The changes of a key and of all that is below it, one after another, for ever.
#[derive(Debug)]
pub struct Changes {
    observer: Observer,
    path: Vec<u8>,
    /// Those of the revision that was read last which were not told yet.
    found: VecDeque<Change>,
    /// The index of the change that was told last.
    told: Revision,
    /// The first revision that was not read.
    next: Revision,
    /// Whether the next changes were asked for by their revision: nothing may be missing before them.
    exactly: bool,
}

impl Changes {
    /// Follows a path from a revision on, or from now.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]: this asks for the present revision, so that it fails if nobody answers.
    pub async fn open(client: &Client, pfx: &[u8], from: Option<Revision>) -> Result<Self> {
        let path = path(pfx)?;
        if from.is_some_and(|from| from < Revision::ZERO) {
            let message = "an index is not negative";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let keys = match path.ends_with(b"/") || path.is_empty() {
            true => KeyRange::prefix(path),
            // All that begins with the path and a slash, the path itself, and what lies between.
            false => KeyRange::between(path, [path, b"0"].concat()),
        };
        let probe = Range::new(keys.clone()).keys_only().limit(1);
        let now = client.range(probe).await?.header.revision;
        let from = from.filter(|from| *from > Revision::ZERO);
        let next = from.unwrap_or_else(|| now.next());
        Ok(Self {
            observer: client.observe(keys).from(next),
            path: path.to_vec(),
            found: VecDeque::new(),
            told: Revision::ZERO,
            next,
            exactly: from.is_some(),
        })
    }

    /// Goes on at `index`, if what was told last is before it, and tells whether it does. The changes of
    /// one transaction have one index, and nobody who asks for the next should miss the rest of them.
    pub fn go_on_at(&mut self, index: Revision) -> bool {
        let follows = self.told > Revision::ZERO && self.told.next() == index;
        self.exactly |= follows;
        follows
    }

    /// Whether a part of a revision has yet to be told.
    pub fn is_within(&self) -> bool {
        !self.found.is_empty()
    }

    /// Waits for the next change.
    ///
    /// Where history was lost on the way it goes on with the keys that were written since, unless these
    /// were asked for by their index; what was deleted is not told.
    ///
    /// # Errors
    ///
    /// [`Compacted`](ErrorKind::Compacted) if the index that was asked for is not kept any more;
    /// otherwise what the store refuses for good.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.found.pop_front() {
                self.told = change.index;
                return Ok(change);
            }
            let observed = match self.observer.next().await {
                Some(observed) => observed?,
                None => return Err(Error::new(ErrorKind::Closed, "the observer has ended")),
            };
            match observed {
                Observed::Changes(changes) => {
                    self.next = changes.revision().next();
                    for event in &changes {
                        self.find(event.clone());
                    }
                }
                Observed::Reset(_) if self.exactly => {
                    let message = format!("revision {} is compacted away", self.next);
                    return Err(Error::new(ErrorKind::Compacted, message));
                }
                Observed::Reset(mut all) => {
                    all.kvs.retain(|kv| kv.mod_revision >= self.next);
                    all.kvs.sort_by_key(|kv| kv.mod_revision);
                    self.next = self.next.max(all.revision.next());
                    for kv in all.kvs {
                        self.find(Event::Put { kv, prev: None });
                    }
                }
            }
            self.exactly = false;
        }
    }

    fn find(&mut self, event: Event) {
        let index = event.revision();
        let (key, value) = match event {
            Event::Put { kv, .. } => {
                let KeyValue { key, value, .. } = kv;
                (key, Some(value))
            }
            Event::Delete { key, .. } => (key, None),
        };
        if self.is_told(&key) {
            self.found.push_back(Change { key, value, index });
        }
    }

    /// Whether the key is the path or below it.
    fn is_told(&self, key: &[u8]) -> bool {
        let path = &*self.path;
        let is_root = path.is_empty() || path.ends_with(b"/");
        key.strip_prefix(path)
            .is_some_and(|rest| is_root || rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// A key without the slashes at its beginning; empty for the root.
fn path(key: &[u8]) -> Result<&[u8]> {
    if key.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "the key is empty"));
    }
    let slashes = key.iter().take_while(|byte| **byte == b'/').count();
    Ok(&key[slashes..])
}

/// A key that is not the root.
fn name(key: &[u8]) -> Result<&[u8]> {
    match path(key)? {
        [] => Err(Error::new(ErrorKind::InvalidArgument, "the root is no key")),
        path => Ok(path),
    }
}

/// What all keys in a directory begin with.
fn below(path: &[u8]) -> Vec<u8> {
    let mut prefix = path.to_vec();
    if !path.is_empty() && !path.ends_with(b"/") {
        prefix.push(b'/');
    }
    prefix
}

fn no_key(path: &[u8]) -> Error {
    let message = format!("there is no {}", Key::from(path));
    Error::new(ErrorKind::NotFound, message)
}

/// Best effort: a lease ends by itself.
async fn revoke(client: &Client, lease: Option<LeaseId>) {
    if let Some(lease) = lease {
        let _ = client.revoke_lease(lease).await;
    }
}

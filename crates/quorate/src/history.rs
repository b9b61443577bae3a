//! The former values of a key, as far as the store keeps them.

use crate::{
    Client, Error, ErrorKind, Event, Key, KeyRange, KeyValue, Result, Revision, Swap, watch::replay,
};

/// The versions of a key that the store keeps; see [`Client::config_history`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The versions, the newest first: what was put, and the deletions between.
    pub versions: Vec<Event>,
    /// Where the history stops, if some of it is compacted away: of this revision only the version
    /// that stood then is known, and of those before it nothing.
    pub compacted: Option<Revision>,
}

/// Former values of a key.
impl Client {
    /// Reads the versions of a key that the store keeps, up to the present one.
    ///
    /// They are read in one pass from the oldest revision on, because no other way shows what was before
    /// a deletion. Every one of them is held in memory.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]. [`Unavailable`](ErrorKind::Unavailable) if compactions come too fast to read
    /// between them.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Event};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let good = client.put("cfg/limit", "10").await?;
    /// client.put("cfg/limit", "oops").await?;
    /// let history = client.config_history("cfg/limit").await?;
    /// let Event::Put { kv, .. } = &history.versions[1] else { unreachable!() };
    /// assert_eq!((kv.mod_revision, kv.value.as_str()), (good, Some("10")));
    ///
    /// client.config_rollback("cfg/limit", good).await?;
    /// assert_eq!(client.get("cfg/limit").await?.expect("it exists").value, "10");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn config_history(&self, key: impl Into<Key>) -> Result<History> {
        /// How often a compaction may come between the steps.
        const ATTEMPTS: u32 = 5;

        let key = key.into();
        let mut oldest = FIRST;
        for _ in 0..ATTEMPTS {
            match self.history_from(&key, oldest).await {
                Err(error) if error.kind() == ErrorKind::Compacted => {
                    oldest = error.oldest_revision().unwrap_or(FIRST);
                }
                history => return history,
            }
        }
        let message = format!("the history of {key} is compacted faster than it can be read");
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// The history from `oldest` on, the oldest revision that is kept.
    async fn history_from(&self, key: &Key, oldest: Revision) -> Result<History> {
        let keys = KeyRange::key(key);
        let present = self.range(keys.clone()).await?;
        // Nothing comes after the last write of a key that is there; where there is none, a deletion
        // may still come.
        let last = match present.kvs.first() {
            Some(kv) => kv.mod_revision,
            None => present.header.revision,
        };
        let mut versions = Vec::new();
        if last > oldest {
            versions = replay(self.link(), keys, oldest, last).await?;
            versions.retain(|event| (oldest.next()..=last).contains(&event.revision()));
            versions.reverse();
        }
        let stood = self.get_at(key, oldest).await?;
        versions.extend(stood.map(|kv| Event::Put { kv, prev: None }));
        Ok(History {
            versions,
            compacted: (oldest > FIRST).then_some(oldest),
        })
    }

    /// Writes the value that a key had at `revision` again, as a new version, and returns the revision
    /// of the write. A key that was deleted since is made anew.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there was no such key then,
    /// [`Compacted`](ErrorKind::Compacted) if its value of then is kept no more,
    /// [`Conflict`](ErrorKind::Conflict) if it was written meanwhile; otherwise as [`Client::put`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the write may or may not happen.
    pub async fn config_rollback(
        &self,
        key: impl Into<Key>,
        revision: Revision,
    ) -> Result<Revision> {
        let key = key.into();
        if revision <= Revision::ZERO {
            let message = format!("there is no revision {revision} to go back to");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let present = self.get(&key).await?;
        let expected = present.map_or(Revision::ZERO, |kv| kv.mod_revision);
        let Some(then) = self.version_at(&key, revision).await? else {
            let message = format!("there was no key {key} at revision {revision}");
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        match self.put_if_revision(&key, expected, then.value).await? {
            Swap::Done(revision) => Ok(revision),
            Swap::Refused(_) => {
                let message = format!("{key} was written meanwhile: look at it and try again");
                Err(Error::new(ErrorKind::Conflict, message))
            }
        }
    }

    /// The key as it stood at `revision`, even where that is compacted away but what stood is not.
    async fn version_at(&self, key: &Key, revision: Revision) -> Result<Option<KeyValue>> {
        let error = match self.get_at(key, revision).await {
            Err(error) if error.kind() == ErrorKind::Compacted => error,
            found => return found,
        };
        let history = self.config_history(key).await?;
        match history.versions.into_iter().next_back() {
            Some(Event::Put { kv, .. }) if kv.mod_revision <= revision => Ok(Some(kv)),
            _ => Err(error.context(format!("the value of {key} at revision {revision}"))),
        }
    }
}

/// The first revision of a store.
const FIRST: Revision = Revision(1);

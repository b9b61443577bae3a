//! Keys that vanish by themselves, whoever lives.

use std::{fmt, time::Duration};

use crate::{Client, Error, ErrorKind, Key, LeaseId, Put, Result, Revision, Value, link::Link};

/// A key under a lease of its own that nobody keeps alive, from [`Client::put_with_ttl`].
///
/// It vanishes when its time is over, unless it is [refreshed](TtlKey::refresh) before. Dropping this
/// changes nothing: the key is left to its time. A key that lives as long as its owner is an
/// [ephemeral](Client::ephemeral) one.
#[derive(Clone)]
pub struct TtlKey {
    link: Link,
    key: Key,
    lease: LeaseId,
}

impl Client {
    /// Writes a key that vanishes after `ttl`, rounded up to whole seconds; the server may raise it.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the key may or may not be written; its lease ends after the time all
    /// the same.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// use std::time::Duration;
    ///
    /// let seen = client.put_with_ttl("seen/10.0.0.7", "now", Duration::from_secs(30)).await?;
    /// assert!(seen.refresh().await? >= Duration::from_secs(30)); // from now
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_with_ttl(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Result<TtlKey> {
        let key = key.into();
        let lease = self.grant_lease(ttl).await?.id;
        match self.put_with(Put::new(&key, value).lease(lease)).await {
            Ok(_) => Ok(TtlKey {
                link: self.link().clone(),
                key,
                lease,
            }),
            Err(error) => {
                if !error.is_indefinite() {
                    // Best effort: the lease ends by itself, and holds nothing.
                    let _ = self.revoke_lease(lease).await;
                }
                Err(error)
            }
        }
    }
}

impl TtlKey {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The lease by which it lives, and nothing else does.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Begins the key's time anew, and returns how long that is. It is one beat of its lease: the key
    /// is not written.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) once its time is over; otherwise as [`Client::put`].
    pub async fn refresh(&self) -> Result<Duration> {
        let what = format!("refresh of {}", self.key);
        let patience = self.link.settings().call_timeout;
        let ttl = self.link.beat(&what, self.lease, patience).await?;
        if ttl.is_zero() {
            let message = format!("{}: its time is over", self.key);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(ttl)
    }

    /// Writes another value, for what is left of the key's time, and returns the revision of the write.
    /// What somebody else has written since is overwritten, as by [`Client::put`].
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) once its time is over; otherwise as [`Client::put`].
    pub async fn set(&self, value: impl Into<Value>) -> Result<Revision> {
        let put = Put::new(&self.key, value).lease(self.lease);
        let answer = self.link.txn(crate::Txn::new().then(put)).await?;
        Ok(answer.header.revision)
    }

    /// Ends its time now. A key that somebody else has written since is not ours, and stays; one that
    /// is gone is no error.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]; it may be repeated after any of them.
    pub async fn delete(&self) -> Result<()> {
        match self.link.revoke(self.lease).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for TtlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TtlKey")
            .field("key", &self.key)
            .field("lease", &format_args!("{}", self.lease))
            .finish_non_exhaustive()
    }
}

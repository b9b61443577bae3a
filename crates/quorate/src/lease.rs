//! Leases by hand, and compaction; recipes use a [`Session`](crate::Session) instead.

use std::time::Duration;

use crate::{Client, Granted, LeaseId, LeaseStatus, Result, Revision};

impl Client {
    /// Grants a lease that lives for `ttl` from now, rounded up to whole seconds; the server may
    /// raise it. Nobody renews it: for a lease that is kept alive see [`Client::session_with_ttl`].
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn grant_lease(&self, ttl: Duration) -> Result<Granted> {
        let random = self.link().runtime().random();
        self.link()
            .grant(LeaseId(((random >> 1) as i64).max(1)), ttl)
            .await
    }

    /// Ends a lease, and deletes the keys that live by it.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such lease; otherwise as
    /// [`Client::put`].
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<Revision> {
        Ok(self.link().revoke(lease).await?.revision)
    }

    /// Tells what is left of a lease, and which keys live by it.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]. A lease that does not exist is not an error: nothing is left of it.
    pub async fn lease_status(&self, lease: LeaseId) -> Result<LeaseStatus> {
        self.link().lease_status(lease, true).await
    }

    /// Lists the leases that live in the whole store.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.link()
            .bounded("list of leases", false, self.backend().leases())
            .await
    }

    /// Drops the history before `revision`; what is current stays. With `physical` it returns only
    /// when the space is free.
    ///
    /// # Errors
    ///
    /// [`Compacted`](crate::ErrorKind::Compacted) if it is done already,
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a revision that is yet to come;
    /// otherwise as [`Client::put`].
    pub async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        self.link().compact(revision, physical).await?;
        Ok(())
    }
}

//! The keys that the last rendering used, and what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
};

use futures_util::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use quorate::{Client, Observed, Result, Revision};
use tokio::sync::oneshot;

use super::view::Dependency;

/// Observers of exactly the keys that are used.
pub(super) struct Followed<'a> {
    client: &'a Client,
    observers: SelectAll<BoxStream<'static, Result<Observed>>>,
    /// Dropping a sender ends its observer.
    open: BTreeMap<Dependency, oneshot::Sender<()>>,
}

impl<'a> Followed<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self {
            client,
            observers: SelectAll::new(),
            open: BTreeMap::new(),
        }
    }

    /// Follows these keys and no others. They were read at `revision`.
    pub(super) fn follow(&mut self, used: &BTreeSet<Dependency>, revision: Revision) {
        self.open.retain(|dependency, _| used.contains(dependency));
        for dependency in used {
            if !self.open.contains_key(dependency) {
                let (open, closed) = oneshot::channel();
                let observer = self.client.observe(dependency.keys());
                let observer = observer.from(revision.next());
                self.observers.push(observer.take_until(closed).boxed());
                self.open.insert(dependency.clone(), open);
            }
        }
    }

    /// Waits until one of the keys has changed after `revision`. It can be dropped and called again.
    ///
    /// # Errors
    ///
    /// What the store refuses for good.
    pub(super) async fn changed(&mut self, revision: Revision) -> Result<()> {
        while let Some(observed) = self.observers.next().await {
            match observed? {
                Observed::Changes(changes) if changes.revision() <= revision => {}
                // After a reset revisions may count from anew.
                Observed::Changes(_) | Observed::Reset(_) => return Ok(()),
            }
        }
        future::pending().await
    }
}

//! Requests that are kept in flight.

use std::sync::Arc;

use tokio::sync::watch;

/// A request that is kept in flight, or will be once it is made; from
/// [`Faults::hold_next`](super::Faults::hold_next).
///
/// The request outlives its caller: let through after the caller has given up it is a late write.
/// Dropping this without [letting it through](Held::let_through) loses the request: it never arrives.
#[derive(Debug)]
#[must_use = "dropping it loses the request"]
pub struct Held(Hold);

impl Held {
    pub(super) const fn new(hold: Hold) -> Self {
        Self(hold)
    }

    /// Waits until the request has been made and is held.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn arrived(&self) {
        self.0.wait(|progress| progress.arrived).await;
    }

    /// Lets the request go on to the store, now or when it comes.
    pub fn let_through(&self) {
        self.0.0.send_modify(|progress| progress.let_through = true);
    }

    /// Waits until the store has answered the request.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn applied(&self) {
        self.0.wait(|progress| progress.applied).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.send_modify(|progress| progress.dropped = true);
    }
}

/// The other side of a [`Held`], for the call that meets it.
#[derive(Clone, Debug)]
pub(super) struct Hold(Arc<watch::Sender<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    arrived: bool,
    let_through: bool,
    applied: bool,
    dropped: bool,
}

impl Hold {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Whether nobody is left to let the request through.
    pub(super) fn is_abandoned(&self) -> bool {
        let progress = self.0.borrow();
        progress.dropped && !progress.let_through
    }

    /// Stops the request here; false if it is lost.
    pub(super) async fn pass(&self) -> bool {
        self.0.send_modify(|progress| progress.arrived = true);
        self.wait(|progress| progress.let_through || progress.dropped)
            .await;
        !self.is_abandoned()
    }

    pub(super) fn applied(&self) {
        self.0.send_modify(|progress| progress.applied = true);
    }

    async fn wait(&self, condition: impl Fn(&Progress) -> bool) {
        let mut progress = self.0.subscribe();
        progress
            .wait_for(condition)
            .await
            .expect("the sender is part of self");
    }
}

//! A leased key that we own, as its owner has it; [`owner`](crate::owner) is its task.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock, Weak},
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, future};
use tokio::sync::{oneshot, watch};

use crate::{
    Compare, Error, Key, Loss, Moment, Result, Revision, Session, SessionState, link::Link,
    session::closed,
};

/// A leased key that we own. Dropping it deletes the key, best effort.
pub(crate) struct Claim {
    hold: Arc<Hold>,
    /// What its task should do; dropped, to delete the key.
    wish: watch::Sender<Wish>,
    /// What became of the key.
    outcome: oneshot::Receiver<Result<()>>,
}

/// What the claim and its task both know.
pub(crate) struct Hold {
    pub(crate) session: Session,
    pub(crate) key: Key,
    pub(crate) token: Revision,
    loss: watch::Sender<Option<Loss>>,
    limit: OnceLock<Moment>,
}

/// What a claim's owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Keep,
    KeepUntil(Moment),
    /// Leave the key where it is.
    Leave,
    Release,
}

/// Tells whether a claim is held, without keeping it.
#[derive(Clone)]
pub(crate) struct Holding(Weak<Hold>);

impl Holding {
    pub(crate) fn is_held(&self) -> bool {
        self.0.upgrade().is_some_and(|hold| hold.look().is_none())
    }
}

impl Claim {
    pub(crate) fn new(
        hold: Arc<Hold>,
        wish: watch::Sender<Wish>,
        outcome: oneshot::Receiver<Result<()>>,
    ) -> Self {
        Self {
            hold,
            wish,
            outcome,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.hold.key
    }

    /// The create revision of the key.
    pub(crate) fn token(&self) -> Revision {
        self.hold.token
    }

    pub(crate) fn session(&self) -> &Session {
        &self.hold.session
    }

    /// Holds only while our incarnation of the key stands.
    pub(crate) fn fence(&self) -> Compare {
        Compare::create_revision(&self.hold.key).eq(self.hold.token)
    }

    pub(crate) fn holding(&self) -> Holding {
        Holding(Arc::downgrade(&self.hold))
    }

    /// How the claim was lost, by what was seen and by the clock.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.hold.look()
    }

    /// Completes when the claim is lost. The future does not keep the claim or its session.
    pub(crate) fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        let mut seen = self.hold.loss.subscribe();
        let session = self.hold.session.lost();
        let limit: BoxFuture<'static, ()> = match self.hold.limit.get() {
            Some(limit) => self.hold.session.runtime().sleep_until(*limit),
            None => future::pending().boxed(),
        };
        let lost: BoxFuture<'static, Loss> = Box::pin(async move {
            tokio::select! {
                biased;
                loss = seen.wait_for(Option::is_some) => {
                    // The sender goes with the claim and its task.
                    loss.map_or(Loss::Released, |loss| loss.unwrap_or(Loss::Released))
                }
                loss = session => loss,
                () = limit => Loss::HoldLimit,
            }
        });
        lost.shared()
    }

    /// Ends the hold at `limit`. Called once, before anybody asks for the loss.
    pub(crate) fn limit(&self, limit: Moment) {
        if self.hold.limit.set(limit).is_ok() {
            self.wish.send_replace(Wish::KeepUntil(limit));
        }
    }

    /// Takes note that the key is not ours any more, as the caller has read.
    pub(crate) fn lose(&self, loss: Loss) {
        self.hold.lose(loss);
    }

    /// An error if the claim is lost.
    pub(crate) fn check(&self) -> Result<()> {
        match self.loss() {
            None => Ok(()),
            Some(loss) => Err(Error::lost(loss, &self.hold.key)),
        }
    }

    /// Ends the claim, and leaves the key to its lease.
    pub(crate) fn leave(self) {
        self.wish.send_replace(Wish::Leave);
    }

    /// Deletes the key and waits until that is confirmed. The hold ends first. If the future is
    /// dropped the key is deleted all the same.
    pub(crate) async fn release(mut self, link: &Link) -> Result<()> {
        if let Some(loss) = self.loss() {
            return Err(Error::lost(loss, &self.hold.key));
        }
        self.hold.lose(Loss::Released);
        self.wish.send_replace(Wish::Release);
        let what = format!("release of {}", self.hold.key);
        let outcome = async { (&mut self.outcome).await.unwrap_or_else(|_| Err(closed())) };
        link.bounded(&what, true, outcome).await
    }
}

impl Drop for Claim {
    /// The hold ends at once; the task deletes the key when it sees that the wish is gone.
    fn drop(&mut self) {
        self.hold.lose(Loss::Released);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("key", &self.hold.key)
            .field("token", &self.hold.token)
            .field("loss", &self.loss())
            .finish()
    }
}

impl Hold {
    pub(crate) fn new(session: Session, key: Key, token: Revision) -> Self {
        let loss = watch::Sender::new(None);
        Self {
            session,
            key,
            token,
            loss,
            limit: OnceLock::new(),
        }
    }

    /// Latches the first loss.
    pub(crate) fn lose(&self, loss: Loss) {
        self.loss.send_if_modified(|seen| {
            let first = seen.is_none();
            seen.get_or_insert(loss);
            first
        });
    }

    /// The loss, by what was seen and by the clock.
    fn look(&self) -> Option<Loss> {
        let now = self.session.runtime().now();
        if let SessionState::Lost(loss) = self.session.look(now) {
            self.lose(loss);
        } else if self.limit.get().is_some_and(|limit| now >= *limit) {
            self.lose(Loss::HoldLimit);
        }
        *self.loss.borrow()
    }
}

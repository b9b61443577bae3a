//! Makes, watches and deletes the key of a claim, in a task of its own: so no caller who goes away
//! leaves anything behind. Until the key is made the caller runs that task itself.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, future};
use tokio::sync::{oneshot, watch};

use crate::{
    Compare, Error, ErrorKind, Event, Key, Loss, Moment, Op, OpResult, Range, Result, Revision,
    Session, SessionState, Txn, TxnResult, WatchRequest,
    claim::{Claim, Hold, Wish},
    link::Link,
    mutant::{Mutant, planted},
    retry::Backoff,
    session::closed,
    watch::{Feed, Resume, Signal},
};

/// How long a claim stands before its key is watched. Most are released sooner; the watch begins at
/// the key's own revision, so nothing is missed.
const UNWATCHED: Duration = Duration::from_millis(100);

/// How a key is to be made.
pub(crate) struct Creation {
    pub(crate) link: Link,
    pub(crate) session: Session,
    /// A key that nobody else makes: what stands there under our lease is ours.
    pub(crate) key: Key,
    /// Puts the key in its first operation if it succeeds, and reads the key in its first operation
    /// if it does not.
    pub(crate) txn: Txn,
    /// When to stop asking; otherwise the end of the session is the end of it.
    pub(crate) give_up: Option<Moment>,
}

/// What became of a [`Creation`].
pub(crate) enum Created {
    /// The key is ours.
    Made {
        claim: Claim,
        /// The answer of the transaction that made it; `None` if that answer was lost.
        answer: Option<TxnResult>,
    },
    /// The transaction did not succeed, and the key is not there.
    Refused(TxnResult),
}

/// What is to be done about a key that is not kept any longer.
enum Parting {
    Delete,
    Leave,
}

impl Creation {
    /// Makes the key. If the future is dropped the key is deleted again, whether or not its making
    /// was known to have succeeded.
    pub(crate) async fn run(self) -> Result<Created> {
        let (wish, wishes) = watch::channel(Wish::Keep);
        let (tell, outcome) = oneshot::channel();
        let runtime = Arc::clone(self.link.runtime());
        let trace = Trace {
            link: self.link.clone(),
            session: self.session.clone(),
            key: self.key.clone(),
        };
        let owner = Owner {
            creation: self,
            wishes,
            ambiguous: false,
        };
        let making = Making {
            owner: Some(owner.make().boxed()),
            tell: Some(tell),
            trace: Some(trace),
        };
        let (owner, made, tell) = making.await;
        let (hold, created) = match made {
            Ok(Made::Held { hold, answer }) => {
                let claim = Claim::new(Arc::clone(&hold), wish, outcome);
                (Some(hold), Ok(Created::Made { claim, answer }))
            }
            Ok(Made::Refused(answer)) => (None, Ok(Created::Refused(answer))),
            Err(error) => (None, Err(error)),
        };
        if hold.is_some() || owner.ambiguous {
            runtime.spawn(owner.stay(hold, tell).boxed());
        }
        created
    }
}

/// The making of a key, which the caller runs itself, since it has to wait for it anyway: to wake another
/// task for an answer takes about as long as the answer. If the caller goes away it goes on as a task.
struct Making {
    owner: Option<BoxFuture<'static, (Owner, Result<Made>)>>,
    tell: Option<oneshot::Sender<Result<()>>>,
    trace: Option<Trace>,
}

/// What it takes to find a key that may be there.
struct Trace {
    link: Link,
    session: Session,
    key: Key,
}

impl Future for Making {
    type Output = (Owner, Result<Made>, oneshot::Sender<Result<()>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(making) = &mut self.owner else {
            return Poll::Pending;
        };
        let (owner, made) = ready!(making.poll_unpin(context));
        self.owner = None;
        let tell = self.tell.take().expect("it is taken once, with the owner");
        Poll::Ready((owner, made, tell))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let (Some(making), Some(tell), Some(trace)) =
            (self.owner.take(), self.tell.take(), self.trace.take())
        else {
            return;
        };
        let session = trace.session.clone();
        let task = async move {
            match AssertUnwindSafe(making).catch_unwind().await {
                Ok((owner, made)) => {
                    // It would keep the session, for whose end the owner may have to wait.
                    drop(trace);
                    let hold = match made {
                        Ok(Made::Held { hold, .. }) => Some(hold),
                        Ok(Made::Refused(_)) | Err(_) => None,
                    };
                    owner.stay(hold, tell).await;
                }
                // Its timers are of a runtime that has ended meanwhile.
                Err(_) => linger(trace).await,
            }
        };
        session.adopt(task.boxed());
    }
}

/// Who owns the key, from before it is made until after it is gone.
struct Owner {
    creation: Creation,
    wishes: watch::Receiver<Wish>,
    /// Whether an attempt to make the key has no answer: it may still be on its way.
    ambiguous: bool,
}

/// What became of the making.
enum Made {
    Held {
        hold: Arc<Hold>,
        /// The answer of the transaction that made it; `None` if that answer was lost.
        answer: Option<TxnResult>,
    },
    Refused(TxnResult),
}

impl Owner {
    /// Keeps the key, if there is one, and deletes it when that is wished.
    async fn stay(mut self, hold: Option<Arc<Hold>>, outcome: oneshot::Sender<Result<()>>) {
        if let Some(hold) = hold {
            let result = match self.keep(&hold).await {
                Ok(Parting::Delete) => self.delete(&hold).await,
                Ok(Parting::Leave) => {
                    // An attempt that is on its way finds the key there. If it comes after the end of
                    // the key, what it makes ends with the lease.
                    self.ambiguous = false;
                    Ok(())
                }
                Err(loss) => Err(Error::lost(loss, &hold.key)),
            };
            // If nobody waits for it, nobody is told.
            let _ = outcome.send(result);
        }
        if self.ambiguous {
            let Creation {
                link, session, key, ..
            } = self.creation;
            linger(Trace { link, session, key }).await;
        }
    }

    async fn make(mut self) -> (Self, Result<Made>) {
        let made = self.create().await;
        (self, made)
    }

    /// Makes the key, or fails if nobody waits for it any more.
    async fn create(&mut self) -> Result<Made> {
        let mut backoff = Backoff::new(self.creation.link.runtime());
        loop {
            let session = &self.creation.session;
            if let SessionState::Lost(loss) = session.state() {
                // What may still come is revoked with the lease.
                self.ambiguous = false;
                return Err(Error::lost(loss, &self.creation.key));
            }
            if self.wishes.has_changed().is_err() {
                return Err(closed());
            }
            let attempt = tokio::select! {
                biased;
                answer = self.creation.link.txn(self.creation.txn.clone()) => answer,
                _ = session.lost_by_signal() => continue,
            };
            match attempt {
                Ok(answer) if answer.succeeded => {
                    return Ok(Made::Held {
                        hold: self.hold(answer.header.revision),
                        answer: Some(answer),
                    });
                }
                Ok(answer) => {
                    return Ok(match self.find_own(&answer) {
                        Some(token) => Made::Held {
                            hold: self.hold(token),
                            answer: None,
                        },
                        None => Made::Refused(answer),
                    });
                }
                Err(error) => {
                    self.ambiguous |= error.is_indefinite();
                    if error.kind() == ErrorKind::NotFound {
                        // The put named a lease that the server knows no more.
                        self.creation.session.revoked();
                        continue;
                    }
                    let now = self.creation.link.runtime().now();
                    let over = self.creation.give_up.is_some_and(|give_up| now >= give_up);
                    if over || !error.is_retryable() {
                        return Err(error);
                    }
                    tracing::debug!(%error, key = %self.creation.key, "claim not made yet");
                }
            }
            tokio::select! {
                biased;
                () = backoff.pause() => {}
                _ = self.creation.session.lost_by_signal() => {}
            }
        }
    }

    /// The create revision of our key, if an attempt made it whose answer was lost.
    fn find_own(&self, answer: &TxnResult) -> Option<Revision> {
        let Some(OpResult::Range(range)) = answer.results.first() else {
            return None;
        };
        let own = range.kvs.first()?;
        let ours = own.key == self.creation.key && own.lease == Some(self.creation.session.lease());
        ours.then_some(own.create_revision)
    }

    fn hold(&self, token: Revision) -> Arc<Hold> {
        let Creation { session, key, .. } = &self.creation;
        Arc::new(Hold::new(session.clone(), key.clone(), token))
    }

    /// Keeps the key for as long as that is wished. An error if it was lost: then there is nothing to
    /// part with.
    async fn keep(&mut self, hold: &Hold) -> Result<Parting, Loss> {
        let session = hold.session.clone();
        let lost = session.lost_by_signal();
        let gone = watch_own(&self.creation.link, hold);
        tokio::pin!(lost, gone);
        loop {
            let wish = *self.wishes.borrow_and_update();
            let limit = match wish {
                Wish::Keep => future::pending().boxed(),
                Wish::KeepUntil(limit) => self.creation.link.runtime().sleep_until(limit),
                Wish::Leave => return Ok(Parting::Leave),
                Wish::Release => return Ok(Parting::Delete),
            };
            tokio::select! {
                biased;
                changed = self.wishes.changed() => {
                    if changed.is_err() && planted(Mutant::OrphanOnCancel) {
                        return Ok(Parting::Leave);
                    }
                    if changed.is_err() {
                        return Ok(Parting::Delete);
                    }
                }
                loss = &mut lost => {
                    hold.lose(loss);
                    return Err(loss);
                }
                loss = &mut gone => {
                    hold.lose(loss);
                    return Err(loss);
                }
                () = limit => {
                    hold.lose(Loss::HoldLimit);
                    return Ok(Parting::Delete);
                }
            }
        }
    }

    /// Deletes our incarnation of the key, until that is confirmed or the session is over.
    async fn delete(&self, hold: &Hold) -> Result<()> {
        let fence = Compare::create_revision(&hold.key).eq(hold.token);
        let txn = Txn::new().when(fence).then(Op::delete(&hold.key));
        let mut backoff = Backoff::new(self.creation.link.runtime());
        let mut maybe_done = false;
        loop {
            match self.creation.link.txn(txn.clone()).await {
                Ok(answer) if answer.succeeded || maybe_done => return Ok(()),
                Ok(_) => return Err(Error::lost(Loss::Deleted, &hold.key)),
                Err(error) => {
                    maybe_done |= error.is_indefinite();
                    if !is_to_repeat(&error) {
                        return Err(error);
                    }
                }
            }
            if let SessionState::Lost(loss) = hold.session.state() {
                return Err(Error::lost(loss, &hold.key));
            }
            backoff.pause().await;
        }
    }
}

/// Deletes the key whenever it comes back: an attempt to make it that never got an answer may be
/// applied at any later time. Ends with the session, for whose lease such an attempt asks, and keeps
/// neither the session nor the client from being dropped.
async fn linger(trace: Trace) {
    let link = trace.link.detached();
    let session = trace.session.downgrade();
    let key = trace.key.clone();
    drop(trace);
    let request = WatchRequest::new(&key).puts_only();
    let mut feed = Feed::new(&link, request, Resume::FromNow);
    let delete = Txn::new().then(Op::delete(&key));
    let mut backoff = Backoff::new(link.runtime());
    let sweep = async {
        // Whatever the signal is, a new stream or the key itself: look, and delete.
        while let Ok(signal) = feed.next().await {
            if let Signal::Broken = signal {
                continue;
            }
            while link
                .txn(delete.clone())
                .await
                .is_err_and(|error| is_to_repeat(&error))
            {
                backoff.pause().await;
            }
            backoff.reset();
        }
    };
    tokio::select! {
        biased;
        _ = session.lost_by_signal() => {}
        () = sweep => {}
    }
}

/// Whether a deletion of our key that ended so is asked for again, which is harmless: it is no one
/// else's. In another cluster it might be.
fn is_to_repeat(error: &Error) -> bool {
    let is_unclear = error.is_indefinite() && error.kind() != ErrorKind::ClusterChanged;
    error.is_retryable() || is_unclear
}

/// Completes when the key is seen deleted or replaced.
async fn watch_own(link: &Link, hold: &Hold) -> Loss {
    if planted(Mutant::OwnKeyUnwatched) {
        return future::pending().await;
    }
    let runtime = link.runtime();
    runtime.sleep_until(runtime.now() + UNWATCHED).await;
    let mut from = hold.token.next();
    loop {
        let request = WatchRequest::new(&hold.key).start(from).deletes_only();
        let mut feed = Feed::new(link, request, Resume::Exactly);
        loop {
            match feed.next().await {
                Ok(Signal::Broken | Signal::Opened(_)) => {}
                Ok(Signal::Batch(batch)) => {
                    if batch
                        .events
                        .iter()
                        .any(|event| matches!(event, Event::Delete { .. }))
                    {
                        return Loss::Deleted;
                    }
                }
                Err(error) if error.is_history_lost() => break,
                Err(error) => {
                    tracing::warn!(%error, key = %hold.key, "the key of a claim cannot be watched");
                    return future::pending().await;
                }
            }
        }
        // What happened meanwhile is compacted away: the present tells as well.
        match read_own(link, hold).await {
            Ok(seen) => from = seen.next(),
            Err(loss) => return loss,
        }
    }
}

/// The revision at which our incarnation of the key was seen to stand, or that it is lost.
async fn read_own(link: &Link, hold: &Hold) -> Result<Revision, Loss> {
    let mut backoff = Backoff::new(link.runtime());
    loop {
        match link.range(Range::new(&hold.key).keys_only()).await {
            Ok(range) => match range.kvs.first() {
                Some(kv) if kv.create_revision == hold.token => return Ok(range.header.revision),
                Some(_) => return Err(Loss::Replaced),
                None => return Err(Loss::Deleted),
            },
            Err(_) => backoff.pause().await,
        }
    }
}

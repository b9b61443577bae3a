//! Holds of a lock that nobody keeps alive, for processes that come and go.

use std::{fmt, pin::pin, time::Duration};

use futures_util::future::{Either, select};

use crate::{
    Compare, Delete, Error, ErrorKind, Key, KeyValue, LeaseId, Moment, Op, OpResult, Put, Result,
    Revision, Session, Txn, TxnResult, claim::Claim, holder::Holder, link::Link, queue::Queue,
    retry::Backoff, session::deadline,
};

/// A lock that is held for a time, and by no process: from
/// [`Lock::acquire_detached`](crate::Lock::acquire_detached).
///
/// Whoever knows its [`token`](Detached::token) can renew and release it, in any process. It stands in
/// the same queue as every other hold of the lock, under a lease of its own. Dropping this changes
/// nothing: the hold is left to its time.
///
/// Nothing tells of its loss. It may be relied on for what [remains](Detached::remaining) of its time; to
/// write when in doubt, write under its [`fence`](Detached::fence).
#[derive(Clone)]
#[must_use = "the lock is held until its time is over"]
pub struct Detached {
    queue: Queue,
    key: Key,
    token: Revision,
    /// Until when it may be relied on; that is not known before it was acquired or renewed here.
    deadline: Option<Moment>,
}

impl Detached {
    /// Acquires under a session of its own, and leaves that to its time.
    pub(crate) async fn acquire(queue: &Queue, ttl: Duration, mut holder: Holder) -> Result<Self> {
        holder.detached = true;
        let session = queue.link().session(Some(whole_seconds(ttl)?)).await?;
        let key = queue.new_key(&session);
        let claim = queue.acquire(&session, key, holder.to_value()).await?;
        beat_last(queue.link(), &session, &claim).await?;
        // Nothing is awaited from here on: either both are left or neither.
        session
            .leave()
            .map_err(|loss| Error::lost(loss, claim.key()))?;
        let hold = Self {
            queue: queue.clone(),
            key: claim.key().clone(),
            token: claim.token(),
            deadline: Some(session.deadline()),
        };
        claim.leave();
        Ok(hold)
    }

    pub(crate) async fn find(queue: &Queue, token: Revision) -> Result<Self> {
        let hold = find(queue, token).await?;
        Ok(Self {
            queue: queue.clone(),
            key: hold.key,
            token,
            deadline: None,
        })
    }

    /// The key that stands for this hold.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The fencing token: the create revision of this hold's key, as
    /// [`LockGuard::token`](crate::LockGuard::token). It stays the same when the hold is renewed.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// A condition for transactions that holds only while this hold's key stands.
    pub fn fence(&self) -> Compare {
        Compare::create_revision(&self.key).eq(self.token)
    }

    /// For how long the hold may be relied on, as far as is known here: counted from when it was last
    /// acquired or renewed by this value, less what two clocks may drift apart. Zero for one that was
    /// only found, and when its time is over.
    ///
    /// It does not tell whether somebody released the hold meanwhile.
    pub fn remaining(&self) -> Duration {
        let now = self.queue.link().runtime().now();
        self.deadline
            .map_or(Duration::ZERO, |deadline| deadline.since(now))
    }

    /// Begins the hold's time anew: it ends `ttl` from now, rounded up to whole seconds, unless it is
    /// renewed again. The server may raise that. The last renewal counts, whoever sends it, even if it
    /// makes the time shorter.
    ///
    /// It is a beat of the hold's lease, if that has this time to live, and a write that changes nothing;
    /// else the hold moves to another lease.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if the hold is gone; nothing brings it back.
    /// [`Conflict`](ErrorKind::Conflict) if others kept renewing it meanwhile. Otherwise as
    /// [`Client::put`](crate::Client::put): it may be repeated after any of those.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the hold may or may not be renewed; a lease that it left behind ends by
    /// itself.
    pub async fn renew(&mut self, ttl: Duration) -> Result<()> {
        let ttl = whole_seconds(ttl)?;
        let link = self.queue.link().clone();
        let give_up = link.runtime().now() + link.settings().call_timeout;
        let mut backoff = Backoff::new(link.runtime());
        // Whatever becomes of this, it may have made the time shorter.
        let shortest = deadline(link.settings(), link.runtime().now(), ttl);
        self.deadline = self.deadline.map(|known| known.min(shortest));
        loop {
            let held = find(&self.queue, self.token).await?;
            let mut renewed = self.beat(&held, ttl).await?;
            if renewed.is_none() {
                renewed = self.exchange(&held, ttl).await?;
            }
            if let Some(renewed) = renewed {
                self.deadline = Some(renewed);
                if self.remaining().is_zero() {
                    let message =
                        format!("renewal of {}: confirmed too late to rely on it", self.key);
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
                return Ok(());
            }
            if link.runtime().now() >= give_up {
                let message = format!("renewal of {}: others renew it as well", self.key);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            backoff.pause().await;
        }
    }

    /// Releases the lock, and waits until that is confirmed. Only this hold's own key is deleted.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if the hold is gone: what was done under it may have overlapped with
    /// somebody else. Otherwise as [`Client::put`](crate::Client::put): it may be repeated after any of
    /// those.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the lock may or may not be released.
    #[doc(alias = "unlock")]
    pub async fn release(&self) -> Result<()> {
        let delete = Delete::new(&self.key).prev_kv();
        let txn = Txn::new().when(self.fence()).then(delete);
        let (answer, maybe_done) = self.apply(txn).await?;
        if !answer.succeeded && !maybe_done {
            return Err(gone(&self.queue, self.token));
        }
        if let Some(OpResult::Delete { prevs, .. }) = answer.results.into_iter().next() {
            self.abandon(prevs.into_iter().find_map(|kv| kv.lease))
                .await;
        }
        Ok(())
    }

    /// Renews the lease that the hold lives by, if it has this time to live; `None` if not, or if the hold
    /// was changed meanwhile.
    async fn beat(&self, held: &KeyValue, ttl: Duration) -> Result<Option<Moment>> {
        let link = self.queue.link();
        let Some(lease) = held.lease else {
            return Ok(None);
        };
        let sent = link.runtime().now();
        let what = format!("renewal of {}", self.key);
        let patience = link.settings().call_timeout;
        if link.beat(&what, lease, patience).await? != ttl {
            return Ok(None);
        }
        let same = Put::new(&self.key, "").ignore_value().ignore_lease();
        let renewed = self.write(held, same, lease).await?;
        Ok(renewed.then(|| deadline(link.settings(), sent, ttl)))
    }

    /// Moves the hold to a new lease; `None` if it was changed meanwhile.
    async fn exchange(&self, held: &KeyValue, ttl: Duration) -> Result<Option<Moment>> {
        let link = self.queue.link();
        let random = link.runtime().random();
        let id = LeaseId(((random >> 1) as i64).max(1));
        let sent = link.runtime().now();
        let granted = link.grant(id, ttl).await?;
        let put = Put::new(&self.key, "").ignore_value().lease(granted.id);
        let moved = self.write(held, put, granted.id).await;
        match &moved {
            Ok(true) => self.abandon(held.lease).await,
            // The new lease ended on the way: whether the hold did with it, the next look tells.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // If it may have moved it lives by this lease.
            Err(error) if error.is_indefinite() => {}
            Ok(false) | Err(_) => self.abandon(Some(granted.id)).await,
        }
        Ok(moved?.then(|| deadline(link.settings(), sent, granted.ttl)))
    }

    /// Writes our key, if it is as it was `held`, and tells whether it lives by `lease` then.
    ///
    /// Every renewal writes the key, and none overwrites what it has not seen: so one that arrives late
    /// cannot take the hold back to a lease that ends sooner than a later one promised.
    async fn write(&self, held: &KeyValue, put: Put, lease: LeaseId) -> Result<bool> {
        let unchanged = Compare::mod_revision(&self.key).eq(held.mod_revision);
        let txn = Txn::new()
            .when(self.fence())
            .when(unchanged)
            .then(put)
            .or_else(Op::range(&self.key));
        let (answer, _) = self.apply(txn).await?;
        if answer.succeeded {
            return Ok(true);
        }
        match answer.results.into_iter().next() {
            Some(OpResult::Range(range)) => match range.kvs.first() {
                Some(kv) if kv.create_revision == self.token => Ok(kv.lease == Some(lease)),
                _ => Err(gone(&self.queue, self.token)),
            },
            _ => Err(Error::new(
                ErrorKind::Internal,
                "the answer to a read is of another kind",
            )),
        }
    }

    /// Applies a write that may be repeated, and tells whether an earlier attempt may have been applied.
    async fn apply(&self, txn: Txn) -> Result<(TxnResult, bool)> {
        let link = self.queue.link();
        let give_up = link.runtime().now() + link.settings().call_timeout;
        let mut backoff = Backoff::new(link.runtime());
        let mut maybe_done = false;
        loop {
            match link.txn(txn.clone()).await {
                Ok(answer) => return Ok((answer, maybe_done)),
                Err(error) => {
                    maybe_done |= error.is_indefinite();
                    if !error.is_retryable() || link.runtime().now() >= give_up {
                        return Err(if maybe_done {
                            error.indefinite()
                        } else {
                            error
                        });
                    }
                }
            }
            backoff.pause().await;
        }
    }

    /// Ends a lease that the hold does not live by. Best effort: it ends by itself.
    async fn abandon(&self, lease: Option<LeaseId>) {
        if let Some(lease) = lease {
            let _ = self.queue.link().revoke(lease).await;
        }
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("key", &self.key)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The present state of the hold that has this token.
async fn find(queue: &Queue, token: Revision) -> Result<KeyValue> {
    let Some(held) = queue.holder(token).await? else {
        return Err(gone(queue, token));
    };
    if !Holder::from_value(&held.value).is_some_and(|holder| holder.detached) {
        let name = queue.name();
        let message = format!("{name}: token {token} is of a hold that its process keeps");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(held)
}

fn gone(queue: &Queue, token: Revision) -> Error {
    let name = queue.name();
    let message =
        format!("nobody holds {name} by token {token}: it was released, or its time is over");
    Error::new(ErrorKind::Lost, message)
}

/// Begins the time of a claim anew, a last time, as long as its session lives.
async fn beat_last(link: &Link, session: &Session, claim: &Claim) -> Result<()> {
    let mut backoff = Backoff::new(link.runtime());
    let what = format!("acquisition of {}", claim.key());
    let lost = claim.lost();
    loop {
        let sent = link.runtime().now();
        // As long as there are other ways to try.
        let patience = link.settings().call_timeout.min(session.ttl() / 4);
        let beat = link.beat(&what, session.lease(), patience);
        match select(lost.clone(), pin!(beat)).await {
            Either::Left((loss, _)) => return Err(Error::lost(loss, claim.key())),
            Either::Right((Ok(ttl), _)) if ttl.is_zero() => session.expired(),
            Either::Right((Ok(ttl), _)) => session.confirm(sent, ttl),
            Either::Right((Err(error), _)) if error.is_retryable() => {
                tracing::debug!(%error, "last beat not confirmed");
                select(lost.clone(), pin!(backoff.pause())).await;
                continue;
            }
            Either::Right((Err(error), _)) => return Err(error),
        }
        return claim.check();
    }
}

/// As servers count; at least one.
fn whole_seconds(ttl: Duration) -> Result<Duration> {
    let more = u64::from(ttl.subsec_nanos() > 0);
    match ttl.as_secs().saturating_add(more) {
        0 => Err(Error::new(
            ErrorKind::InvalidArgument,
            "a detached hold needs a time to live",
        )),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

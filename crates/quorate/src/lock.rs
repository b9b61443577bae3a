//! Locks: exclusive holds on a name, in the order of asking.

use std::{future::Future, time::Duration};

use futures_util::future::{Either, select};

use crate::{
    Client, Compare, Contender, Detached, Error, Fenced, Key, Loss, Op, Result, Revision, Session,
    Txn, Value, claim::Claim, holder::Holder, link::Link, queue::Queue,
};

/// A lock by name, and how to hold it; it touches nothing until it is acquired.
///
/// Whoever comes first holds first, across processes, machines and languages: `etcdctl lock NAME` and
/// Go's `concurrency.Mutex` stand in the same queue. Each acquisition stands for itself: two in one
/// process, or on one session, exclude each other like any two, so it is not re-entrant.
///
/// # On the wire
///
/// A contender is the key `NAME/<lease>-<n>` under the session's lease; the one with the lowest create
/// revision holds. Keys with a further slash are ignored, so `a` and `a/b` are two locks; but other
/// tools wait for whatever key there is under `NAME/`. The lock and the election of one name are one
/// queue.
///
/// # Guarantees
///
/// While a guard is [held](LockGuard::is_held), nobody else holds, as long as clocks run at nearly one
/// rate, the server ends no lease early and nobody deletes keys by hand. What must be safe even then,
/// and from a process that was paused at the wrong moment, needs the guard's [`fence`](LockGuard::fence)
/// or [`token`](LockGuard::token).
///
/// # When it is lost
///
/// A hold ends with its session: at the deadline, when the lease is revoked, when the session is closed.
/// It also ends when somebody deletes its key, as [`Lock::break_hold`] does, as soon as the store tells.
/// Then [`LockGuard::lost`] completes with the [`Loss`], [`LockGuard::is_held`] is false, and nothing
/// brings the hold back: acquire again.
#[derive(Clone, Debug)]
#[must_use = "a lock is not held until it is acquired"]
pub struct Lock {
    queue: Queue,
    session: Option<Session>,
    ttl: Option<Duration>,
    max_hold: Option<Duration>,
    holder: Option<String>,
}

impl Client {
    /// The lock of a name. Any bytes will do but none at all; `/` has no meaning of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Op};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let guard = client.lock("jobs/nightly").acquire().await?;
    /// // The write happens only if the lock is still held, whatever happened meanwhile.
    /// client.txn().when(guard.fence()).then(Op::put("jobs/last", "42")).commit().await?;
    /// guard.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, name: impl Into<Key>) -> Lock {
        Lock {
            queue: Queue::new(self.link(), name.into()),
            session: None,
            ttl: None,
            max_hold: None,
            holder: None,
        }
    }
}

impl Lock {
    /// Holds under a session of its own with this time to live, rounded up to whole seconds, rather
    /// than under the client's shared session.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Holds under this session rather than under the client's shared one.
    pub fn session(self, session: &Session) -> Self {
        Self {
            session: Some(session.clone()),
            ..self
        }
    }

    /// Releases by itself after this time, counted from the acquisition.
    pub fn max_hold(self, max_hold: Duration) -> Self {
        Self {
            max_hold: Some(max_hold),
            ..self
        }
    }

    /// What others are told of who holds; otherwise what the client was connected with, or the name
    /// of the program.
    pub fn holder(self, holder: impl Into<String>) -> Self {
        Self {
            holder: Some(holder.into()),
            ..self
        }
    }

    /// Acquires the lock, waiting for its turn. Without contention this is one round trip.
    ///
    /// There is no hidden limit on the wait: wrap it in `tokio::time::timeout` for one.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::ErrorKind::Lost) at once if the session or our place in the queue is lost while
    /// waiting; whatever a session cannot be made for.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped we leave the queue; the place in it is lost.
    #[doc(alias = "lock")]
    pub async fn acquire(&self) -> Result<LockGuard> {
        let session = self.open_session().await?;
        let key = self.queue.new_key(&session);
        let claim = self.queue.acquire(&session, key, self.value()).await?;
        Ok(self.guard(claim))
    }

    /// Acquires the lock if nobody holds it or waits for it; else `None`. If it is taken this writes
    /// nothing, or takes back what it wrote.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`]; also [`Timeout`](crate::ErrorKind::Timeout) at the call's deadline.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, what it wrote is taken back.
    #[doc(alias = "try_lock")]
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        let session = self.open_session().await?;
        let attempt = self.queue.try_acquire(&session, self.value());
        let what = format!("attempt to lock {}", self.queue.name());
        let claim = self.queue.link().bounded(&what, false, attempt).await?;
        Ok(claim.map(|claim| self.guard(claim)))
    }

    /// Acquires the lock for `ttl`, rounded up to whole seconds, and lets go of it: nobody keeps it alive,
    /// and it outlives this process. The server may raise the time.
    ///
    /// While it waits it keeps its place in the queue alive. When it has acquired it begins its time anew,
    /// so that all of it lies ahead. What [`Lock::session`], [`Lock::ttl`] and [`Lock::max_hold`] say is
    /// of no account here.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped we leave the queue; what it may have acquired is released.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// use std::time::Duration;
    ///
    /// let lock = client.lock("deploy");
    /// let token = lock.acquire_detached(Duration::from_secs(60)).await?.token();
    ///
    /// // Later, in another process, that was told the token:
    /// let mut hold = lock.find_detached(token).await?;
    /// hold.renew(Duration::from_secs(60)).await?;
    /// assert!(hold.remaining() > Duration::from_secs(30));
    /// hold.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire_detached(&self, ttl: Duration) -> Result<Detached> {
        Detached::acquire(&self.queue, ttl, self.here()).await
    }

    /// Finds the detached hold that has this token, whoever acquired it.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::ErrorKind::Lost) if nobody holds the lock by this token: the hold was released, or
    /// its time is over. [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is no detached one,
    /// but kept by its process. Otherwise as [`Client::get`].
    pub async fn find_detached(&self, token: Revision) -> Result<Detached> {
        Detached::find(&self.queue, token).await
    }

    /// Runs `work` while the lock is held, then releases it. If the hold is lost the work is dropped at
    /// its next await.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`], and [`Lost`](crate::ErrorKind::Lost) if the hold was lost before the work
    /// ended. A failure to confirm the release is not reported: the lock is released by its lease.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped so is the work, and the lock is released.
    pub async fn run<T>(&self, work: impl AsyncFnOnce(&LockGuard) -> T) -> Result<T> {
        let guard = self.acquire().await?;
        let result = guard.protect(work(&guard)).await?;
        let _ = guard.release().await;
        Ok(result)
    }

    /// The contenders, the holder first; empty if the lock is free.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn contenders(&self) -> Result<Vec<Contender>> {
        self.queue.contenders().await
    }

    /// Breaks the hold that has this token: deletes its key. Returns whether it was there.
    ///
    /// The next in the queue acquires at once, while the broken holder goes on until it sees that its
    /// key is gone; in between only fences and tokens exclude.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn break_hold(&self, token: Revision) -> Result<bool> {
        let contenders = self.queue.contenders().await?;
        let Some(holder) = contenders
            .into_iter()
            .find(|contender| contender.token == token)
        else {
            return Ok(false);
        };
        let fence = Compare::create_revision(&holder.key).eq(token);
        let txn = Txn::new().when(fence).then(Op::delete(&holder.key));
        Ok(self.queue.link().txn(txn).await?.succeeded)
    }

    async fn open_session(&self) -> Result<Session> {
        match &self.session {
            Some(session) => Ok(session.clone()),
            None => self.queue.link().session(self.ttl).await,
        }
    }

    fn value(&self) -> Value {
        self.here().to_value()
    }

    fn here(&self) -> Holder {
        let settings = self.queue.link().settings();
        Holder::here(self.holder.as_ref().or(settings.holder.as_ref()))
    }

    fn guard(&self, claim: Claim) -> LockGuard {
        let link = self.queue.link().clone();
        if let Some(max_hold) = self.max_hold {
            claim.limit(link.runtime().now() + max_hold);
        }
        LockGuard { link, claim }
    }
}

/// A lock that is held.
///
/// Dropping it ends the hold at once and deletes its key, best effort: the session's lease is the
/// backstop. [`LockGuard::release`] does the same and waits until it is confirmed.
#[derive(Debug)]
#[must_use = "the lock is released when its guard is dropped"]
pub struct LockGuard {
    link: Link,
    claim: Claim,
}

impl LockGuard {
    /// The key that stands for this hold.
    pub fn key(&self) -> &Key {
        self.claim.key()
    }

    /// The fencing token: the create revision of this hold's key. Later holders have higher tokens, so
    /// who remembers the highest token that it has seen can refuse all lower ones; see
    /// [`TokenGate`](crate::TokenGate).
    pub fn token(&self) -> Revision {
        self.claim.token()
    }

    /// A condition for transactions that holds only while this hold's key stands.
    pub fn fence(&self) -> Compare {
        self.claim.fence()
    }

    /// The session that this hold lives by.
    pub fn session(&self) -> &Session {
        self.claim.session()
    }

    /// Whether the lock is held as far as can be known here: no loss was seen, and the clock is before
    /// the deadline. False on the first look after a pause that was too long.
    pub fn is_held(&self) -> bool {
        self.claim.loss().is_none()
    }

    /// How the hold was lost, if it was.
    pub fn loss(&self) -> Option<Loss> {
        self.claim.loss()
    }

    /// Completes when the hold is lost, and tells why: before the server can give the lock to anybody
    /// else because of our lease, or as soon as our key is seen deleted.
    ///
    /// The future borrows nothing and can be kept and cloned; after the release it completes with
    /// [`Loss::Released`].
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        self.claim.lost()
    }

    /// Runs `work` unless and until the hold is lost; then the work is dropped, without having been
    /// polled since.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::ErrorKind::Lost) if the hold was lost first.
    pub async fn protect<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        match select(self.lost(), Box::pin(work)).await {
            Either::Left((loss, _)) => Err(Error::lost(loss, self.key())),
            Either::Right((output, _)) => Ok(output),
        }
    }

    /// A value in etcd that only the holder of this lock reads and writes.
    pub fn fenced(&self, key: impl Into<Key>) -> Fenced {
        Fenced::new(&self.link, self.claim.fence(), key.into())
    }

    /// Releases the lock, and waits until that is confirmed. Only this hold's own key is deleted.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::ErrorKind::Lost) if the hold had been lost before: what was done under it may
    /// have overlapped with somebody else. [`Timeout`](crate::ErrorKind::Timeout) if nobody confirmed
    /// it by the call's deadline; attempts go on until the session ends.
    ///
    /// # Cancel safety
    ///
    /// The hold ends when the future is first polled, and the key is deleted even if it is dropped.
    #[doc(alias = "unlock")]
    pub async fn release(self) -> Result<()> {
        let Self { link, claim } = self;
        claim.release(&link).await
    }
}

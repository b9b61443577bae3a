//! Leader election: one leader at a time, known to all.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::{Stream, stream::BoxStream};
use futures_util::{StreamExt, stream};

use crate::{
    Client, Compare, Contender, Error, ErrorKind, Event, Fenced, Key, KeyValue, Loss, OpResult,
    Put, Range, Result, Revision, Session, Txn, Value, WatchRequest,
    claim::{Claim, Holding},
    link::Link,
    queue::Queue,
    retry::Backoff,
    watch::{Feed, Resume, Signal},
};

/// An election by name; it touches nothing until somebody campaigns or observes.
///
/// Candidates lead in the order in which they came. `etcdctl elect NAME` and Go's
/// `concurrency.Election` stand in the same queue, which is also that of the
/// [lock](Client::lock) of the same name. What a guard promises, and how keys are laid out, is the same
/// as for a [`Lock`](crate::Lock).
///
/// A candidate's value is the value of its key, until it is replaced by [`Leadership::proclaim`].
///
/// [`Election::campaign`] is one candidacy. An [`Elector`](crate::Elector) campaigns again by itself and
/// runs a task while it leads.
#[derive(Clone, Debug)]
#[must_use = "an election is not entered until somebody campaigns"]
pub struct Election {
    queue: Queue,
    value: Value,
    session: Option<Session>,
    ttl: Option<Duration>,
}

/// Who leads.
pub type Leader = Contender;

impl Client {
    /// The election of a name. Any bytes will do but none at all.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::Client;
    ///
    /// let client = Client::connect("mem:").await?;
    /// let election = client.election("scheduler").value("10.0.0.7:9000");
    /// let leadership = election.campaign().await?;
    /// let leader = election.leader().await?.expect("we lead");
    /// assert_eq!(leader.value, "10.0.0.7:9000");
    /// assert_eq!(leader.token, leadership.token());
    /// leadership.resign().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn election(&self, name: impl Into<Key>) -> Election {
        Election {
            queue: Queue::new(self.link(), name.into()),
            value: Value::default(),
            session: None,
            ttl: None,
        }
    }
}

impl Election {
    /// What others are told of us while we are a candidate and when we lead, such as an address.
    pub fn value(self, value: impl Into<Value>) -> Self {
        Self {
            value: value.into(),
            ..self
        }
    }

    /// Campaigns under a session of its own with this time to live, rounded up to whole seconds,
    /// rather than under the client's shared session.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Campaigns under this session rather than under the client's shared one.
    pub fn session(self, session: &Session) -> Self {
        Self {
            session: Some(session.clone()),
            ..self
        }
    }

    /// Stands as a candidate, and waits until we lead.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) at once if the session or our place in the queue is lost while
    /// waiting; whatever a session cannot be made for.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped we stand no more.
    pub async fn campaign(&self) -> Result<Leadership> {
        let session = self.open_session().await?;
        let key = self.new_key(&session);
        self.campaign_as(&session, key).await
    }

    /// A key for one candidacy.
    pub(crate) fn new_key(&self, session: &Session) -> Key {
        self.queue.new_key(session)
    }

    pub(crate) async fn campaign_as(&self, session: &Session, key: Key) -> Result<Leadership> {
        let claim = self.queue.acquire(session, key, self.value.clone()).await?;
        Ok(Leadership {
            link: self.queue.link().clone(),
            claim,
            written: None,
        })
    }

    /// Who leads; `None` if nobody does.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn leader(&self) -> Result<Option<Leader>> {
        Ok(self.candidates().await?.into_iter().next())
    }

    /// Everybody who leads or waits to, the leader first.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn candidates(&self) -> Result<Vec<Contender>> {
        self.queue.contenders().await
    }

    /// Follows who leads: the present leader first, then every change of leader or of the leader's
    /// value, with `None` while nobody leads.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use futures_util::StreamExt;
    ///
    /// let client = quorate::Client::connect("mem:").await?;
    /// let election = client.election("scheduler").value("10.0.0.7:9000");
    /// let mut leaders = election.observe();
    /// assert_eq!(leaders.next().await.expect("it ends only with an error")?, None);
    ///
    /// let _leadership = election.campaign().await?;
    /// let leader = leaders.next().await.expect("it ends only with an error")?;
    /// assert_eq!(leader.expect("we lead").value, "10.0.0.7:9000");
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(&self) -> Leaders {
        let state = Observation {
            queue: self.queue.clone(),
            known: None,
            view: None,
        };
        let leaders = stream::unfold(Some(state), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(leader) => Some((Ok(leader), Some(state))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Leaders(leaders.boxed())
    }

    /// Whether it was bound to a session that is lost, so that no campaign can succeed.
    pub(crate) fn is_doomed(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_lost)
    }

    pub(crate) fn link(&self) -> &Link {
        self.queue.link()
    }

    pub(crate) async fn open_session(&self) -> Result<Session> {
        match &self.session {
            Some(session) => Ok(session.clone()),
            None => self.queue.link().session(self.ttl).await,
        }
    }
}

/// The leadership of an election.
///
/// Dropping it ends it at once and deletes its key, best effort: the session's lease is the backstop.
/// [`Leadership::resign`] does the same and waits until it is confirmed.
#[derive(Debug)]
#[must_use = "leadership ends when it is dropped"]
pub struct Leadership {
    link: Link,
    claim: Claim,
    /// The revision of our key, unless it is unknown or that which made the key.
    written: Option<Written>,
}

/// What is known of the last write to our key.
#[derive(Clone, Copy, Debug)]
enum Written {
    At(Revision),
    Unknown,
}

impl Leadership {
    /// The key that stands for this leadership.
    pub fn key(&self) -> &Key {
        self.claim.key()
    }

    /// The fencing token: later leaders have higher ones; see [`TokenGate`](crate::TokenGate).
    pub fn token(&self) -> Revision {
        self.claim.token()
    }

    /// A condition for transactions that holds only while this leadership's key stands.
    pub fn fence(&self) -> Compare {
        self.claim.fence()
    }

    /// The session that this leadership lives by.
    pub fn session(&self) -> &Session {
        self.claim.session()
    }

    /// Whether we lead as far as can be known here: no loss was seen, and the clock is before the
    /// deadline.
    pub fn is_held(&self) -> bool {
        self.claim.loss().is_none()
    }

    /// How the leadership was lost, if it was.
    pub fn loss(&self) -> Option<Loss> {
        self.claim.loss()
    }

    /// Tells whether it is held to who must not keep it.
    pub(crate) fn holding(&self) -> Holding {
        self.claim.holding()
    }

    /// Completes when the leadership is lost, and tells why: before the server can let anybody else
    /// lead because of our lease, or as soon as our key is seen deleted. The future borrows nothing
    /// and can be kept and cloned.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        self.claim.lost()
    }

    /// A value in etcd that only this leader reads and writes.
    pub fn fenced(&self, key: impl Into<Key>) -> Fenced {
        Fenced::new(&self.link, self.claim.fence(), key.into())
    }

    /// Tells everybody another value, without an election.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if we lead no more: nothing was told. Otherwise as [`Client::put`]; an
    /// indefinite error may be followed by another call, whose value then wins for certain.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the value may or may not be told; the next call's wins.
    pub async fn proclaim(&mut self, value: impl Into<Value>) -> Result<()> {
        self.claim.check()?;
        let written = match self.written {
            None => self.token(),
            Some(Written::At(revision)) => revision,
            // An earlier value may be on its way still. Bound to the present revision ours can
            // either come after it or find out; and after ours it cannot come.
            Some(Written::Unknown) => self.read_own().await?,
        };
        let put = Put::new(self.key(), value).lease(self.session().lease());
        let txn = Txn::new()
            .when(self.fence())
            .when(Compare::mod_revision(self.key()).eq(written))
            .then(put)
            .or_else(Range::new(self.key()).keys_only());
        self.written = Some(Written::Unknown);
        let answer = self.link.txn(txn).await?;
        if answer.succeeded {
            self.written = Some(Written::At(answer.header.revision));
            return Ok(());
        }
        match answer.results.into_iter().next() {
            Some(OpResult::Range(range)) if self.is_own(range.kvs.first()) => {
                let message = "the leader's key was written meanwhile; proclaim again";
                Err(Error::new(ErrorKind::Conflict, message))
            }
            _ => Err(self.gone()),
        }
    }

    /// Steps down, and waits until that is confirmed. Only our own key is deleted.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`](crate::LockGuard::release).
    ///
    /// # Cancel safety
    ///
    /// The leadership ends when the future is first polled, and the key is deleted even if it is
    /// dropped.
    #[doc(alias = "release")]
    pub async fn resign(self) -> Result<()> {
        let Self { link, claim, .. } = self;
        claim.release(&link).await
    }

    async fn read_own(&self) -> Result<Revision> {
        let range = self.link.range(Range::new(self.key()).keys_only()).await?;
        match range.kvs.first() {
            Some(kv) if self.is_own(Some(kv)) => Ok(kv.mod_revision),
            _ => Err(self.gone()),
        }
    }

    fn is_own(&self, kv: Option<&KeyValue>) -> bool {
        kv.is_some_and(|kv| kv.create_revision == self.token())
    }

    fn gone(&self) -> Error {
        self.claim.lose(Loss::Deleted);
        Error::lost(Loss::Deleted, self.key())
    }
}

/// Who leads, over time; see [`Election::observe`].
///
/// It survives disconnects and compactions, ends only with an error, and always comes to the latest
/// leader; a reader who is slow may be spared leaders in between. It is lazy: unpolled it reads nothing.
#[must_use = "streams do nothing unless polled"]
pub struct Leaders(BoxStream<'static, Result<Option<Leader>>>);

impl Stream for Leaders {
    type Item = Result<Option<Leader>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Leaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaders").finish_non_exhaustive()
    }
}

/// The state of an observation.
struct Observation {
    queue: Queue,
    /// What was told last; the outer `None` before anything was.
    known: Option<Option<Leader>>,
    view: Option<View>,
}

/// The contenders as far as the changes have been read.
struct View {
    by_key: BTreeMap<Key, Contender>,
    feed: Feed,
}

impl Observation {
    /// The next leader that differs from what was told last.
    async fn next(&mut self) -> Result<Option<Leader>> {
        loop {
            match &mut self.view {
                None => self.view = Some(View::list(&self.queue).await?),
                Some(view) => match view.feed.next().await {
                    Ok(Signal::Broken | Signal::Opened(_)) => continue,
                    Ok(Signal::Batch(batch)) => view.apply(&self.queue, batch.events),
                    Err(error) if error.is_history_lost() => {
                        self.view = None;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            }
            let leader = self.view.as_ref().and_then(View::leader);
            if self.known.as_ref() != Some(&leader) {
                self.known = Some(leader.clone());
                return Ok(leader);
            }
        }
    }
}

impl View {
    async fn list(queue: &Queue) -> Result<Self> {
        let link = queue.link();
        let mut backoff = Backoff::new(link.runtime());
        let range = loop {
            match link.range(Range::new(queue.range())).await {
                Ok(range) => break range,
                // In another cluster than before the look is repeated as well.
                Err(error) if error.is_retryable() || error.is_history_lost() => {
                    backoff.pause().await;
                }
                Err(error) => return Err(error),
            }
        };
        let request = WatchRequest::new(queue.range()).start(range.header.revision.next());
        let cluster_id = range.header.cluster_id;
        let feed = Feed::new(link, request, Resume::Exactly).within(cluster_id);
        let contenders = queue.select(range).into_iter();
        let by_key = contenders
            .map(|contender| (contender.key.clone(), contender))
            .collect();
        Ok(Self { by_key, feed })
    }

    fn apply(&mut self, queue: &Queue, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Put { kv, .. } => {
                    if let Some(contender) = queue.contender(kv) {
                        self.by_key.insert(contender.key.clone(), contender);
                    }
                }
                Event::Delete { key, .. } => {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    fn leader(&self) -> Option<Leader> {
        self.by_key
            .values()
            .min_by_key(|contender| contender.token)
            .cloned()
    }
}

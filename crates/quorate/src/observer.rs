//! Observers: the state of some keys, then every change of it, for ever.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::{Stream, future::BoxFuture};
use futures_util::{FutureExt, StreamExt};

use crate::{
    Changes, Client, Error, ErrorKind, Event, Key, KeyRange, KeyValue, Result, Revision, Snapshot,
    WatchRequest,
    link::Link,
    observation::{News, Observation, Start},
};

/// What an [`Observer`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The state anew. An observer of the present state begins with one; any later one means that
    /// changes were lost for good, compacted away while there was no connection or undone by a restored
    /// backup: start over from this.
    Reset(Snapshot),
    /// The changes of one revision.
    Changes(Changes),
}

/// The state of a key or a range of keys, then every change of it: exactly once, in the order of the
/// revisions, those of one revision together, for ever. See [`Client::observe`].
///
/// It survives disconnects, changes of the leader and restarts of members. Where history was compacted
/// away before it could be read, it reads the state anew and tells that by [`Observed::Reset`]. The
/// stream ends only with an error, which is its last item and final: what the store refuses for good.
///
/// It does nothing before it is first polled. All observers of a client that follow the same keys in the
/// same way share one watch on the server. What one of them does not read in time is dropped, a few
/// megabytes behind the newest change, and read again from the server when it asks; so a slow one costs
/// neither the others their pace nor the client its memory. Dropping the last of them closes the watch.
#[must_use = "an observer does nothing unless it is polled"]
pub struct Observer {
    state: State,
    until_deleted: Option<UntilDeleted>,
}

enum State {
    /// Not polled yet.
    Inert(Plan),
    Idle(Box<Observation>),
    Busy {
        next: BoxFuture<'static, Next>,
        /// Whether everything from now on will be told.
        settled: bool,
    },
    /// To be told next.
    Found(Box<Observation>, Result<Observed>),
    Ended,
}

/// What was found, if it was not only that everything from now on will be told.
type Next = (Box<Observation>, Option<Result<Observed>>);

/// What is to be observed.
struct Plan {
    link: Link,
    request: WatchRequest,
    start: Start,
}

/// What is known of the key whose deletion is the end.
#[derive(Default)]
struct UntilDeleted {
    /// Whether it was there, or may have been.
    seen: bool,
    /// Deletions must be seen here, if not told.
    puts_only: bool,
}

impl Client {
    /// Observes keys: `client.observe("key")`, `client.observe(KeyRange::prefix("dir/"))`.
    ///
    /// Without more words it tells the present state, then every change.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use futures_util::TryStreamExt;
    /// use quorate::{Client, Event, KeyRange, Observed};
    ///
    /// let client = Client::connect("mem:").await?;
    /// client.put("cfg/limit", "10").await?;
    /// let mut observer = client.observe(KeyRange::prefix("cfg/"));
    /// let Some(Observed::Reset(all)) = observer.try_next().await? else { unreachable!() };
    /// assert_eq!(all.kvs[0].value, "10");
    ///
    /// client.put("cfg/limit", "11").await?;
    /// let Some(Observed::Changes(changes)) = observer.try_next().await? else { unreachable!() };
    /// for event in &changes {
    ///     match event {
    ///         Event::Put { kv, .. } => assert_eq!(kv.value, "11"),
    ///         Event::Delete { key, .. } => println!("{key} is gone"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(&self, keys: impl Into<KeyRange>) -> Observer {
        Observer {
            state: State::Inert(Plan {
                link: self.link().clone(),
                request: WatchRequest::new(keys),
                start: Start::Snapshot,
            }),
            until_deleted: None,
        }
    }
}

/// How to observe. To be said before the observer is polled; later it has no effect.
impl Observer {
    /// Tells changes only, those of `revision` included; a [`Observed::Reset`] instead if they are
    /// compacted away. A revision to come is waited for.
    pub fn from(self, revision: Revision) -> Self {
        self.start(Start::From(revision))
    }

    /// Tells changes only, beginning with the next: with what is written after the observer was
    /// [opened](Observer::opened) or first polled.
    pub fn from_now(self) -> Self {
        self.start(Start::Now)
    }

    /// Tells changes only, beginning with the oldest that is kept.
    pub fn from_oldest(self) -> Self {
        self.start(Start::Oldest)
    }

    /// Tells with each change what was there before.
    pub fn prev_kv(self) -> Self {
        self.request(WatchRequest::prev_kv)
    }

    /// Tells of changes only the puts.
    pub fn puts_only(mut self) -> Self {
        if let Some(until) = &mut self.until_deleted {
            until.puts_only = true;
            return self;
        }
        self.request(WatchRequest::puts_only)
    }

    /// Tells of changes only the deletions.
    pub fn deletes_only(self) -> Self {
        self.request(WatchRequest::deletes_only)
    }

    /// Ends after the deletion of the key, which is told. A key that is not there yet is waited for.
    /// Where history was lost a [`Observed::Reset`] without the key tells of the deletion, as it does for
    /// an observer that told no state before: to that one the key may have been there.
    ///
    /// It is for one key: with a range the first item is an error.
    pub fn until_deleted(mut self) -> Self {
        let mut until = UntilDeleted::default();
        if let State::Inert(plan) = &mut self.state {
            // Deletions have to come in any case.
            until.puts_only = std::mem::take(&mut plan.request.no_delete);
        }
        self.until_deleted = Some(until);
        self
    }

    fn start(mut self, start: Start) -> Self {
        if let State::Inert(plan) = &mut self.state {
            plan.start = start;
        }
        self
    }

    fn request(mut self, change: impl FnOnce(WatchRequest) -> WatchRequest) -> Self {
        if let State::Inert(plan) = &mut self.state {
            plan.request = change(plan.request.clone());
        }
        self
    }
}

impl Observer {
    /// Waits until every change from now on will be told, as it will be once the first item was told.
    ///
    /// # Errors
    ///
    /// What the store refuses for good; it is also the last item.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn opened(&mut self) -> Result<()> {
        loop {
            match &mut self.state {
                State::Inert(_) => self.state = self.awake(),
                State::Idle(observation) => {
                    let news = match observation.settle().await {
                        Ok(None) => return Ok(()),
                        Ok(Some(news)) => Ok(news),
                        Err(error) => Err(error),
                    };
                    let State::Idle(observation) = std::mem::replace(&mut self.state, State::Ended)
                    else {
                        unreachable!("it is borrowed above");
                    };
                    self.state = match news.map(Observed::of).transpose() {
                        None => State::Idle(observation),
                        Some(found) => State::Found(observation, found),
                    };
                }
                State::Busy { settled: true, .. } => return Ok(()),
                State::Busy { next, .. } => {
                    self.state = match next.await {
                        (observation, None) => State::Idle(observation),
                        (observation, Some(found)) => State::Found(observation, found),
                    };
                }
                State::Found(_, Err(error)) => return Err(error.clone()),
                State::Found(_, Ok(_)) | State::Ended => return Ok(()),
            }
        }
    }

    /// Waits for one change, from now on if nothing else was said, and tells it: changes, or a
    /// [`Observed::Reset`] if they were lost.
    ///
    /// # Errors
    ///
    /// What the store refuses for good.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed. The next call begins anew.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// let revision = client.put("job", "queued").await?;
    /// let change = client.observe("job").from(revision.next()).next_change();
    /// client.put("job", "done").await?;
    /// change.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_change(mut self) -> Result<Observed> {
        if let State::Inert(plan) = &mut self.state
            && plan.start == Start::Snapshot
        {
            plan.start = Start::Now;
        }
        self.next().await.unwrap_or_else(|| Err(ended()))
    }

    /// Waits until the keys fulfil a condition, and returns them. It is asked for the present state
    /// first, then after each revision that changed them.
    ///
    /// # Errors
    ///
    /// What the store refuses for good. [`InvalidArgument`](ErrorKind::InvalidArgument) for an observer
    /// that does not begin with the present state or tells only some of the changes: it would judge by
    /// half of the truth.
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
    /// use quorate::KeyRange;
    ///
    /// # let client = quorate::Client::connect("mem:").await?;
    /// client.put("ready/db", "").await?;
    /// client.put("ready/cache", "").await?;
    /// let both = |keys: &quorate::Present| keys.len() == 2;
    /// let ready = client.observe(KeyRange::prefix("ready/")).wait_for(both).await?;
    /// assert!(ready.contains_key(&"ready/db".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(
        mut self,
        mut condition: impl FnMut(&Present) -> bool,
    ) -> Result<Present> {
        if let State::Inert(plan) = &self.state {
            let partial = plan.request.no_put || plan.request.no_delete;
            if plan.start != Start::Snapshot || partial || self.until_deleted.is_some() {
                let message =
                    "to wait for a condition takes an observer of the state and all changes";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        let mut present = Present::new();
        loop {
            match self.next().await.unwrap_or_else(|| Err(ended()))? {
                Observed::Reset(all) => {
                    present = all.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                }
                Observed::Changes(changes) => {
                    for event in &changes {
                        match event {
                            Event::Put { kv, .. } => present.insert(kv.key.clone(), kv.clone()),
                            Event::Delete { key, .. } => present.remove(key),
                        };
                    }
                }
            }
            if condition(&present) {
                return Ok(present);
            }
        }
    }

    /// Begins to observe.
    fn awake(&mut self) -> State {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Inert(Plan {
                link,
                request,
                start,
            }) => {
                if let Some(until) = &mut self.until_deleted {
                    until.seen = start != Start::Snapshot;
                }
                let range = self.until_deleted.is_some() && !request.keys.is_single();
                let observation = Box::new(Observation::new(&link, request, start));
                if !range {
                    return State::Idle(observation);
                }
                let message = "only one key can be observed until it is deleted";
                let error = Error::new(ErrorKind::InvalidArgument, message);
                State::Found(observation, Err(error))
            }
            state => state,
        }
    }

    /// What is told of `found`, and whether it is the last.
    fn judge(&mut self, found: Result<Observed>) -> (Option<Result<Observed>>, bool) {
        let Ok(observed) = &found else {
            return (Some(found), true);
        };
        let Some(until) = &mut self.until_deleted else {
            return (Some(found), false);
        };
        let present = match observed {
            Observed::Reset(all) => !all.kvs.is_empty(),
            Observed::Changes(changes) => {
                matches!(changes.events().last(), Some(Event::Put { .. }))
            }
        };
        // Its put may have been filtered out.
        let was_there = until.seen || matches!(observed, Observed::Changes(_));
        until.seen |= present;
        let over = was_there && !present;
        let silent = over && until.puts_only && matches!(observed, Observed::Changes(_));
        ((!silent).then_some(found), over)
    }
}

/// The keys that are there, as [`Observer::wait_for`] shows them.
pub type Present = BTreeMap<Key, KeyValue>;

impl Observed {
    /// What observers tell of the news, if anything.
    fn of(news: News) -> Option<Self> {
        match news {
            News::Changes(changes) => Some(Self::Changes(changes)),
            News::Current(_) => None,
            News::Reset(snapshot) => Some(Self::Reset(snapshot)),
        }
    }
}

impl Stream for Observer {
    type Item = Result<Observed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (observation, found) = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                inert @ State::Inert(_) => {
                    self.state = inert;
                    self.state = self.awake();
                    continue;
                }
                State::Idle(mut observation) => match observation.poll_changes(cx) {
                    Poll::Ready(Some(changes)) => (observation, Ok(Observed::Changes(changes))),
                    Poll::Pending => {
                        self.state = State::Idle(observation);
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => {
                        self.state = State::Busy {
                            settled: observation.is_settled(),
                            next: next(observation).boxed(),
                        };
                        continue;
                    }
                },
                State::Busy { mut next, settled } => match next.poll_unpin(cx) {
                    Poll::Ready((observation, Some(found))) => (observation, found),
                    Poll::Ready((observation, None)) => {
                        self.state = State::Idle(observation);
                        continue;
                    }
                    Poll::Pending => {
                        self.state = State::Busy { next, settled };
                        return Poll::Pending;
                    }
                },
                State::Found(observation, found) => (observation, found),
            };
            let (told, last) = self.judge(found);
            if !last {
                self.state = State::Idle(observation);
            }
            if told.is_some() || last {
                return Poll::Ready(told);
            }
        }
    }
}

/// The next thing that observers tell. It stops once at the moment from which on everything will be
/// told, since somebody may wait for that alone.
async fn next(mut observation: Box<Observation>) -> Next {
    let found = if observation.is_settled() {
        loop {
            match observation.next().await.map(Observed::of).transpose() {
                None => {}
                found => break found,
            }
        }
    } else {
        let news = observation.settle().await;
        news.map(|news| news.and_then(Observed::of)).transpose()
    };
    (observation, found)
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "an endless observation ended")
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

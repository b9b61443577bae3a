//! How an observer comes by what it tells: it lists, follows the watch that it shares with others, and
//! reads for itself what it was too slow for.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::join;

use crate::{
    Changes, Error, ErrorKind, KeyRange, KeyValue, Moment, Range, RangeEnd, RangeResult, Result,
    Revision, Snapshot, WatchRequest,
    kv::page,
    link::Link,
    mutant::{Mutant, planted},
    retry::Backoff,
    shared_watch::{Follower, SharedWatch, Taken, Wanted},
    watch::{Feed, Resume, Signal},
};

/// Where an observation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the present state.
    Snapshot,
    /// With the changes of this revision.
    From(Revision),
    /// With the next change.
    Now,
    /// With the oldest change that is kept.
    Oldest,
}

/// What an observation tells.
#[derive(Debug)]
pub(crate) enum News<S = Snapshot> {
    /// The state anew: at the beginning, because history was lost, or because the state alone is wanted and
    /// this was sooner.
    Reset(S),
    /// The changes of the next revision that has any.
    Changes(Changes),
    /// Whether what was told is up to date as far as is known. At the beginning it is taken to be. After
    /// a break it is again once all that was missed is told.
    Current(bool),
}

/// What is made of the state of the keys, which comes in pages.
pub(crate) trait Gather: Send + Sync {
    type State: Default + Send;

    /// Adds a page, while the next is on its way. All are of one revision.
    fn add(&self, state: &mut Self::State, revision: Revision, page: Vec<KeyValue>);
}

/// Gathers all keys as they are.
pub(crate) struct Whole;

impl Gather for Whole {
    type State = Snapshot;

    fn add(&self, state: &mut Snapshot, revision: Revision, page: Vec<KeyValue>) {
        state.revision = revision;
        state.kvs.extend(page);
    }
}

/// The state of an observation. It does nothing unless it is polled.
pub(crate) struct Observation<G = Whole> {
    link: Link,
    gather: G,
    /// What is watched; the start is in `position`.
    request: WatchRequest,
    wanted: Wanted,
    /// How often the shared watch had given up what it missed when the state was read last.
    skips: u64,
    position: Position,
    /// Changes that were taken and not told yet.
    taken: VecDeque<Changes>,
    source: Source,
    /// The revision of the store at the beginning, if the oldest changes are to be told, and none were
    /// yet.
    seeks_oldest: Option<Revision>,
    /// What was told last by [`News::Current`].
    current: bool,
    /// Whether history was lost, and the state was not read anew yet.
    is_lost: bool,
    backoff: Backoff,
    /// When the next attempt to list may be made.
    not_before: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
enum Position {
    /// Nothing was read yet.
    At(Start),
    /// Changes are to be taken from this revision on.
    Next(Revision),
}

/// Where changes are taken from.
enum Source {
    None,
    Shared(Follower),
    /// A feed of our own, until we have caught up with the others.
    Own {
        feed: Box<Feed>,
        standing: Standing,
        /// Where we shall be again. It stays open for us, or nobody might ever be there.
        shared: Arc<SharedWatch>,
    },
}

/// What is known of a feed of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not open.
    Away,
    /// It is open, and has not told all up to this revision.
    Misses(Revision),
    /// It has told all that there was when it was opened.
    Current,
}

impl Observation {
    pub(crate) fn new(link: &Link, request: WatchRequest, start: Start) -> Self {
        Self::wanting(Wanted::Changes, link, request, start, Whole)
    }
}

impl<G: Gather> Observation<G> {
    /// An observation for who wants to know how things stand, and not all that has led there.
    pub(crate) fn of_latest(link: &Link, request: WatchRequest, gather: G) -> Self {
        Self::wanting(Wanted::Latest, link, request, Start::Snapshot, gather)
    }

    fn wanting(
        wanted: Wanted,
        link: &Link,
        request: WatchRequest,
        start: Start,
        gather: G,
    ) -> Self {
        Self {
            link: link.clone(),
            gather,
            request,
            wanted,
            skips: 0,
            position: Position::At(start),
            taken: VecDeque::new(),
            source: Source::None,
            seeks_oldest: None,
            current: true,
            is_lost: false,
            backoff: Backoff::new(link.runtime()),
            not_before: None,
        }
    }

    /// Changes that were taken already.
    pub(crate) fn take_ready(&mut self) -> Option<Changes> {
        self.taken.pop_front()
    }

    /// The next changes, if all that there is to do is to take them from the shared watch or to wait for it;
    /// `None` if there is more, which [`next`](Self::next) does. It tells nothing else, whatever comes first.
    pub(crate) fn poll_changes(&mut self, cx: &Context<'_>) -> Poll<Option<Changes>> {
        if self.taken.is_empty()
            && let (Source::Shared(follower), Position::Next(next), None) =
                (&mut self.source, self.position, self.not_before)
            && let Taken::Changes = ready!(follower.poll_take(next, &mut self.taken, cx))
        {
            self.took();
        }
        Poll::Ready(self.take_ready())
    }

    /// Whether every later change will be told.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.position, Position::Next(_))
    }

    /// The next news. An error is final.
    ///
    /// Cancel safe: nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<News<G::State>> {
        loop {
            if let Some(news) = self.step().await? {
                return Ok(news);
            }
        }
    }

    /// Waits until every later change will be told. `Some` if there is something to tell before.
    ///
    /// Cancel safe, too.
    pub(crate) async fn settle(&mut self) -> Result<Option<News<G::State>>> {
        while !self.is_settled() {
            match self.step().await? {
                None | Some(News::Current(_)) => {}
                news => return Ok(news),
            }
        }
        Ok(None)
    }

    /// Does the next thing that is to be done, or waits for it.
    async fn step(&mut self) -> Result<Option<News<G::State>>> {
        if let Some(changes) = self.take_ready() {
            return Ok(Some(News::Changes(changes)));
        }
        if let Source::Shared(follower) = &mut self.source {
            // Before all that follows, so that nothing is missed between that and the wait.
            follower.look();
        }
        let current = self.is_current();
        if current != self.current && !(current && self.has_more()) {
            self.current = current;
            return Ok(Some(News::Current(current)));
        }
        if let Some(not_before) = self.not_before {
            self.link.runtime().sleep_until(not_before).await;
            self.not_before = None;
            return Ok(None);
        }
        let done = match self.position {
            Position::At(start) => self.begin(start).await,
            Position::Next(next) => self.advance(next).await.map(|()| None),
        };
        match done {
            Ok(state) => return Ok(state.map(News::Reset)),
            Err(error) if error.is_history_lost() => {
                tracing::info!(%error, keys = %self.request.keys, "history is lost: starting over");
                self.start_over(&error);
            }
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, keys = %self.request.keys, "not read");
                self.pause();
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// Lets some time pass before the next attempt.
    fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        self.not_before = Some(self.link.runtime().now() + pause);
    }

    /// Finds where to go on after history was lost.
    fn start_over(&mut self, error: &Error) {
        if let Some((oldest, shared)) = self.oldest_after(error) {
            self.source = Source::Shared(shared.follow());
            self.position = Position::Next(oldest);
            return;
        }
        let shared = !matches!(self.source, Source::Own { .. });
        if let (true, Position::Next(next)) = (shared, self.position)
            && error.oldest_revision().is_some_and(|oldest| oldest <= next)
        {
            // What the shared watch has lost, we were told already or did not ask for.
            self.source = Source::None;
            self.pause();
            return;
        }
        self.source = Source::None;
        self.seeks_oldest = None;
        if let Position::At(start) = self.position {
            // A store that is another one at every look shall not keep us busy.
            self.pause();
            // Nothing was begun, so nothing is lost; but in another cluster a revision means nothing.
            if !matches!(start, Start::From(_)) || error.kind() == ErrorKind::Compacted {
                return;
            }
        }
        if planted(Mutant::ResetMissed) {
            self.position = Position::At(Start::Now);
            return;
        }
        self.position = Position::At(Start::Snapshot);
        self.is_lost = true;
    }

    /// The oldest revision to go on from if that is what is sought. What was compacted away since the
    /// beginning must come from the shared watch, or it is lost.
    fn oldest_after(&self, error: &Error) -> Option<(Revision, Arc<SharedWatch>)> {
        let (Source::Own { shared, .. }, Position::Next(refused)) = (&self.source, self.position)
        else {
            return None;
        };
        let (oldest, begun) = (error.oldest_revision()?, self.seeks_oldest?.next());
        let first = oldest.min(begun);
        let kept = first == oldest || shared.covers(first);
        (kept && first > refused).then(|| (first, Arc::clone(shared)))
    }

    /// Whether nothing stands between us and the store as far as is known.
    fn is_current(&self) -> bool {
        let connected = match (&self.source, self.position) {
            // As it was.
            (Source::None, _) => self.current,
            (Source::Shared(Follower { shared, .. }), Position::Next(next)) => {
                shared.is_current() && shared.covers(next)
            }
            (Source::Shared(Follower { shared, .. }), Position::At(_)) => shared.is_current(),
            (Source::Own { standing, .. }, _) => *standing == Standing::Current,
        };
        connected && !self.is_lost && self.not_before.is_none()
    }

    /// Whether there are changes to be taken without waiting.
    fn has_more(&self) -> bool {
        match (&self.source, self.position) {
            (Source::Shared(Follower { shared, .. }), Position::Next(next)) => shared.has(next),
            _ => false,
        }
    }

    /// Finds the revision to go on from.
    async fn begin(&mut self, start: Start) -> Result<Option<G::State>> {
        self.check()?;
        // The watch is opened before anything is read, so that it covers all that is not in the
        // answer.
        let follower = self.join();
        let skips = follower.shared.skips();
        match follower.shared.base() {
            Ok(Some(_)) => {}
            Ok(None) => {
                follower.changed().await;
                return Ok(None);
            }
            Err(error) => {
                // Another is opened the next time.
                self.source = Source::None;
                return Err(error);
            }
        }
        self.skips = skips;
        let mut state = None;
        let next = match start {
            Start::From(revision) => revision,
            // If it is compacted away, the refusal tells what is not.
            Start::Oldest => {
                self.seeks_oldest = Some(self.link.revision(&self.request.keys).await?);
                Revision(1)
            }
            Start::Now => self.link.revision(&self.request.keys).await?.next(),
            Start::Snapshot => {
                let (revision, read) = self.list().await?;
                state = Some(read);
                revision.next()
            }
        };
        self.backoff.reset();
        self.position = Position::Next(next);
        self.is_lost = false;
        Ok(state)
    }

    /// Refuses what could never tell anything.
    fn check(&self) -> Result<()> {
        let KeyRange { start, end } = &self.request.keys;
        let message = match (self.position, end) {
            (Position::At(Start::From(Revision::ZERO)), _) => {
                "there is no revision 0: begin with the oldest, or with now"
            }
            (_, RangeEnd::Before(end)) if end <= start => "the range of keys to observe is empty",
            _ if start.is_empty() => "the key to observe is empty",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// Takes what there is from revision `next` on, or waits for it.
    async fn advance(&mut self, next: Revision) -> Result<()> {
        if matches!(self.source, Source::None) {
            // How that stands is looked at first.
            self.join();
            return Ok(());
        }
        let Source::Shared(follower) = &mut self.source else {
            return self.catch_up().await;
        };
        match follower.take(next, &mut self.taken) {
            None => follower.changed().await,
            Some(Taken::Changes) => self.took(),
            Some(Taken::Lapped { skips, .. }) if skips != self.skips => {
                self.position = Position::At(Start::Snapshot);
                self.is_lost = true;
            }
            Some(Taken::Lapped { cluster_id, .. }) => {
                let request = self.request.clone().start(next);
                let feed = Feed::new(&self.link, request, Resume::Exactly);
                self.source = Source::Own {
                    feed: Box::new(feed.within(cluster_id)),
                    standing: Standing::Away,
                    shared: Arc::clone(&follower.shared),
                };
            }
            Some(Taken::Ended(error)) => {
                self.source = Source::None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes what there is from the feed of our own, or waits for it.
    async fn catch_up(&mut self) -> Result<()> {
        let Source::Own { feed, standing, .. } = &mut self.source else {
            return Ok(());
        };
        let signal = match *standing {
            Standing::Misses(missed) => feed.next_or_told(missed).await?,
            Standing::Away | Standing::Current => Some(feed.next().await?),
        };
        match signal {
            None => *standing = Standing::Current,
            Some(Signal::Opened(created)) => *standing = Standing::Misses(created.revision),
            Some(Signal::Broken) => *standing = Standing::Away,
            Some(Signal::Batch(batch)) => {
                self.taken.extend(Changes::of(batch));
                self.took();
                self.rejoin();
            }
        }
        Ok(())
    }

    /// Moves on behind what was taken.
    fn took(&mut self) {
        self.seeks_oldest = None;
        self.backoff.reset();
        if let Some(last) = self.taken.back() {
            self.position = Position::Next(last.revision().next());
        }
    }

    /// The watch of those who watch the same.
    fn watched(&self) -> Arc<SharedWatch> {
        let watches = &self.link.core.watches;
        watches.join(&self.link, &self.request, self.wanted)
    }

    /// Joins those who watch the same.
    fn join(&mut self) -> &mut Follower {
        if !matches!(self.source, Source::Shared(_)) {
            self.source = Source::Shared(self.watched().follow());
        }
        match &mut self.source {
            Source::Shared(follower) => follower,
            Source::None | Source::Own { .. } => unreachable!("it was set above"),
        }
    }

    /// Goes back to the shared watch if that has all that is still to be taken.
    fn rejoin(&mut self) {
        let Position::Next(next) = self.position else {
            return;
        };
        let present = self.watched();
        if present.covers(next) {
            self.source = Source::Shared(present.follow());
        } else if let Source::Own { shared, .. } = &mut self.source {
            *shared = present;
        }
    }

    /// Reads all keys at one revision, in pages that fit into an answer.
    async fn list(&mut self) -> Result<(Revision, G::State)> {
        const FIRST_PAGE: i64 = 1000;
        const LARGEST_PAGE: i64 = 20_000;
        const PAGE_BYTES: usize = 8 << 20;

        let (link, gather) = (&self.link, &self.gather);
        let mut state = G::State::default();
        let first = Range::new(self.request.keys.clone()).limit(FIRST_PAGE);
        let mut read = page(link, first).await?;
        loop {
            let (RangeResult { header, kvs, .. }, next) = read;
            let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let each = bytes / kvs.len().max(1) + 1;
            let add = async { gather.add(&mut state, header.revision, kvs) };
            let Some(next) = next else {
                add.await;
                return Ok((header.revision, state));
            };
            let fitting = i64::try_from(PAGE_BYTES / each).unwrap_or(LARGEST_PAGE);
            let next = next.limit(fitting.clamp(1, LARGEST_PAGE));
            // The first of the two is polled first: the next page is asked for before this one is read.
            read = join(page(link, next), add).await.0?;
        }
    }
}

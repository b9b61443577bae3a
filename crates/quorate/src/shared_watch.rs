//! One watch on the store for all observers of a client that follow the same keys.

mod waiters;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    future::{self, poll_fn},
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
};

use tokio_util::sync::{CancellationToken, DropGuard};

use self::waiters::Waiters;
use crate::{
    Changes, Error, ErrorKind, Key, Result, Revision, WatchRequest,
    link::{Link, lock},
    watch::{Feed, Resume, Signal},
};

/// What is kept for observers who are not quite there: those who need more read for themselves.
const MOST_CHANGES: usize = 8192;
const MOST_BYTES: usize = 4 << 20;

/// How much an observer takes at once, so that a slow one does not keep alive what was dropped here.
const TAKEN_BYTES: usize = 256 << 10;

/// When a watch for the [latest](Wanted::Latest) gives up what it missed: once it was told of so many
/// revisions after a break and is behind by so many more. etcd tells a thousand of them ten times a
/// second, and reads a state of many times as many keys meanwhile.
const TOLD_IN_VAIN: usize = 1000;
const FAR_BEHIND: i64 = 4000;

/// The shared watches of one client: what is watched in which namespace, as long as anybody does.
#[derive(Default)]
pub(crate) struct SharedWatches(Mutex<HashMap<(Key, WatchRequest, Wanted), Weak<SharedWatch>>>);

/// What those who watch want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// Every change.
    Changes,
    /// How things stand: who is far behind reads that rather than all that has led there.
    Latest,
}

/// The latest changes of the keys watched, which a task reads and any number of observers take.
pub(crate) struct SharedWatch {
    state: Mutex<State>,
    wanted: Wanted,
    /// Ends the task.
    _stop: DropGuard,
}

#[derive(Default)]
struct State {
    /// Every change after this revision is in `changes`, or yet to come; `None` before the watch was
    /// first opened.
    base: Option<Revision>,
    /// The cluster that is watched; zero before the watch was first opened.
    cluster_id: u64,
    /// The latest changes, by revision.
    changes: VecDeque<Changes>,
    bytes: usize,
    /// The revision up to which the watch has told all, as far as is known.
    told: Revision,
    /// The revision that the watch has to tell to make up for what it missed.
    missed: Option<Revision>,
    /// How many revisions it was told of to make up for that.
    made_up: usize,
    /// How often it gave up what it missed.
    skips: u64,
    /// Whether the stream broke and is not open again.
    broken: bool,
    end: Option<Error>,
    /// Counts what the feed told.
    version: u64,
    waiters: Waiters,
}

/// One of those who follow a shared watch, with a place among those who wait.
pub(crate) struct Follower {
    pub(crate) shared: Arc<SharedWatch>,
    place: usize,
    /// The version of the state when it was looked at last.
    seen: u64,
}

/// What a [`SharedWatch`] has for an observer.
pub(crate) enum Taken {
    /// Changes, at least one.
    Changes,
    /// What the observer needs next is here no more, or was never.
    Lapped { cluster_id: u64, skips: u64 },
    /// Nothing any more: the watch ended after what was taken last.
    Ended(Error),
}

impl SharedWatches {
    /// The watch of `request` in the namespace of `link`, opened if there is none.
    pub(crate) fn join(
        &self,
        link: &Link,
        request: &WatchRequest,
        wanted: Wanted,
    ) -> Arc<SharedWatch> {
        let what = (link.namespace.clone(), request.clone(), wanted);
        let mut watches = lock(&self.0);
        if let Some(present) = watches.get(&what).and_then(Weak::upgrade)
            && !present.has_ended()
        {
            return present;
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let stop = CancellationToken::new();
        let opened = Arc::new(SharedWatch {
            state: Mutex::default(),
            wanted,
            _stop: stop.clone().drop_guard(),
        });
        watches.insert(what, Arc::downgrade(&opened));
        drop(watches);
        let feed = Feed::new(link, request.clone(), Resume::Exactly);
        let reader = Reader(Arc::downgrade(&opened)).read(feed);
        link.runtime().spawn(Box::pin(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = reader => {}
            }
        }));
        opened
    }
}

impl SharedWatch {
    /// Follows it from the present state on.
    pub(crate) fn follow(self: Arc<Self>) -> Follower {
        let mut state = lock(&self.state);
        let (place, seen) = (state.waiters.enter(), state.version);
        drop(state);
        Follower {
            shared: self,
            place,
            seen,
        }
    }

    /// Wakes some of those who are to know that the state is another; false if there are none.
    fn wake_some(&self) -> bool {
        let woken = lock(&self.state).waiters.take();
        // Outside the lock: to wake may run foreign code.
        woken
            .map(|woken| woken.into_iter().for_each(Waker::wake))
            .is_some()
    }

    /// The revision after which every change is here or yet to come, once the watch was opened, or the
    /// error with which it ended.
    pub(crate) fn base(&self) -> Result<Option<Revision>> {
        let state = lock(&self.state);
        match &state.end {
            None => Ok(state.base),
            Some(error) => Err(error.clone()),
        }
    }

    /// Whether the stream has not failed, or is open again and has told what it missed.
    pub(crate) fn is_current(&self) -> bool {
        let state = lock(&self.state);
        !state.broken && state.missed.is_none()
    }

    /// How often it gave up what it missed.
    pub(crate) fn skips(&self) -> u64 {
        lock(&self.state).skips
    }

    /// Whether there are changes from revision `next` on.
    pub(crate) fn has(&self, next: Revision) -> bool {
        let state = lock(&self.state);
        let last = state.changes.back();
        last.is_some_and(|changes| changes.revision() >= next)
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).end.is_some()
    }

    /// Whether everything from revision `next` on is here or yet to come.
    pub(crate) fn covers(&self, next: Revision) -> bool {
        lock(&self.state).base.is_some_and(|base| next > base)
    }

    /// Takes note of what the feed tells; false after its end.
    fn note(&self, signal: Result<Signal>) -> bool {
        let mut state = lock(&self.state);
        match signal {
            Ok(Signal::Opened(header)) => {
                if state.base.is_none() {
                    state.base = Some(header.revision);
                    state.told = header.revision;
                }
                state.cluster_id = header.cluster_id;
                state.broken = false;
                state.missed = Some(header.revision);
                state.made_up = 0;
                state.told_up_to(Revision::ZERO);
            }
            Ok(Signal::Broken) => {
                state.broken = true;
                state.missed = None;
            }
            Ok(Signal::Batch(batch)) => Changes::of(batch).for_each(|changes| state.push(changes)),
            Err(error) => drop(state.end.get_or_insert(error)),
        }
        state.changed()
    }

    /// Gives up what was missed, if it is far too much for who wants the latest; true if so. The next stream
    /// begins with the present.
    fn skip(&self) -> bool {
        let mut state = lock(&self.state);
        let is_far_behind = self.wanted == Wanted::Latest
            && state.made_up >= TOLD_IN_VAIN
            && state
                .missed
                .is_some_and(|missed| missed.0 - state.told.0 > FAR_BEHIND);
        if is_far_behind {
            state.base = None;
            state.changes.clear();
            state.bytes = 0;
            state.skips += 1;
            // Until the next stream is open.
            state.missed = None;
            state.broken = true;
        }
        is_far_behind
    }

    /// Takes note that all that was missed is told; false after the end of the feed.
    fn caught_up(&self) -> bool {
        let mut state = lock(&self.state);
        if let Some(missed) = state.missed {
            state.told_up_to(missed);
        }
        state.changed()
    }
}

impl Follower {
    /// What [changes](Self::changed) from here on is yet to be looked at.
    pub(crate) fn look(&mut self) {
        self.seen = lock(&self.shared.state).version;
    }

    /// Waits until the state is another than when it was [looked at](Self::look) last.
    pub(crate) async fn changed(&self) {
        let is_other = |state: &State| (state.version != self.seen).then_some(());
        poll_fn(|cx| self.poll(cx, is_other)).await;
    }

    /// Takes the changes from revision `next` on; `None` if there are none yet.
    pub(crate) fn take(&self, next: Revision, into: &mut VecDeque<Changes>) -> Option<Taken> {
        lock(&self.shared.state).take(next, into)
    }

    /// Takes the changes from revision `next` on, or waits for some.
    pub(crate) fn poll_take(
        &self,
        next: Revision,
        into: &mut VecDeque<Changes>,
        cx: &Context<'_>,
    ) -> Poll<Taken> {
        self.poll(cx, |state| state.take(next, into))
    }

    /// Looks for something, or waits for the next change, without a gap in between.
    fn poll<T>(&self, cx: &Context<'_>, look: impl FnOnce(&State) -> Option<T>) -> Poll<T> {
        // To clone and to drop it may run foreign code, so that is done outside of the lock.
        let waker = cx.waker().clone();
        let mut state = lock(&self.shared.state);
        if let Some(found) = look(&state) {
            drop(state);
            return Poll::Ready(found);
        }
        let former = state.waiters.wait(self.place, waker);
        drop(state);
        drop(former);
        Poll::Pending
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let former = lock(&self.shared.state).waiters.leave(self.place);
        drop(former);
    }
}

impl State {
    /// Takes the changes from revision `next` on; `None` if there are none yet.
    fn take(&self, next: Revision, into: &mut VecDeque<Changes>) -> Option<Taken> {
        if self.base.is_some_and(|base| next <= base) {
            let Self {
                cluster_id, skips, ..
            } = *self;
            return Some(Taken::Lapped { cluster_id, skips });
        }
        let first = self
            .changes
            .partition_point(|changes| changes.revision() < next);
        let (mut bytes, mut taken) = (0, None);
        for changes in self.changes.range(first..) {
            bytes += changes.bytes();
            into.push_back(changes.clone());
            taken = Some(Taken::Changes);
            if bytes >= TAKEN_BYTES {
                break;
            }
        }
        taken.or_else(|| self.end.clone().map(Taken::Ended))
    }

    /// All are to know that the state is another; false if it is the last.
    fn changed(&mut self) -> bool {
        self.version += 1;
        self.waiters.change();
        self.end.is_none()
    }

    fn push(&mut self, changes: Changes) {
        self.made_up += 1;
        self.told_up_to(changes.revision());
        self.bytes += changes.bytes();
        self.changes.push_back(changes);
        while self.changes.len() > MOST_CHANGES || self.bytes > MOST_BYTES {
            let Some(dropped) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= dropped.bytes();
            self.base = Some(dropped.revision());
        }
    }

    fn told_up_to(&mut self, revision: Revision) {
        self.told = self.told.max(revision);
        if self.missed.is_some_and(|missed| missed <= self.told) {
            self.missed = None;
        }
    }
}

/// The task that reads for all. It keeps nobody's watch alive.
///
/// If it ends before its time, as it does with the runtime of whoever was first, the others are told
/// and open another.
struct Reader(Weak<SharedWatch>);

impl Reader {
    /// Reads the feed into the state until its end.
    async fn read(self, mut feed: Feed) {
        loop {
            let signal = async {
                match self.missed() {
                    Some(missed) => feed.next_or_told(missed).await.transpose(),
                    None => Some(feed.next().await),
                }
            };
            let signal = tokio::select! {
                biased;
                signal = signal => signal,
                never = self.wake_all() => match never {},
            };
            let goes_on = match signal {
                Some(signal) => self.note(signal),
                None => self.caught_up(),
            };
            self.wake_some();
            if !goes_on {
                return;
            }
            if self.skip() {
                feed.skip();
            }
        }
    }

    /// Wakes all who are to know of what was told, then waits for ever.
    async fn wake_all(&self) -> Infallible {
        while self.wake_some() {
            tokio::task::yield_now().await;
        }
        future::pending().await
    }

    fn wake_some(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.wake_some())
    }

    /// The revision that an open stream still has to tell to make up for what was missed.
    fn missed(&self) -> Option<Revision> {
        lock(&self.0.upgrade()?.state).missed
    }

    fn skip(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.skip())
    }

    fn caught_up(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.caught_up())
    }

    fn note(&self, signal: Result<Signal>) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.note(signal))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let message = "the runtime in which the watch was read has ended";
        self.note(Err(Error::new(ErrorKind::Unavailable, message)));
        while self.wake_some() {}
    }
}

impl fmt::Debug for SharedWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatches").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_changes_after_a_look_is_not_waited_for() {
        let shared = Arc::new(SharedWatch {
            state: Mutex::default(),
            wanted: Wanted::Latest,
            _stop: CancellationToken::new().drop_guard(),
        });
        let mut follower = Arc::clone(&shared).follow();
        assert!(follower.changed().now_or_never().is_none());
        follower.look();
        assert!(shared.is_current());
        shared.note(Ok(Signal::Broken));
        assert!(follower.take(Revision(1), &mut VecDeque::new()).is_none());
        assert!(follower.changed().now_or_never().is_some());
        follower.look();
        assert!(follower.changed().now_or_never().is_none());
    }
}

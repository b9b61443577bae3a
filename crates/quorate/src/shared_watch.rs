//! One watch on the store for all observers of a client that follow the same keys.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt, future,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

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
    bells: Mutex<Bells>,
    wanted: Wanted,
    /// Ends the task.
    _stop: DropGuard,
}

/// How many observers are woken at once. Others who wait for the scheduler get their turn before the next are,
/// and what comes meanwhile is told with the rest.
const WOKEN_AT_ONCE: usize = 16;

/// Tell that the state is another, each to some of the observers. They count nothing: the state is what is
/// looked at.
#[derive(Default)]
struct Bells {
    bells: Vec<watch::Sender<()>>,
    /// Which of them rings next.
    next: usize,
    /// How many have not rung since the state became another.
    due: usize,
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
}

/// What a [`SharedWatch`] has for an observer.
pub(crate) enum Taken {
    /// Changes, at least one.
    Changes,
    /// Nothing now.
    Nothing,
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
            bells: Mutex::default(),
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
    /// Tells of every later change of the state.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        let mut bells = lock(&self.bells);
        let has_room = |bell: &&watch::Sender<()>| bell.receiver_count() < WOKEN_AT_ONCE;
        if let Some(bell) = bells.bells.iter().rev().find(has_room) {
            return bell.subscribe();
        }
        let (bell, changed) = watch::channel(());
        bells.bells.push(bell);
        if bells.due > 0 {
            // It may have come between those that are to ring.
            bells.due += 1;
        }
        changed
    }

    /// The state is another: all bells are to ring, the first at once.
    fn ring(&self) {
        let mut bells = lock(&self.bells);
        bells.due = bells.bells.len();
        drop(bells);
        self.ring_next();
    }

    /// Lets the next bell ring that is to; false if none is.
    fn ring_next(&self) -> bool {
        let mut bells = lock(&self.bells);
        let Some(due) = bells.due.checked_sub(1) else {
            return false;
        };
        bells.due = due;
        bells.next = (bells.next + 1) % bells.bells.len();
        let bell = bells.bells[bells.next].clone();
        drop(bells);
        bell.send_replace(());
        true
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

    /// Takes the changes from revision `next` on.
    pub(crate) fn take(&self, next: Revision, into: &mut VecDeque<Changes>) -> Taken {
        let state = lock(&self.state);
        if state.base.is_some_and(|base| next <= base) {
            let State {
                cluster_id, skips, ..
            } = *state;
            return Taken::Lapped { cluster_id, skips };
        }
        let first = state
            .changes
            .partition_point(|changes| changes.revision() < next);
        let mut bytes = 0;
        let mut taken = Taken::Nothing;
        for changes in state.changes.range(first..) {
            bytes += changes.bytes();
            into.push_back(changes.clone());
            taken = Taken::Changes;
            if bytes >= TAKEN_BYTES {
                break;
            }
        }
        match (taken, &state.end) {
            (Taken::Nothing, Some(end)) => Taken::Ended(end.clone()),
            (taken, _) => taken,
        }
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
        let goes_on = state.end.is_none();
        drop(state);
        self.ring();
        goes_on
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
        let goes_on = state.end.is_none();
        drop(state);
        self.ring();
        goes_on
    }
}

impl State {
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
                never = self.ring() => match never {},
            };
            let goes_on = match signal {
                Some(signal) => self.note(signal),
                None => self.caught_up(),
            };
            if !goes_on {
                return;
            }
            if self.skip() {
                feed.skip();
            }
        }
    }

    /// Lets the bells ring that are to, then waits for ever.
    async fn ring(&self) -> Infallible {
        while self.0.upgrade().is_some_and(|shared| shared.ring_next()) {
            tokio::task::yield_now().await;
        }
        future::pending().await
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
        while self.0.upgrade().is_some_and(|shared| shared.ring_next()) {}
    }
}

impl fmt::Debug for SharedWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatches").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> SharedWatch {
        SharedWatch {
            state: Mutex::default(),
            bells: Mutex::default(),
            wanted: Wanted::Changes,
            _stop: CancellationToken::new().drop_guard(),
        }
    }

    #[test]
    fn all_are_told_that_the_state_is_another_some_at_a_time() {
        let shared = shared();
        let observers: Vec<_> = (0..100).map(|_| shared.subscribe()).collect();
        let told = || {
            let observers = observers.iter();
            observers.filter(|one| one.has_changed().unwrap()).count()
        };
        shared.ring();
        assert_eq!(told(), WOKEN_AT_ONCE);
        while shared.ring_next() {}
        assert_eq!(told(), observers.len());
    }

    #[test]
    fn who_comes_while_others_are_told_keeps_nobody_from_it() {
        for known in 1..5 {
            for rung in 0..known {
                for rung_before in 0..known {
                    let shared = shared();
                    let full = known * WOKEN_AT_ONCE;
                    let mut observers: Vec<_> = (0..full).map(|_| shared.subscribe()).collect();
                    shared.ring();
                    (0..rung_before).for_each(|_| assert!(shared.ring_next()));
                    observers.iter_mut().for_each(|one| one.mark_unchanged());
                    shared.ring();
                    (0..rung).for_each(|_| assert!(shared.ring_next()));
                    let _newcomer = shared.subscribe();
                    while shared.ring_next() {}
                    let told = observers.iter().all(|one| one.has_changed().unwrap());
                    assert!(
                        told,
                        "{known} bells, {rung_before} rung before, then {rung}"
                    );
                }
            }
        }
    }

    #[test]
    fn observers_who_left_leave_room() {
        let shared = shared();
        for _ in 0..10 {
            let observers: Vec<_> = (0..100).map(|_| shared.subscribe()).collect();
            drop(observers);
        }
        assert_eq!(
            lock(&shared.bells).bells.len(),
            100_usize.div_ceil(WOKEN_AT_ONCE)
        );
    }
}

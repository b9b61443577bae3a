//! The keeper's task: brings each key to what its owner wants, and back to it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    Keeper, Slot,
    entry::{Entry, Verdict},
    flight::Flight,
    tenure::Tenure,
    watches::{News, Watches},
};
use crate::{
    Error, ErrorKind, Event, Key, Loss, Moment, Result, Session, TxnResult, WatchBatch,
    link::{Core, Link},
    retry::Backoff,
    session::closed,
};

/// How long a key rests that was refused, if its owner cannot be told so.
const LATER: Duration = Duration::from_secs(5);

/// The task of one [`Keeper`].
pub(super) struct Task {
    pub(super) keeper: Arc<Keeper>,
    /// The client, which lives as long as the owners of keys do.
    pub(super) core: Weak<Core>,
    /// The way to all keys, which does not keep the client.
    pub(super) link: Link,
    pub(super) entries: BTreeMap<Key, Entry>,
    /// How many entries are not yet gone for their owners.
    pub(super) open: usize,
    /// The entries with work to do, in order.
    pub(super) line: VecDeque<Key>,
    pub(super) tenure: Tenure,
    pub(super) flight: Option<Flight>,
    pub(super) backoff: Backoff,
    /// Nothing is sent, and no session asked for, before this moment.
    pub(super) paused_until: Option<Moment>,
    /// The entries that are to be tried again, and when.
    pub(super) later: BTreeSet<(Moment, Key)>,
    pub(super) watches: Watches,
    pub(super) unwatched: BTreeSet<Key>,
    /// When to watch what is not watched yet.
    pub(super) watch_at: Option<Moment>,
    /// Whether it ended for want of work, rather than being torn down.
    pub(super) ended: bool,
}

/// What the task wakes up for.
enum Wake {
    Answer(Result<TxnResult>),
    Inbox,
    Lost(Loss),
    News(News),
    Opened(Result<Session>),
    Time,
}

impl Task {
    pub(super) fn new(keeper: Arc<Keeper>, link: &Link) -> Self {
        let core = Arc::downgrade(&link.core);
        let link = link.root().detached();
        Self {
            keeper,
            core,
            entries: BTreeMap::new(),
            open: 0,
            line: VecDeque::new(),
            tenure: Tenure::Vacant,
            flight: None,
            backoff: Backoff::new(link.runtime()),
            paused_until: None,
            later: BTreeSet::new(),
            watches: Watches::new(link.clone()),
            unwatched: BTreeSet::new(),
            watch_at: None,
            ended: false,
            link,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let idle = self.entries.is_empty() && self.flight.is_none();
            let Some(slots) = self.keeper.take_inbox(idle) else {
                self.ended = true;
                return;
            };
            for slot in slots {
                self.look_at(slot);
            }
            self.look_at_the_clock();
            self.tend_session();
            self.send();
            if self.entries.is_empty() && self.flight.is_none() {
                continue;
            }
            match self.wake().await {
                Wake::Answer(answer) => {
                    let flight = self.flight.as_ref();
                    let gathers = flight.is_some_and(|flight| flight.batch.gathers());
                    self.answered(answer);
                    if gathers {
                        tokio::task::yield_now().await;
                    }
                }
                Wake::Inbox | Wake::Time => {}
                Wake::Lost(loss) => self.lost(loss),
                Wake::News(News::Changes(batch)) => self.hear(&batch),
                Wake::News(News::Missed(paths)) => self.missed(&paths),
                Wake::News(News::Refused(path)) => self.retry_later(path),
                Wake::News(News::Exchanged) => self.start_over(),
                Wake::Opened(session) => self.opened(session),
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let times = [
            self.paused_until,
            self.watch_at,
            self.later.first().map(|(when, _)| *when),
        ];
        let runtime = Arc::clone(self.link.runtime());
        let time = async {
            match times.into_iter().flatten().min() {
                Some(time) => runtime.sleep_until(time).await,
                None => future::pending().await,
            }
        };
        let answer = async {
            match &mut self.flight {
                Some(flight) => (&mut flight.answer).await,
                None => future::pending().await,
            }
        };
        let tenure = async {
            match &mut self.tenure {
                Tenure::Held(session) => Wake::Lost(session.lost_by_signal().await),
                Tenure::Left(session, _) => Wake::Lost(session.lost_by_signal().await),
                Tenure::Opening(opening) => Wake::Opened(opening.await),
                Tenure::Vacant => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            wake = tenure => wake,
            answer = answer => Wake::Answer(answer),
            news = self.watches.next() => Wake::News(news),
            () = self.keeper.wake.notified() => Wake::Inbox,
            () = time => Wake::Time,
        }
    }

    /// Takes over what the owner of a slot wants.
    fn look_at(&mut self, slot: Arc<Slot>) {
        if slot.told().gone.is_some() {
            return;
        }
        let path = slot.path.clone();
        match self.entries.get_mut(&path) {
            None => {
                self.watches.add(&path);
                self.entries.insert(path.clone(), Entry::new(slot));
                self.open += 1;
            }
            Some(entry) if Arc::ptr_eq(&entry.slot, &slot) => entry.goal = slot.goal(),
            // Of the former owner there is only what may still be on its way.
            Some(entry) => {
                entry.pass_to(slot);
                self.open += 1;
            }
        }
        self.review(&path);
    }

    /// Takes up what was put off until now.
    fn look_at_the_clock(&mut self) {
        let now = self.link.runtime().now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        while self.later.first().is_some_and(|(when, _)| *when <= now) {
            if let Some((_, path)) = self.later.pop_first() {
                self.missed(&[path]);
            }
        }
        if self.watch_at.is_some_and(|when| when <= now) {
            self.watch_at = None;
            let mut known = Vec::new();
            for path in std::mem::take(&mut self.unwatched) {
                // What is unknown now is watched from where it becomes known.
                if let Some(entry) = self.entries.get_mut(&path)
                    && let Some(from) = entry.unseen_from()
                {
                    entry.watched = true;
                    known.push((path, from));
                }
            }
            self.watches.watch(&known);
        }
    }

    fn hear(&mut self, batch: &WatchBatch) {
        for event in &batch.events {
            let Some(entry) = self.entries.get_mut(event.key()) else {
                continue;
            };
            if entry.is_left() && !entry.may_have_made(event) {
                continue;
            }
            if entry.hear(event.revision()) {
                if matches!(event, Event::Delete { .. }) && entry.goal.is_some() {
                    entry.report_gap();
                }
                self.review(event.key());
            }
        }
    }

    fn missed(&mut self, paths: &[Key]) {
        for path in paths {
            if let Some(entry) = self.entries.get_mut(path) {
                entry.forget();
                self.review(path);
            }
        }
    }

    /// Brings a key forward that has work to do, and ends what is over. While a step of it is on its way
    /// that waits for the answer.
    pub(super) fn review(&mut self, path: &Key) {
        let lease = self.tenure.held().map(Session::lease);
        let Some(entry) = self.entries.get_mut(path) else {
            return;
        };
        if !entry.watched && entry.unseen_from().is_some() {
            match self.watches.delay(path) {
                None => entry.watched = true,
                Some(delay) => {
                    if self.unwatched.insert(path.clone()) {
                        let when = self.link.runtime().now() + delay;
                        self.watch_at = Some(self.watch_at.map_or(when, |other| other.min(when)));
                    }
                }
            }
        }
        if entry.in_flight {
            return;
        }
        match entry.verdict(lease) {
            Verdict::Conflict => {
                entry.slot.lose(Loss::Conflict);
                let outcome = Err(Error::lost(Loss::Conflict, &entry.slot.name));
                self.finish(path, outcome);
            }
            Verdict::Gone => self.finish(path, Ok(())),
            Verdict::Rest => {}
            Verdict::Taken => {
                let error = Error::new(ErrorKind::AlreadyExists, "another owner has this key");
                self.refuse(path, &error);
            }
            Verdict::Work => {
                if !entry.in_line {
                    entry.in_line = true;
                    self.line.push_back(path.clone());
                }
            }
        }
    }

    pub(super) fn review_all(&mut self) {
        for path in self.paths() {
            self.review(&path);
        }
    }

    /// A key will not be made for its owner.
    pub(super) fn refuse(&mut self, path: &Key, error: &Error) {
        if let Some(entry) = self.entries.get_mut(path) {
            let refused = Some((u64::MAX, error.clone()));
            entry.slot.tell(|told| told.refused = refused);
            entry.slot.lose(Loss::Conflict);
            self.finish(path, Err(error.clone()));
        }
    }

    /// It is over for a key's owner. The key is watched on as long as it may stand under a lease that
    /// lives, or an attempt to make it may be on its way.
    pub(super) fn finish(&mut self, path: &Key, outcome: Result<()>) {
        let Some(entry) = self.entries.get_mut(path) else {
            return;
        };
        if entry.slot.told().gone.is_none() {
            self.keeper.paths.close(&entry.slot);
            entry.slot.tell_gone(outcome);
            self.open -= 1;
        }
        entry.goal = None;
        let lease = self.tenure.lease();
        if !lease.is_some_and(|lease| entry.may_stand_under(lease)) {
            self.entries.remove(path);
            self.unwatched.remove(path);
            self.watches.remove(path);
        }
    }

    /// Lets a key rest that was refused, then looks at it, and watches it, anew.
    pub(super) fn retry_later(&mut self, path: Key) {
        let when = self.link.runtime().now() + LATER;
        self.later.insert((when, path));
    }

    pub(super) fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        self.paused_until = Some(self.link.runtime().now() + pause);
    }

    pub(super) fn paths(&self) -> Vec<Key> {
        self.entries.keys().cloned().collect()
    }
}

/// If the task is torn down before its end nobody keeps the keys any more.
impl Drop for Task {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Whoever comes from now on starts another.
        let slots = self.keeper.abandon_inbox();
        let entries = std::mem::take(&mut self.entries);
        let kept = entries.into_values().map(|entry| entry.slot);
        for slot in kept.chain(slots) {
            slot.lose(Loss::Closed);
            self.keeper.paths.close(&slot);
            slot.tell_gone(Err(closed()));
        }
    }
}

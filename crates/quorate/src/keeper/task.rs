//! The keeper's task: brings each key to what its owner wants, and back to it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;

use super::{
    Keeper, Slot,
    batch::{Batch, Sent},
    entry::{Entry, Verdict},
    watches::{News, Watches},
};
use crate::{
    Error, ErrorKind, Event, Key, LeaseId, Loss, Moment, Result, Session, TxnResult, WatchBatch,
    link::{Core, Link},
    retry::Backoff,
    session::{WeakSession, closed},
};

/// How long a key stands before it is watched, so that many are watched at once, and short-lived ones
/// never. The watch begins where the knowledge ends, so nothing is missed.
const UNWATCHED: Duration = Duration::from_millis(100);

/// When a key that was refused is tried again, if its owner cannot be told so.
const LATER: Duration = Duration::from_secs(5);

/// The task of one [`Keeper`].
pub(super) struct Task {
    keeper: Arc<Keeper>,
    /// The client, which lives as long as the owners of keys do.
    core: Weak<Core>,
    /// The way to all keys, which does not keep the client.
    link: Link,
    entries: HashMap<Key, Entry>,
    /// How many entries are not yet gone for their owners.
    open: usize,
    /// The entries with work to do, in order.
    line: VecDeque<Key>,
    tenure: Tenure,
    flight: Option<Flight>,
    backoff: Backoff,
    /// Nothing is sent, and no session asked for, before this moment.
    paused_until: Option<Moment>,
    /// The entries that are to be tried again, and when.
    later: BTreeSet<(Moment, Key)>,
    watches: Watches,
    unwatched: BTreeSet<Key>,
    /// When to watch what is not watched yet.
    watch_at: Option<Moment>,
    /// Whether it ended for want of work, rather than being torn down.
    ended: bool,
}

/// The session by whose lease the keys live.
enum Tenure {
    Held(Session),
    /// Nothing is kept, but attempts to make keys may be on their way until it is over.
    Left(WeakSession, LeaseId),
    Opening(BoxFuture<'static, Result<Session>>),
    Vacant,
}

/// A batch on its way.
struct Flight {
    batch: Batch,
    answer: BoxFuture<'static, Result<TxnResult>>,
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
            entries: HashMap::new(),
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
                Wake::Answer(answer) => self.answered(answer),
                Wake::Inbox | Wake::Time => {}
                Wake::Lost(loss) => self.lost(loss),
                Wake::News(News::Changes(batch)) => self.hear(&batch),
                Wake::News(News::Missed(paths)) => self.missed(&paths),
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
                self.review(&path);
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

    /// Has a session while any key needs one, and lets it go when none does.
    fn tend_session(&mut self) {
        if self.core.strong_count() == 0 {
            // The client is gone, and all owners with it: the end of the session is the end of all.
            self.flight = None;
            self.tenure = Tenure::Vacant;
            for path in self.paths() {
                self.finish(&path, Err(closed()));
            }
            return;
        }
        if self.open == 0 {
            match std::mem::replace(&mut self.tenure, Tenure::Vacant) {
                Tenure::Held(session) => {
                    self.tenure = Tenure::Left(session.downgrade(), session.lease());
                }
                Tenure::Opening(_) => {}
                former => self.tenure = former,
            }
            return;
        }
        if let Tenure::Left(session, _) = &self.tenure
            && let Some(session) = session.upgrade()
        {
            self.tenure = Tenure::Held(session);
            self.review_all();
        }
        if !matches!(self.tenure, Tenure::Vacant) || self.paused_until.is_some() {
            return;
        }
        if !self.entries.values().any(|entry| entry.goal.is_some()) {
            return;
        }
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let (sessions, ttl) = (core.sessions.clone(), self.keeper.ttl);
        self.tenure = Tenure::Opening(Box::pin(async move {
            match ttl {
                None => sessions.shared().await,
                Some(ttl) => sessions.create(ttl).await,
            }
        }));
    }

    fn opened(&mut self, session: Result<Session>) {
        self.tenure = Tenure::Vacant;
        match session {
            Ok(session) => {
                self.tenure = Tenure::Held(session);
                self.review_all();
            }
            Err(error) => {
                let hopeless = !error.is_retryable();
                self.pause();
                for path in self.paths() {
                    let Some(entry) = self.entries.get(&path) else {
                        continue;
                    };
                    if hopeless && entry.goal.is_some() && !entry.is_made() {
                        self.refuse(&path, &error);
                    } else {
                        entry.slot.tell(|told| told.error = Some(error.clone()));
                    }
                }
            }
        }
    }

    /// The session is over. What it held comes back under another, unless its owner ended it.
    fn lost(&mut self, loss: Loss) {
        let tenure = std::mem::replace(&mut self.tenure, Tenure::Vacant);
        let lease = match &tenure {
            Tenure::Held(session) => session.lease(),
            Tenure::Left(_, lease) => *lease,
            Tenure::Opening(_) | Tenure::Vacant => return,
        };
        tracing::debug!(%lease, %loss, "the session of ephemeral keys is over");
        for path in self.paths() {
            let Some(entry) = self.entries.get_mut(&path) else {
                continue;
            };
            // What may still come is over with the lease.
            if loss == Loss::Closed {
                entry.slot.lose(Loss::Closed);
                entry.goal = None;
                entry.session_is_over(lease);
                let outcome = Err(Error::lost(Loss::Closed, &entry.slot.name));
                self.finish(&path, outcome);
                continue;
            }
            entry.report_gap();
            entry.session_is_over(lease);
            self.review(&path);
        }
    }

    fn hear(&mut self, batch: &WatchBatch) {
        for event in &batch.events {
            let Some(entry) = self.entries.get_mut(event.key()) else {
                continue;
            };
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

    /// Sends what there is to send, unless something is on its way.
    fn send(&mut self) {
        if self.flight.is_some() || self.paused_until.is_some() {
            return;
        }
        let session = match &self.tenure {
            Tenure::Held(session) if !session.is_lost() => Some(session.clone()),
            _ => None,
        };
        let lease = session.as_ref().map(Session::lease);
        let mut batch = Batch::new(session);
        while !batch.is_full()
            && let Some(path) = self.line.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&path) else {
                continue;
            };
            let Some((step, txn)) = entry.plan(lease) else {
                entry.in_line = false;
                continue;
            };
            let bytes = entry.bytes();
            if !batch.is_empty() && (entry.alone || !batch.has_room_for(bytes)) {
                self.line.push_front(path);
                break;
            }
            entry.in_line = false;
            let alone = entry.alone;
            let goal = entry.goal.clone();
            batch.add(Sent { path, step, goal }, txn, bytes);
            if alone {
                break;
            }
        }
        if batch.is_empty() {
            return;
        }
        let (link, txn) = (self.link.clone(), batch.take_txn());
        let answer = Box::pin(async move { link.txn(txn).await });
        self.flight = Some(Flight { batch, answer });
    }

    fn answered(&mut self, answer: Result<TxnResult>) {
        let Some(Flight { batch, .. }) = self.flight.take() else {
            return;
        };
        match answer.and_then(|answer| batch.answers(answer)) {
            Ok((at, answers)) => {
                self.backoff.reset();
                let lease = batch.session.as_ref().map(Session::lease);
                for (sent, answer) in batch.steps.iter().zip(&answers) {
                    let Some(entry) = self.entries.get_mut(&sent.path) else {
                        continue;
                    };
                    let learnt = entry.learn(sent.step, sent.goal.as_ref(), lease, at, answer);
                    if let Tenure::Held(session) = &self.tenure {
                        entry.report(Some(session));
                    } else {
                        entry.report(None);
                    }
                    if !learnt {
                        self.pause();
                    }
                    self.review(&sent.path);
                }
            }
            Err(error) => self.failed(batch, &error),
        }
    }

    fn failed(&mut self, batch: Batch, error: &Error) {
        tracing::debug!(%error, keys = batch.steps.len(), "ephemeral keys not written");
        let changed = error.kind() == ErrorKind::ClusterChanged;
        if changed {
            self.start_over();
        }
        let lease = batch.session.as_ref().map(Session::lease);
        let is_unclear = error.is_indefinite() || changed || error.kind() == ErrorKind::Internal;
        if is_unclear {
            for sent in &batch.steps {
                if let Some(entry) = self.entries.get_mut(&sent.path) {
                    entry.doubt(sent.step, lease);
                }
            }
        }
        let is_lease_gone = error.kind() == ErrorKind::NotFound && batch.puts();
        if is_lease_gone && let Some(session) = &batch.session {
            session.revoked();
        }
        if is_lease_gone || is_unclear || error.is_retryable() {
            self.pause();
        } else if let [sent] = &*batch.steps {
            self.guilty(sent, error);
            return;
        }
        // One key's fault must not keep the others: from now on each goes alone until it is written.
        let alone = !is_lease_gone && !error.is_retryable() && !changed;
        for sent in &batch.steps {
            if let Some(entry) = self.entries.get_mut(&sent.path) {
                entry.alone |= alone;
                entry.slot.tell(|told| told.error = Some(error.clone()));
            }
            self.review(&sent.path);
        }
    }

    /// A key's step was refused on its own account.
    fn guilty(&mut self, sent: &Sent, error: &Error) {
        let path = &sent.path;
        let Some(entry) = self.entries.get_mut(path) else {
            return;
        };
        entry.alone = true;
        let Some(goal) = &sent.goal else {
            return self.finish(path, Err(error.clone()));
        };
        if entry.goal.is_none() {
            return self.review(path);
        }
        let error = if entry.in_doubt {
            error.clone().indefinite()
        } else {
            error.clone()
        };
        match entry.kept.clone() {
            None => self.refuse(path, &error),
            Some(kept) if goal.number > kept.number => {
                // The owner learns of it, and the key keeps the value that it had.
                entry.slot.revert(goal.number, &kept);
                entry.goal = entry.slot.goal();
                entry
                    .slot
                    .tell(|told| told.refused = Some((goal.number, error)));
                self.review(path);
            }
            Some(_) => {
                entry.slot.tell(|told| told.error = Some(error));
                let when = self.link.runtime().now() + LATER;
                self.later.insert((when, path.clone()));
            }
        }
    }

    /// Brings a key forward that has work to do, and ends what is over.
    fn review(&mut self, path: &Key) {
        let lease = match &self.tenure {
            Tenure::Held(session) => Some(session.lease()),
            _ => None,
        };
        let Some(entry) = self.entries.get_mut(path) else {
            return;
        };
        if !entry.watched && entry.unseen_from().is_some() && self.unwatched.insert(path.clone()) {
            let now = self.link.runtime().now();
            self.watch_at.get_or_insert(now + UNWATCHED);
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
                let message = format!("{}: another owner has this key", entry.slot.name);
                self.refuse(path, &Error::new(ErrorKind::AlreadyExists, message));
            }
            Verdict::Work => {
                if !entry.in_line {
                    entry.in_line = true;
                    self.line.push_back(path.clone());
                }
            }
        }
    }

    fn review_all(&mut self) {
        for path in self.paths() {
            self.review(&path);
        }
    }

    /// A key will not be made for its owner.
    fn refuse(&mut self, path: &Key, error: &Error) {
        if let Some(entry) = self.entries.get_mut(path) {
            let refused = Some((u64::MAX, error.clone()));
            entry.slot.tell(|told| told.refused = refused);
            entry.slot.lose(Loss::Conflict);
            self.finish(path, Err(error.clone()));
        }
    }

    /// It is over for a key's owner. The key is watched on as long as an attempt to make it may be on
    /// its way under a lease that lives.
    fn finish(&mut self, path: &Key, outcome: Result<()>) {
        let Some(entry) = self.entries.get_mut(path) else {
            return;
        };
        if entry.slot.told().gone.is_none() {
            self.keeper.paths.close(&entry.slot);
            entry.slot.tell_gone(outcome);
            self.open -= 1;
        }
        entry.goal = None;
        let lives = match &self.tenure {
            Tenure::Held(session) => Some(session.lease()),
            Tenure::Left(_, lease) => Some(*lease),
            Tenure::Opening(_) | Tenure::Vacant => None,
        };
        if !lives.is_some_and(|lease| entry.may_come_under(lease)) {
            self.entries.remove(path);
            self.unwatched.remove(path);
            self.watches.remove(path);
        }
    }

    /// Nothing that was known of the store holds any more: it is another one.
    fn start_over(&mut self) {
        self.watches = Watches::new(self.link.clone());
        for (path, entry) in &mut self.entries {
            self.watches.add(path);
            entry.start_over();
        }
        self.review_all();
    }

    fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        self.paused_until = Some(self.link.runtime().now() + pause);
    }

    fn paths(&self) -> Vec<Key> {
        self.entries.keys().cloned().collect()
    }
}

/// If the task is torn down before its end nobody keeps the keys any more.
impl Drop for Task {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let slots = self.keeper.take_inbox(false).unwrap_or_default();
        let kept = self.entries.drain().map(|(_, entry)| entry.slot);
        for slot in kept.chain(slots) {
            slot.lose(Loss::Closed);
            self.keeper.paths.close(&slot);
            slot.tell_gone(Err(closed()));
        }
        // Nothing came meanwhile that will be kept: whoever comes next starts another.
        self.keeper.take_inbox(true);
    }
}

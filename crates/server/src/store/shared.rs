//! The store behind its lock, and the task that expires its leases.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use quorate_engine::{Error, Revision, Store};
use quorate_wire::etcdserverpb as pb;
use tokio::{sync::Notify, time::Instant};
use tonic::{Response, Status};

use crate::{
    access::{Need, caller::Caller, token::Tokens},
    convert::header_to_wire,
    services::queue::Queued,
    status::refused,
    store::{
        journal::{Journal, Opened, Position},
        watches::Watches,
    },
};

/// The version of etcd that is served.
pub(crate) const VERSION: &str = "3.5.0";

/// A store, and who waits for it.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) progress_interval: Duration,
    origin: Instant,
    /// A std mutex: no call waits for anything while it holds it.
    state: Mutex<State>,
    /// Wakes the expiry task before its time.
    nudge: Notify,
    /// Where writes go, if they are to survive.
    journal: Option<Arc<Journal>>,
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) watches: Watches,
    pub(crate) queued: Queued,
    pub(crate) tokens: Tokens,
    /// Until when the expiry task sleeps.
    timer: Option<Duration>,
    /// How far the time of the store is ahead of the clock.
    ahead: Duration,
}

impl Shared {
    /// A store that was opened, or one in memory.
    pub(crate) fn new(
        url: String,
        progress_interval: Duration,
        opened: Option<Opened>,
    ) -> Arc<Self> {
        let (store, journal) = match opened {
            Some(Opened { store, journal }) => (store, Some(journal)),
            None => (Store::new(fastrand::u64(1..), fastrand::u64(1..)), None),
        };
        Arc::new(Self {
            url,
            progress_interval,
            origin: Instant::now(),
            state: Mutex::new(State {
                store,
                watches: Watches::default(),
                queued: Queued::default(),
                tokens: Tokens::default(),
                timer: None,
                ahead: Duration::ZERO,
            }),
            nudge: Notify::new(),
            journal,
        })
    }

    /// Nothing that holds the lock runs foreign code, so a panic that poisoned it was not between
    /// two changes that belong together.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request of gRPC, if its caller may ask for it, once all that it saw will survive. A
    /// write that is not waited for is done all the same.
    pub(crate) async fn answer<T>(
        &self,
        caller: &Caller,
        need: Need<'_>,
        call: impl FnOnce(&mut State, Duration) -> Result<T, Error>,
    ) -> Result<Response<T>, Status> {
        if let Some(journal) = &self.journal {
            journal.ready().await?;
        }
        let (answer, seen) = self.look(|state, now| {
            state.permit(now, caller, need)?;
            call(state, now)
        });
        self.durable(seen).await?;
        answer.map(Response::new).map_err(refused)
    }

    /// Runs a call after whatever is due, then wakes whom the changes concern. Nobody may hear of
    /// what it returns until its position is [durable](Shared::durable), refusals included: after a
    /// crash it would never have been. It asks for nobody's rights: handlers have
    /// [`answer`](Self::answer), and streams [`State::permit`].
    pub(crate) fn look<T>(&self, call: impl FnOnce(&mut State, Duration) -> T) -> (T, Position) {
        let mut wakers = Vec::new();
        let (answer, seen, sooner) = {
            let mut state = self.lock();
            let now = self.origin.elapsed().saturating_add(state.ahead);

            // A compaction may take the changes away, so those that were due are looked at first.
            let before = state.store.header().revision;
            state.store.tick(now);
            state.tell(before, &mut wakers);
            let before = state.store.header().revision;
            let answer = call(&mut state, now);
            state.tell(before, &mut wakers);
            let seen = match &self.journal {
                Some(journal) => journal.append(state.store.take_records()),
                None => Position::default(),
            };
            (answer, seen, state.set_timer())
        };
        // Outside the lock: to wake may run foreign code.
        wakers.into_iter().for_each(Waker::wake);
        if sooner {
            self.nudge.notify_one();
        }
        (answer, seen)
    }

    /// Refuses everything once the disk has failed.
    pub(crate) fn check(&self) -> Result<(), Status> {
        match &self.journal {
            Some(journal) => journal.check(),
            None => Ok(()),
        }
    }

    /// Whether all up to a position is on disk. Without a journal nothing need be.
    ///
    /// # Errors
    ///
    /// "Unavailable", once the disk has failed.
    pub(crate) fn is_durable(&self, position: Position) -> Result<bool, Status> {
        let Some(journal) = &self.journal else {
            return Ok(true);
        };
        journal.check()?;
        Ok(journal.is_durable(position))
    }

    /// Waits until all up to a position is on disk.
    ///
    /// # Errors
    ///
    /// "Unavailable", if it never will be.
    pub(crate) async fn durable(&self, position: Position) -> Result<(), Status> {
        match &self.journal {
            Some(journal) => journal.durable(position).await,
            None => Ok(()),
        }
    }

    /// Lets the time jump, and ends the leases that are due then.
    pub(crate) fn advance(&self, by: Duration) {
        {
            let mut state = self.lock();
            state.ahead = state.ahead.saturating_add(by);
        }
        self.look(|_, _| ());
        self.nudge.notify_one();
    }
}

impl State {
    /// The header of an answer.
    pub(crate) const fn header(&self) -> Option<pb::ResponseHeader> {
        Some(header_to_wire(self.store.header()))
    }

    fn tell(&mut self, before: Revision, wakers: &mut Vec<Waker>) {
        self.watches.tell(&self.store, before, wakers);
    }

    /// Notes when the next lease ends, and whether the expiry task would look too late.
    fn set_timer(&mut self) -> bool {
        let next = self.store.next_expiry();
        let sooner = match (next, self.timer) {
            (Some(next), Some(timer)) => next < timer,
            (next, None) => next.is_some(),
            (None, Some(_)) => false,
        };
        if sooner {
            self.timer = next;
        }
        sooner
    }
}

/// Ends leases when their time has come.
pub(crate) async fn expire(shared: Arc<Shared>) {
    loop {
        let (left, _) = shared.look(|state, now| {
            let next = state.store.next_expiry();
            state.timer = next;
            next.map(|next| next.saturating_sub(now))
        });
        let nudged = shared.nudge.notified();
        match left {
            // Whether it was nudged or has slept enough, it looks again.
            Some(left) => drop(tokio::time::timeout(left, nudged).await),
            None => nudged.await,
        }
    }
}

/// Ends all streams of watches once nothing more can be written.
pub(crate) async fn end_watches(shared: Arc<Shared>) {
    if let Some(journal) = &shared.journal {
        journal.failed().await;
        let wakers = shared.lock().watches.wakers();
        wakers.into_iter().for_each(Waker::wake);
    }
}

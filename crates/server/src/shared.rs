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
    access::Need, caller::Caller, convert::header_to_wire, queue::Queued, status::refused,
    token::Tokens, watches::Watches,
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
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) watches: Watches,
    pub(crate) queued: Queued,
    pub(crate) tokens: Tokens,
    /// Until when the expiry task sleeps.
    timer: Option<Duration>,
}

impl Shared {
    pub(crate) fn new(url: String, progress_interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            url,
            progress_interval,
            origin: Instant::now(),
            state: Mutex::new(State {
                store: Store::new(fastrand::u64(1..), fastrand::u64(1..)),
                watches: Watches::default(),
                queued: Queued::default(),
                tokens: Tokens::default(),
                timer: None,
            }),
            nudge: Notify::new(),
        })
    }

    /// Nothing that holds the lock runs foreign code, so a panic that poisoned it was not between
    /// two changes that belong together.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call after whatever is due, then wakes whom the changes concern.
    pub(crate) fn with<T>(&self, call: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut wakers = Vec::new();
        let (answer, sooner) = {
            let mut state = self.lock();
            let now = self.origin.elapsed();

            // A compaction may take the changes away, so those that were due are looked at first.
            let before = state.store.header().revision;
            state.store.tick(now);
            state.tell(before, &mut wakers);
            let before = state.store.header().revision;
            let answer = call(&mut state, now);
            state.tell(before, &mut wakers);
            (answer, state.set_timer())
        };
        // Outside the lock: to wake may run foreign code.
        wakers.into_iter().for_each(Waker::wake);
        if sooner {
            self.nudge.notify_one();
        }
        answer
    }

    /// Answers a request of gRPC, if its caller may ask for it.
    pub(crate) async fn answer<T>(
        &self,
        caller: &Caller,
        need: Need<'_>,
        call: impl FnOnce(&mut State, Duration) -> Result<T, Error>,
    ) -> Result<Response<T>, Status> {
        let answer = self.with(|state, now| {
            state.permit(now, caller, need)?;
            call(state, now)
        });
        answer.map(Response::new).map_err(refused)
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
        let left = shared.with(|state, now| {
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

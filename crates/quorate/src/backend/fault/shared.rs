//! The faults in force, and what calls and streams find when they meet them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    call::{Call, CallKind, Calls, Fate, Partition},
    held::Hold,
};
use crate::{ErrorKind, Result};

/// What the handle and all calls and streams share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Touched with every change of the state. It wakes in the order of waiting, so that the same test
    /// is the same run.
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) partition: Option<Partition>,
    pub(super) always: Vec<(Calls, Fate)>,
    pub(super) next: VecDeque<(Calls, Next)>,
    /// What happens to how many of the next answers to beats: dropped, or delayed.
    pub(super) beats_to_come: VecDeque<(u32, Option<Duration>)>,
    pub(super) event_delay: Duration,
    pub(super) times_healed: u64,
    pub(super) streams: BTreeMap<u64, StreamState>,
    pub(super) next_stream: u64,
    pub(super) counts: BTreeMap<CallKind, u64>,
    pub(super) beats: u64,
    pub(super) distrusted: u64,
}

impl State {
    pub(super) fn count(&self, kind: CallKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) enum Next {
    Fate(Fate),
    Hold(Hold),
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) kind: CallKind,
    pub(super) is_cut: bool,
    pub(super) is_silent: bool,
    /// Who polled it last.
    pub(super) waker: Option<Waker>,
}

/// What one call is to meet.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) refused: Option<ErrorKind>,
    pub(super) request_lost: bool,
    pub(super) request_hangs: bool,
    pub(super) request_delay: Duration,
    pub(super) hold: Option<Hold>,
    pub(super) doubled: bool,
    pub(super) reply_delay: Duration,
    pub(super) reply_hangs: bool,
    pub(super) reply_lost: bool,
}

impl Plan {
    /// Whether the request goes its way without its caller.
    pub(super) fn is_detached(&self) -> bool {
        self.hold.is_some() || self.doubled || !self.request_delay.is_zero()
    }

    fn add(&mut self, fate: Fate) {
        match fate {
            Fate::DelayReply(delay) => self.reply_delay = self.reply_delay.saturating_add(delay),
            Fate::DelayRequest(delay) => {
                self.request_delay = self.request_delay.saturating_add(delay);
            }
            Fate::Double => self.doubled = true,
            Fate::HangReply => self.reply_hangs = true,
            Fate::HangRequest => self.request_hangs = true,
            Fate::LoseReply => self.reply_lost = true,
            Fate::LoseRequest => self.request_lost = true,
            Fate::Refuse(kind) => self.refused = Some(kind),
        }
    }
}

/// What a stream meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Cut,
    /// What is sent arrives, nothing comes back.
    Deaf,
    /// Nothing that is sent arrives, what comes back does.
    Mute,
    Open,
    Silent,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Counts a call and takes what it is to meet.
    pub(super) fn meet(&self, call: &Call) -> Plan {
        self.change(|state| {
            *state.counts.entry(call.kind).or_default() += 1;
            let mut plan = Plan::default();
            for (calls, fate) in &state.always {
                if calls.include(call) {
                    plan.add(*fate);
                }
            }
            state
                .next
                .retain(|(_, next)| !matches!(next, Next::Hold(hold) if hold.is_abandoned()));
            let first = state.next.iter().position(|(calls, _)| calls.include(call));
            match first.and_then(|first| state.next.remove(first)) {
                Some((_, Next::Fate(fate))) => plan.add(fate),
                Some((_, Next::Hold(hold))) => plan.hold = Some(hold),
                None => {}
            }
            plan
        })
    }

    /// Waits until a request can leave.
    pub(super) async fn pass_there(&self, call: &Call) -> Result<()> {
        let mut is_lost = false;
        self.wait(|state| match state.partition {
            None | Some(Partition::LoseReplies) if is_lost => {
                Some(Err(call.lost("the request was lost")))
            }
            None | Some(Partition::LoseReplies) => Some(Ok(())),
            Some(Partition::Hang) => None,
            Some(Partition::LoseRequests) => {
                is_lost = true;
                None
            }
            Some(Partition::Refuse) => Some(Err(call.unavailable("the store is cut off"))),
        })
        .await
    }

    /// Waits until an answer can come back.
    pub(super) async fn pass_back(&self, call: &Call) -> Result<()> {
        let mut is_lost = false;
        self.wait(|state| match state.partition {
            None | Some(Partition::LoseRequests) if is_lost => {
                Some(Err(call.lost("the reply was lost")))
            }
            None | Some(Partition::LoseRequests) => Some(Ok(())),
            Some(Partition::Hang) => None,
            Some(Partition::LoseReplies) => {
                is_lost = true;
                None
            }
            Some(Partition::Refuse) => Some(Err(call.lost("the store is cut off"))),
        })
        .await
    }

    /// Waits for the next time that all is healed.
    pub(super) async fn healed(&self) {
        let before = self.lock().times_healed;
        self.wait(|state| (state.times_healed > before).then_some(()))
            .await;
    }

    /// Enters a stream into the book, and tells its number.
    pub(super) fn enter(&self, kind: CallKind) -> u64 {
        let mut state = self.lock();
        let id = state.next_stream;
        state.next_stream += 1;
        let stream = StreamState {
            kind,
            is_cut: false,
            is_silent: false,
            waker: None,
        };
        state.streams.insert(id, stream);
        id
    }

    pub(super) fn leave(&self, id: u64) {
        self.lock().streams.remove(&id);
    }

    /// What the stream meets now. With a waker, it is woken when that may have changed.
    pub(super) fn gate(&self, id: u64, waker: Option<&Waker>) -> Gate {
        let mut state = self.lock();
        let partition = state.partition;
        let Some(stream) = state.streams.get_mut(&id) else {
            return Gate::Cut;
        };
        if let Some(waker) = waker {
            stream.waker = Some(waker.clone());
        }
        match partition {
            _ if stream.is_cut => Gate::Cut,
            Some(Partition::Hang) => Gate::Silent,
            // A stream that was opened just before the store was cut off.
            Some(Partition::Refuse) => Gate::Cut,
            _ if stream.is_silent => Gate::Silent,
            Some(Partition::LoseReplies) => Gate::Deaf,
            Some(Partition::LoseRequests) => Gate::Mute,
            None => Gate::Open,
        }
    }

    /// How much later something that a stream tells is to come; none if never.
    pub(super) fn delay(&self, kind: CallKind) -> Option<Duration> {
        let mut state = self.lock();
        if kind == CallKind::Watch {
            return Some(state.event_delay);
        }
        while let Some((count, fate)) = state.beats_to_come.front_mut() {
            if *count > 0 {
                *count -= 1;
                return *fate;
            }
            state.beats_to_come.pop_front();
        }
        Some(Duration::ZERO)
    }

    pub(super) fn count_beat(&self) {
        self.change(|state| state.beats += 1);
    }

    pub(super) fn count_distrust(&self) {
        self.change(|state| state.distrusted += 1);
    }

    pub(super) fn change_streams(&self, kind: CallKind, change: impl Fn(&mut StreamState)) {
        self.change(|state| {
            state
                .streams
                .values_mut()
                .filter(|stream| stream.kind == kind)
                .for_each(change);
        });
    }

    /// Changes the state and wakes whoever may be concerned.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, wakers) = {
            let mut state = self.lock();
            let result = change(&mut state);
            let wakers: Vec<_> = state
                .streams
                .values_mut()
                .filter_map(|stream| stream.waker.take())
                .collect();
            (result, wakers)
        };
        self.changed.notify_waiters();
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    pub(super) async fn wait<T>(&self, mut ready: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            // Before the look: a change after it is not missed.
            let changed = self.changed.notified();
            if let Some(result) = ready(&self.lock()) {
                return result;
            }
            changed.await;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

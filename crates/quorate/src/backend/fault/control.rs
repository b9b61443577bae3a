//! The handle that sets the faults.

use std::{sync::Arc, time::Duration};

use super::{
    call::{CallKind, Calls, Fate, Partition},
    held::{Held, Hold},
    shared::{Next, Shared},
};

/// Says which faults there are between a client and its store. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

impl Faults {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Cuts the client off until [`heal`](Faults::heal). Requests that a fault [delays](Fate) or
    /// [holds](Faults::hold_next) have left already and arrive all the same.
    pub fn partition(&self, partition: Partition) {
        self.0.change(|state| {
            state.partition = Some(partition);
            if partition == Partition::Refuse {
                state
                    .streams
                    .values_mut()
                    .for_each(|stream| stream.is_cut = true);
            }
        });
    }

    /// Ends every fault: the partition, the fates still to come, silences and delays. Streams that were
    /// cut stay cut, and requests on [hold](Faults::hold_next) on hold.
    pub fn heal(&self) {
        self.0.change(|state| {
            state.partition = None;
            state.always.clear();
            state.next.retain(|(_, next)| matches!(next, Next::Hold(_)));
            state.beats_to_come.clear();
            state.event_delay = Duration::ZERO;
            state
                .streams
                .values_mut()
                .for_each(|stream| stream.is_silent = false);
            state.times_healed += 1;
        });
    }

    /// Ends the partition, and nothing else.
    pub fn end_partition(&self) {
        self.0.change(|state| state.partition = None);
    }

    /// Ends the silence of the streams that calls of this kind opened, and nothing else.
    pub fn end_silence(&self, kind: CallKind) {
        self.0
            .change_streams(kind, |stream| stream.is_silent = false);
    }

    /// Takes back what was said of [every](Faults::every) call, and nothing else.
    pub fn end_every(&self) {
        self.0.change(|state| state.always.clear());
    }

    /// Gives `fate` to the next of `calls`, beside what [every](Faults::every) one meets. Said more than
    /// once, each is for one call, in the order in which they were said.
    pub fn next(&self, calls: impl Into<Calls>, fate: Fate) {
        let calls = calls.into();
        self.0
            .change(|state| state.next.push_back((calls, Next::Fate(fate))));
    }

    /// Gives `fate` to each of `calls` until [`heal`](Faults::heal). Delays add up.
    pub fn every(&self, calls: impl Into<Calls>, fate: Fate) {
        let calls = calls.into();
        self.0.change(|state| state.always.push((calls, fate)));
    }

    /// Keeps the next of `calls` in flight until it is told to arrive. It takes its turn among the
    /// [next](Faults::next).
    pub fn hold_next(&self, calls: impl Into<Calls>) -> Held {
        let hold = Hold::new();
        let (calls, next) = (calls.into(), Next::Hold(hold.clone()));
        self.0.change(|state| state.next.push_back((calls, next)));
        Held::new(hold)
    }

    /// Breaks every watch that is open now: each ends with an error.
    pub fn cut_watches(&self) {
        self.0
            .change_streams(CallKind::Watch, |stream| stream.is_cut = true);
    }

    /// Makes every watch that is open now silent until [`heal`](Faults::heal), which brings what was
    /// missed. Watches opened later are not silent.
    pub fn silence_watches(&self) {
        self.0
            .change_streams(CallKind::Watch, |stream| stream.is_silent = true);
    }

    /// Delivers the changes that watches tell later by `delay`, until [`heal`](Faults::heal).
    pub fn delay_events(&self, delay: Duration) {
        self.0.change(|state| state.event_delay = delay);
    }

    /// Breaks every keepalive stream that is open now: each ends with an error.
    pub fn cut_beats(&self) {
        self.0
            .change_streams(CallKind::KeepAlive, |stream| stream.is_cut = true);
    }

    /// Makes every keepalive stream that is open now a black hole, in both directions, until
    /// [`heal`](Faults::heal), when all arrives late. Streams opened later are not silent.
    pub fn silence_beats(&self) {
        self.0
            .change_streams(CallKind::KeepAlive, |stream| stream.is_silent = true);
    }

    /// Drops the answers to the next `count` beats, of any lease on any stream. The beats count.
    pub fn drop_beats(&self, count: u32) {
        self.0
            .change(|state| state.beats_to_come.push_back((count, None)));
    }

    /// Delivers the answers to the next `count` beats later by `delay`; those behind them do not
    /// overtake them.
    pub fn delay_beats(&self, count: u32, delay: Duration) {
        self.0
            .change(|state| state.beats_to_come.push_back((count, Some(delay))));
    }

    /// How many calls of this kind were made, whatever became of them.
    pub fn count(&self, kind: CallKind) -> u64 {
        self.0.lock().count(kind)
    }

    /// How many calls of all kinds were made. Beats and what streams tell are no calls.
    pub fn total(&self) -> u64 {
        self.0.lock().counts.values().sum()
    }

    /// How many beats were sent.
    pub fn beats(&self) -> u64 {
        self.0.lock().beats
    }

    /// How many times a stream was reported silent.
    pub fn distrusted(&self) -> u64 {
        self.0.lock().distrusted
    }

    /// How many streams that calls of this kind opened are open now.
    pub fn open_streams(&self, kind: CallKind) -> usize {
        let state = self.0.lock();
        let open = state.streams.values().filter(|stream| stream.kind == kind);
        open.count()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.0.change(|state| {
            state.counts.clear();
            state.beats = 0;
            state.distrusted = 0;
        });
    }

    /// Waits until `count` calls of this kind were made.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn reached(&self, kind: CallKind, count: u64) {
        self.0
            .wait(|state| (state.count(kind) >= count).then_some(()))
            .await;
    }
}

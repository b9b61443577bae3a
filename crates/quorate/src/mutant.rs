//! Bugs on purpose, with which a proof shows that it would find them.

#[cfg(feature = "mutants")]
use std::cell::Cell;

use crate::{Result, Revision};

/// A bug that can be planted into this library, for tests of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))]
pub enum Mutant {
    /// A session counts on its lease from the receipt of an answer, not from the sending of the beat.
    DeadlineFromReceipt,
    /// A session counts on its lease to the last moment, as if all clocks ran alike.
    NoDriftMargin,
    /// A waiter whose turn has come does not look whether its own key still stands.
    OwnKeyNotVerified,
    /// A waiter does not watch its own key.
    OwnKeyUnwatched,
    /// Who stops waiting leaves its key behind.
    OrphanOnCancel,
    /// A watch whose stream broke is not opened again.
    WatchNotResumed,
    /// A watch is opened again one revision too late.
    WatchResumedLate,
    /// Own keys are deleted without a look whose they are by now.
    UnfencedRelease,
    /// A write that may have been applied is sent again.
    BlindRetry,
    /// A watch that is opened again tells its last event once more.
    EventTwice,
    /// An observer whose history is compacted away goes on from the present.
    ResetMissed,
    /// An ephemeral key comes back over what another owner may have put there meanwhile.
    HealOverAnother,
    /// An elector drops its task when a term is over, and does not wait until it has ended.
    TaskNotJoined,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::DeadlineFromReceipt,
        Self::NoDriftMargin,
        Self::OwnKeyNotVerified,
        Self::OwnKeyUnwatched,
        Self::OrphanOnCancel,
        Self::WatchNotResumed,
        Self::WatchResumedLate,
        Self::UnfencedRelease,
        Self::BlindRetry,
        Self::EventTwice,
        Self::ResetMissed,
        Self::HealOverAnother,
        Self::TaskNotJoined,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Plants a bug into everything that runs on this thread, or takes it out again.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted here.
#[cfg(feature = "mutants")]
pub(crate) fn planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// No bug is.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

/// Where a watch goes on that was open before or not: one revision off after a break, if
/// [`Mutant::EventTwice`] or [`Mutant::WatchResumedLate`] is planted.
pub(crate) fn resume(next: Revision, was_open: bool) -> Revision {
    // Zero begins with the present.
    let breaks = was_open && next != Revision::ZERO;
    match next {
        _ if breaks && planted(Mutant::EventTwice) => next.previous(),
        _ if breaks && planted(Mutant::WatchResumedLate) => next.next(),
        _ => next,
    }
}

/// What [`Mutant::BlindRetry`] is: a write whose answer was lost is sent once more.
pub(crate) async fn send_blindly<W: Clone, T, F: Future<Output = Result<T>>>(
    write: W,
    send: impl Fn(W) -> F,
) -> Result<T> {
    match send(write.clone()).await {
        Err(error) if error.is_indefinite() => send(write).await,
        sent => sent,
    }
}

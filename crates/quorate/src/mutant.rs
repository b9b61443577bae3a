//! Bugs on purpose, with which a proof shows that it would find them.

#[cfg(feature = "testing")]
use std::cell::Cell;

/// A bug that can be planted into this library, for tests of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
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

#[cfg(feature = "testing")]
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

#[cfg(feature = "testing")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Plants a bug into everything that runs on this thread, or takes it out again.
#[cfg(feature = "testing")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted here.
#[cfg(feature = "testing")]
pub(crate) fn planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// No bug is.
#[cfg(not(feature = "testing"))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

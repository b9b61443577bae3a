//! What lasts for a while between a client and its store: several such troubles at once, each with an end
//! of its own.

use std::{sync::Mutex, time::Duration};

use quorate::backend::fault::{CallKind, Calls, Fate, Faults, Partition};

use super::world::lock;

/// What lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    CutOff(Partition),
    SilentWatches,
    SilentBeats,
    LateEvents(Duration),
    SlowAnswers(Duration),
}

/// The troubles of one client.
pub(crate) struct Troubles {
    faults: Faults,
    present: Mutex<Vec<(TroubleId, Trouble)>>,
}

/// A trouble, by its place among all that a client ever had.
pub(crate) type TroubleId = usize;

impl Troubles {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            present: Mutex::default(),
        }
    }

    /// Begins one, which has this number among all.
    pub(crate) fn begin(&self, id: TroubleId, trouble: Trouble) {
        lock(&self.present).push((id, trouble));
        self.put_in_force(trouble);
    }

    /// Ends one. What else there is of its kind remains.
    pub(crate) fn end(&self, id: TroubleId) {
        let left: Vec<_> = {
            let mut present = lock(&self.present);
            let Some(place) = present.iter().position(|(other, _)| *other == id) else {
                return;
            };
            let (_, ended) = present.remove(place);
            match ended {
                Trouble::CutOff(_) => self.faults.end_partition(),
                Trouble::SilentWatches => self.faults.end_silence(CallKind::Watch),
                Trouble::SilentBeats => self.faults.end_silence(CallKind::KeepAlive),
                Trouble::LateEvents(_) => self.faults.delay_events(Duration::ZERO),
                Trouble::SlowAnswers(_) => self.faults.end_every(),
            }
            let kind = std::mem::discriminant(&ended);
            let left = present.iter().map(|(_, trouble)| *trouble);
            left.filter(|trouble| std::mem::discriminant(trouble) == kind)
                .collect()
        };
        left.into_iter()
            .for_each(|trouble| self.put_in_force(trouble));
    }

    /// Ends all, and whatever else was to happen.
    pub(crate) fn end_all(&self) {
        lock(&self.present).clear();
        self.faults.heal();
    }

    fn put_in_force(&self, trouble: Trouble) {
        match trouble {
            Trouble::CutOff(partition) => self.faults.partition(partition),
            Trouble::SilentWatches => self.faults.silence_watches(),
            Trouble::SilentBeats => self.faults.silence_beats(),
            Trouble::LateEvents(delay) => self.faults.delay_events(delay),
            Trouble::SlowAnswers(delay) => self.faults.every(Calls::any(), Fate::DelayReply(delay)),
        }
    }
}

//! The changes of every revision that is kept, for watches.

use std::collections::{HashSet, VecDeque};

use crate::{Key, KeyValue, Revision};

/// What one transaction did to one key.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its place among the changes of its transaction.
    pub(crate) sub: i64,
    pub(crate) key: Key,
    /// The key as it now stands; none if it was deleted.
    pub(crate) kv: Option<KeyValue>,
}

/// The changes of every revision from the oldest one kept, without a gap.
#[derive(Debug)]
pub(crate) struct Log {
    oldest: Revision,
    commits: VecDeque<Vec<Change>>,
}

impl Log {
    /// A log whose first entry will be that of a revision.
    pub(crate) const fn starting_at(oldest: Revision) -> Self {
        Self {
            oldest,
            commits: VecDeque::new(),
        }
    }

    /// The oldest revision whose changes are kept.
    pub(crate) const fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Adds the changes of the next revision, in their order.
    pub(crate) fn push(&mut self, changes: Vec<Change>) {
        self.commits.push_back(changes);
    }

    /// The changes of each revision from a given one on.
    pub(crate) fn since(&self, from: Revision) -> impl Iterator<Item = (Revision, &[Change])> {
        let skipped = usize::try_from(from.0.saturating_sub(self.oldest.0))
            .unwrap_or(0)
            .min(self.commits.len());
        let first = self.oldest.0.saturating_add_unsigned(skipped as u64);
        (first..)
            .map(Revision)
            .zip(self.commits.range(skipped..).map(Vec::as_slice))
    }

    /// Drops the changes before a revision, and of its own changes those that later ones of the
    /// same transaction overwrote.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.oldest < revision && self.commits.pop_front().is_some() {
            self.oldest = self.oldest.next();
        }
        if self.oldest == revision
            && let Some(changes) = self.commits.front_mut()
        {
            let mut seen = HashSet::new();
            let mut last: Vec<bool> = changes
                .iter()
                .rev()
                .map(|change| seen.insert(change.key.clone()))
                .collect();
            changes.retain(|_| last.pop().expect("one answer a change"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_keeps_its_own_revision() {
        let mut log = Log::starting_at(Revision(2));
        for key in ["a", "b", "c"] {
            let key = Key::from(key);
            log.push(vec![Change {
                sub: 0,
                key,
                kv: None,
            }]);
        }
        log.compact(Revision(3));
        let kept: Vec<Revision> = log
            .since(Revision(1))
            .map(|(revision, _)| revision)
            .collect();
        assert_eq!(kept, [Revision(3), Revision(4)]);
        assert_eq!(log.since(Revision(4)).count(), 1);
        assert_eq!(log.since(Revision(9)).count(), 0);
    }
}

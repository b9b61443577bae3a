//! The queue of a name, as the store has it.

use std::collections::BTreeMap;

use quorate::{Event, Key, Revision};

/// Who stands in the queue, and who has left.
pub(crate) struct Line {
    prefix: String,
    standing: BTreeMap<Key, Revision>,
    left: BTreeMap<Revision, Revision>,
}

impl Line {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            prefix: format!("{name}/"),
            standing: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    /// Takes note of a change.
    pub(crate) fn apply(&mut self, event: &Event) {
        let rest = event.key().as_str();
        let rest = rest.and_then(|key| key.strip_prefix(self.prefix.as_str()));
        if !rest.is_some_and(is_contender) {
            return;
        }
        match event {
            Event::Put { kv, .. } => {
                self.standing.insert(kv.key.clone(), kv.create_revision);
            }
            Event::Delete { key, revision, .. } => {
                if let Some(token) = self.standing.remove(key) {
                    self.left.insert(token, *revision);
                }
            }
        }
    }

    /// The keys of all who stand in the queue, by their tokens.
    pub(crate) fn standing(&self) -> BTreeMap<Revision, &Key> {
        let standing = self.standing.iter();
        standing.map(|(key, token)| (*token, key)).collect()
    }

    /// The token of who holds.
    pub(crate) fn first(&self) -> Option<Revision> {
        self.standing.values().min().copied()
    }

    pub(crate) fn stands(&self, token: Revision) -> bool {
        self.standing.values().any(|standing| *standing == token)
    }

    /// At which revision whose key was deleted.
    pub(crate) const fn left(&self) -> &BTreeMap<Revision, Revision> {
        &self.left
    }
}

/// Whether this follows the name in a contender's key: its lease, and maybe a number.
fn is_contender(rest: &str) -> bool {
    let (lease, number) = match rest.split_once('-') {
        Some((lease, number)) => (lease, Some(number)),
        None => (rest, None),
    };
    let all = |text: &str, of: &str| !text.is_empty() && text.chars().all(|it| of.contains(it));
    all(lease, "0123456789abcdef") && number.is_none_or(|number| all(number, "0123456789"))
}

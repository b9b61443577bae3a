//! What happened to the store.

use std::collections::BTreeMap;

use super::verdict::Verdict;
use crate::history::{Change, History, Stamp, What};

/// The store's history.
#[derive(Default)]
pub(super) struct Store {
    revisions: BTreeMap<i64, Revision>,
    keys: BTreeMap<String, Vec<Version>>,
}

/// What one revision changed.
pub(super) struct Revision {
    /// When it was told first: it happened before.
    pub(super) at: Stamp,
    pub(super) changes: Vec<Change>,
}

/// A key after one change.
pub(super) struct Version {
    pub(super) revision: i64,
    pub(super) at: Stamp,
    /// `None` once it is deleted.
    pub(super) value: Option<String>,
}

/// From a key's creation to its deletion.
pub(super) struct Incarnation<'a> {
    pub(super) created: &'a Version,
    pub(super) deleted: Option<&'a Version>,
}

impl Store {
    /// Reads it off the reference watches. That they leave nothing out is a property too.
    pub(super) fn new(history: &History, verdict: &mut Verdict) -> Self {
        let mut store = Self::default();
        for record in history.orchestrator() {
            match &record.what {
                What::Changed { revision, changes } => store.add(record.at, *revision, changes),
                What::Contradiction { text } => verdict.violation("reference", text),
                _ => {}
            }
        }
        let revisions: Vec<_> = store.revisions.keys().copied().collect();
        for pair in revisions.windows(2) {
            if pair[0] + 1 != pair[1] {
                let text = format!("nothing was told between {} and {}", pair[0], pair[1]);
                verdict.violation("reference", text);
            }
        }
        verdict.count("changes of the store", store.revisions.len());
        store
    }

    fn add(&mut self, at: Stamp, revision: i64, changes: &[Change]) {
        for change in changes {
            self.keys
                .entry(change.key.clone())
                .or_default()
                .push(Version {
                    revision,
                    at,
                    value: change.value.clone(),
                });
        }
        let changes = changes.to_vec();
        self.revisions.insert(revision, Revision { at, changes });
    }

    /// The last revision, and when it was told; zero if there is none.
    pub(super) fn last(&self) -> (i64, Stamp) {
        let last = self.revisions.last_key_value();
        last.map_or((0, 0), |(revision, told)| (*revision, told.at))
    }

    /// The history of a key.
    pub(super) fn versions(&self, key: &str) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys that ever began with a prefix, with their histories.
    pub(super) fn under<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [Version])> {
        let from = self.keys.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, versions)| (key.as_str(), versions.as_slice()))
    }

    /// A key as it stood at a revision.
    pub(super) fn value_at(&self, key: &str, revision: i64) -> Option<&str> {
        let versions = self.versions(key);
        let count = versions.partition_point(|version| version.revision <= revision);
        versions[..count].last()?.value.as_deref()
    }

    /// All keys under a prefix as they stood at a revision.
    pub(super) fn state_at(&self, prefix: &str, revision: i64) -> BTreeMap<String, String> {
        let keys = self.under(prefix).map(|(key, _)| key);
        keys.filter_map(|key| Some((key.to_owned(), self.value_at(key, revision)?.to_owned())))
            .collect()
    }

    /// The revisions that changed something under a prefix, with those changes.
    pub(super) fn changes(&self, prefix: &str) -> BTreeMap<i64, (Stamp, Vec<&Change>)> {
        let mut changes = BTreeMap::new();
        for (revision, Revision { at, changes: all }) in &self.revisions {
            let mine: Vec<_> = all
                .iter()
                .filter(|change| change.key.starts_with(prefix))
                .collect();
            if !mine.is_empty() {
                changes.insert(*revision, (*at, mine));
            }
        }
        changes
    }

    /// What one revision changed.
    pub(super) fn revision(&self, revision: i64) -> Option<&Revision> {
        self.revisions.get(&revision)
    }
}

/// The incarnations of a key.
pub(super) fn incarnations(versions: &[Version]) -> Vec<Incarnation<'_>> {
    let mut incarnations: Vec<Incarnation<'_>> = Vec::new();
    for version in versions {
        let open = incarnations
            .last_mut()
            .filter(|open| open.deleted.is_none());
        match (open, &version.value) {
            (Some(open), None) => open.deleted = Some(version),
            (None, Some(_)) => incarnations.push(Incarnation {
                created: version,
                deleted: None,
            }),
            _ => {}
        }
    }
    incarnations
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{assert_found, changed, put};
    use crate::history::{ORCHESTRATOR, What};

    #[test]
    fn a_hole_in_the_reference_is_found() {
        let hole = [
            changed(1.0, 2, &[put("a", "1", 2)]),
            changed(2.0, 4, &[put("a", "2", 2)]),
        ];
        assert_found(&hole, "reference");
        let text = "m1 tells something else".to_owned();
        assert_found(
            &[(ORCHESTRATOR, 1.0, What::Contradiction { text })],
            "reference",
        );
    }
}

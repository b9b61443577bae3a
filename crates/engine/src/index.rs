//! Every key with its history, for reads at any revision that is kept.

use std::{collections::BTreeMap, ops::Bound};

use crate::{Key, KeyRange, KeyValue, RangeEnd, Revision};

/// The keys that were written and not yet compacted away, deleted ones included.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Key, Vec<Version>>,
    /// The bytes of all keys and values that are kept.
    bytes: u64,
}

/// What one write made of a key. A history holds them oldest first; those of one transaction share
/// a revision and keep their order, so that the last of them is the outcome.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) revision: Revision,
    /// The key as it then stood; none if it was deleted.
    pub(crate) kv: Option<KeyValue>,
}

impl Index {
    /// The key as it stood at a revision.
    pub(crate) fn get(&self, key: &Key, at: Revision) -> Option<&KeyValue> {
        standing(self.keys.get(key)?, at)
    }

    /// The keys of a range that stood at a revision, in ascending order.
    pub(crate) fn range<'a>(
        &'a self,
        keys: &'a KeyRange,
        at: Revision,
    ) -> impl Iterator<Item = &'a KeyValue> {
        let end = match &keys.end {
            RangeEnd::Single => Bound::Included(&keys.start),
            // The map panics on a range that ends before it starts.
            RangeEnd::Before(end) => Bound::Excluded(end.max(&keys.start)),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        self.keys
            .range((Bound::Included(&keys.start), end))
            .filter_map(move |(_, history)| standing(history, at))
    }

    /// Every change of a key from a revision on.
    pub(crate) fn changes(&self, key: &Key, from: Revision) -> &[Version] {
        let history = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        &history[history.partition_point(|version| version.revision < from)..]
    }

    /// Adds to the history of a key what it is from this revision on.
    pub(crate) fn write(&mut self, key: Key, revision: Revision, kv: Option<KeyValue>) {
        let version = Version { revision, kv };
        self.bytes += version.size(&key);
        self.keys.entry(key).or_default().push(version);
    }

    /// Drops what no read at this revision or a later one can see.
    pub(crate) fn compact(&mut self, revision: Revision) {
        let mut bytes = 0;
        self.keys.retain(|key, history| {
            let old = history.partition_point(|version| version.revision <= revision);
            if let Some(last) = old.checked_sub(1) {
                // A deletion is kept only at the very revision, for those who watch from there
                // (as etcd does since 3.5.18).
                let kept = history[last].kv.is_some() || history[last].revision == revision;
                history.drain(..if kept { last } else { old });
            }
            bytes += history.iter().map(|version| version.size(key)).sum::<u64>();
            !history.is_empty()
        });
        self.bytes = bytes;
    }

    /// How many keys have a history.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The bytes of all keys and values that are kept.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Version {
    fn size(&self, key: &Key) -> u64 {
        let value = self.kv.as_ref().map_or(0, |kv| kv.value.len());
        (key.len() + value) as u64
    }
}

fn standing(history: &[Version], at: Revision) -> Option<&KeyValue> {
    let written = history.partition_point(|version| version.revision <= at);
    history[..written].last()?.kv.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, key: &str, revision: i64) {
        let kv = KeyValue {
            key: key.into(),
            value: "v".into(),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: None,
        };
        index.write(key.into(), Revision(revision), Some(kv));
    }

    fn standing_keys(index: &Index, keys: &KeyRange, at: i64) -> Vec<String> {
        let found = index.range(keys, Revision(at));
        found.map(|kv| kv.key.to_string()).collect()
    }

    #[test]
    fn a_range_that_ends_before_it_starts_holds_nothing() {
        let mut index = Index::default();
        put(&mut index, "b", 2);
        for end in ["a", "b"] {
            assert!(standing_keys(&index, &KeyRange::between("b", end), 2).is_empty());
        }
    }

    #[test]
    fn a_deletion_outlives_a_compaction_at_its_own_revision_only() {
        let mut index = Index::default();
        put(&mut index, "a", 2);
        put(&mut index, "b", 3);
        index.write("a".into(), Revision(4), None);
        index.compact(Revision(4));
        assert_eq!(index.changes(&"a".into(), Revision(4)).len(), 1);
        index.compact(Revision(5));
        assert!(index.changes(&"a".into(), Revision(4)).is_empty());
        assert_eq!(standing_keys(&index, &KeyRange::all(), 5), ["b"]);
        assert_eq!(index.bytes(), 2);
    }
}

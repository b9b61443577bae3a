//! What was written, and what became of it.

use std::{collections::BTreeMap, sync::Mutex};

use quorate::{Event, Key, Revision, Value};

use crate::simulate::{
    recipes::history::Past,
    world::{World, lock},
};

/// All writes that were tried.
#[derive(Default)]
pub(super) struct Book(Mutex<Vec<Write>>);

/// One call that was to write one of some values, each of which nobody else writes.
pub(super) struct Write {
    pub(super) key: Key,
    /// The last is what would be written if all went well; the others were refused before.
    pub(super) values: Vec<Value>,
    /// The revision of the store when it began.
    pub(super) since: Revision,
    /// Whether it changes what it finds, so that a repetition is refused.
    pub(super) conditional: bool,
    pub(super) fate: Fate,
}

/// What became of a write, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was acknowledged, with this revision.
    Done(Revision),
    /// It did not happen, and never will.
    Never,
    /// Nobody knows.
    Unknown,
}

impl Book {
    pub(super) fn enter(&self, world: &World, past: &Past, write: Write) {
        match write.fate {
            Fate::Done(revision) => {
                world.count("written");
                let stands = past.get(&write.key, revision);
                if stands.is_none_or(|kv| Some(&kv.value) != write.values.last()) {
                    let key = &write.key;
                    let what = format_args!("{key} was written at {revision}, and is not there");
                    world.broken("I10", what);
                }
            }
            Fate::Never => world.count("refused"),
            Fate::Unknown => world.count("unknown"),
        }
        lock(&self.0).push(write);
    }

    /// Judges all writes by what there ever was.
    pub(super) fn judge(&self, world: &World, past: &Past) {
        let mut written = BTreeMap::<&Value, Vec<Revision>>::new();
        for (_, events) in past.changes(..) {
            for event in events {
                if let Event::Put { kv, .. } = event {
                    written.entry(&kv.value).or_default().push(kv.mod_revision);
                }
            }
        }
        for write in &*lock(&self.0) {
            let times: Vec<_> = (write.values.iter())
                .flat_map(|value| written.get(value).into_iter().flatten().copied())
                .collect();
            let most = if write.conditional || !world.schedule.doubles() {
                1
            } else {
                2
            };
            let right = match write.fate {
                Fate::Done(revision) => times.first() == Some(&revision) && times.len() <= most,
                Fate::Never => times.is_empty(),
                Fate::Unknown => times.len() <= most,
            };
            if !right || times.iter().any(|time| *time <= write.since) {
                let Write {
                    values,
                    since,
                    fate,
                    ..
                } = write;
                world.broken(
                    "I10",
                    format_args!("{values:?}, begun at {since}: {fate:?}, written at {times:?}"),
                );
            }
        }
    }
}

//! Which changes somebody is to be told of.

use quorate::{Event, KeyRange, Revision};

use crate::simulate::{recipes::history::Past, world::World};

/// The keys that somebody follows, and how.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) keys: KeyRange,
    pub(super) puts: bool,
    pub(super) deletions: bool,
    pub(super) prev: bool,
}

impl Sight {
    /// One of few, so that observers of one client often share a watch.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let keys = match random.u8(..5) {
            0 => KeyRange::key("k/3"),
            1 => KeyRange::between("k/1", "k/4"),
            _ => KeyRange::prefix("k/"),
        };
        let kinds = random.u8(..8);
        Self {
            keys,
            puts: kinds != 0,
            deletions: kinds != 1,
            prev: random.u8(..4) == 0,
        }
    }

    fn includes(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Put { .. } => self.puts,
            Event::Delete { .. } => self.deletions,
        };
        kind && self.keys.contains(event.key())
    }

    /// The changes that are to be told.
    fn sees<'a>(&self, events: &'a [Event]) -> impl Iterator<Item = &'a Event> {
        events.iter().filter(|event| self.includes(event))
    }

    /// The first revision after another that has something to tell.
    pub(super) fn next_after(&self, past: &Past, after: Revision) -> Option<Revision> {
        let mut later = past.changes(after.next()..);
        let seen = later.find(|(_, events)| self.sees(events).next().is_some());
        seen.map(|(revision, _)| revision)
    }

    /// Whether what is told of a revision is all that there is to tell, and in its order.
    pub(super) fn check(&self, world: &World, past: &Past, revision: Revision, told: &[Event]) {
        let events = past.changes(revision..=revision).next();
        let events = events.map_or(&[][..], |(_, events)| events);
        let same = |(told, event): (&Event, &Event)| match (told, event) {
            (Event::Put { kv, .. }, Event::Put { kv: known, .. }) => kv == known,
            (Event::Delete { key, .. }, Event::Delete { key: known, .. }) => key == known,
            _ => false,
        };
        if told.len() != self.sees(events).count() || !told.iter().zip(self.sees(events)).all(same)
        {
            let told: Vec<_> = told.iter().map(Event::key).collect();
            world.broken(
                "I7",
                format_args!("of revision {revision} {told:?} is told"),
            );
        }
        let before = revision.previous();
        for event in told {
            let (Event::Put { prev, .. } | Event::Delete { prev, .. }) = event;
            let known = past.get(event.key(), before);
            // What was there before may be compacted away.
            let compacted = || before < past.oldest();
            let right = match prev {
                Some(_) => self.prev && prev.as_ref() == known,
                None => !self.prev || known.is_none() || compacted(),
            };
            if !right {
                let key = event.key();
                let what = format_args!("before {revision} {key} was not as it is told");
                world.broken("I7", what);
            }
        }
    }
}

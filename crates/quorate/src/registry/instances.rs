//! All instances of a service, as they stood at one revision.

use std::{fmt, sync::Arc};

use rpds::RedBlackTreeMapSync as Map;

use super::{
    Change, Instance,
    layout::{KeyRole, Place},
};
use crate::{Event, Key, KeyValue, Revision, Snapshot};

/// The instances of a service at one revision. It never changes, and cloning it is cheap: snapshots
/// share what they have in common.
#[derive(Clone, Default)]
pub struct Instances {
    revision: Revision,
    map: Map<Arc<str>, Arc<Instance>>,
    /// The keys that hold none, with the reason.
    malformed: Map<Key, Arc<str>>,
}

impl Instances {
    /// The revision at which they stood: that of the last change, or of the reading if nothing has
    /// changed since.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The instance with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Instance>> {
        self.map.get(id)
    }

    /// The instances with their ids, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Instance>)> {
        self.map.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The keys of the service whose names or values cannot be understood, with the reason: they are no
    /// instances.
    pub fn malformed(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.malformed.iter().map(|(key, why)| (key, &**why))
    }

    /// What was read anew. What is as in `known` is shared with that.
    pub(super) fn read(place: &Place, snapshot: Snapshot, known: &Self) -> Self {
        let mut read = Self {
            revision: snapshot.revision,
            ..Self::default()
        };
        for kv in snapshot.kvs {
            read.put(place, &kv, Some(known));
        }
        read
    }

    /// Takes note of a change, and returns the id of the instance that it changed, if any.
    pub(super) fn apply(&mut self, place: &Place, event: &Event) -> Option<Arc<str>> {
        self.revision = event.revision();
        match event {
            Event::Put { kv, .. } => self.put(place, kv, None),
            Event::Delete { key, .. } => {
                self.malformed.remove_mut(key);
                match place.role(key) {
                    KeyRole::Instance(id) => self.remove(id),
                    KeyRole::Malformed | KeyRole::Other => None,
                }
            }
        }
    }

    fn put(&mut self, place: &Place, kv: &KeyValue, known: Option<&Self>) -> Option<Arc<str>> {
        let id = match place.role(&kv.key) {
            KeyRole::Instance(id) => id,
            KeyRole::Malformed => {
                self.reject(&kv.key, "its name is not text");
                return None;
            }
            KeyRole::Other => return None,
        };
        let read = place.decode(&kv.value);
        match &read {
            Ok(_) => self.malformed.remove_mut(&kv.key),
            Err(why) => {
                self.reject(&kv.key, why);
                false
            }
        };
        let Ok(Some(instance)) = read else {
            return self.remove(id);
        };
        let before = known.unwrap_or(self).map.get_key_value(id);
        let (id, instance, changed) = match before {
            Some((id, before)) if **before == instance => (id, Arc::clone(before), false),
            Some((id, _)) => (id, Arc::new(instance), true),
            None => (&Arc::from(id), Arc::new(instance), true),
        };
        let id = Arc::clone(id);
        if changed || known.is_some() {
            self.map.insert_mut(Arc::clone(&id), instance);
        }
        changed.then_some(id)
    }

    fn remove(&mut self, id: &str) -> Option<Arc<str>> {
        let (id, _) = self.map.get_key_value(id)?;
        let id = Arc::clone(id);
        self.map.remove_mut(&*id);
        Some(id)
    }

    fn reject(&mut self, key: &Key, why: &str) {
        tracing::warn!(%key, why, "this is no instance of a service");
        self.malformed.insert_mut(key.clone(), why.into());
    }

    /// Takes note of what a reader was told.
    pub(super) fn tell(&mut self, change: &Change) {
        match change {
            Change::Joined(id, instance) | Change::Updated(id, instance) => {
                self.map.insert_mut(Arc::clone(id), Arc::clone(instance));
            }
            Change::Left(id) => {
                self.map.remove_mut(id);
            }
        }
    }

    /// The ids under which the two differ.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Arc<str>> + 'a {
        let mut ours = self.map.iter().peekable();
        let mut theirs = other.map.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let (our, their) = match (ours.peek(), theirs.peek()) {
                    (None, None) => return None,
                    (Some((our, _)), Some((their, _))) => (our <= their, their <= our),
                    (our, their) => (our.is_some(), their.is_some()),
                };
                let our = if our { ours.next() } else { None };
                let their = if their { theirs.next() } else { None };
                let same = matches!((our, their), (Some((_, a)), Some((_, b)))
                    if Arc::ptr_eq(a, b) || a == b);
                if !same {
                    return our.or(their).map(|(id, _)| Arc::clone(id));
                }
            }
        })
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances")
            .field("revision", &self.revision)
            .field("instances", &self.map)
            .field("malformed", &self.malformed)
            .finish()
    }
}

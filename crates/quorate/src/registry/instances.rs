//! All instances of a service, as they stood at one revision.

use std::{fmt, sync::Arc};

use imbl::{OrdMap as Map, ordmap::DiffItem};

use super::{
    Change, Instance,
    layout::{KeyRole, Place},
};
use crate::{Event, Key, KeyValue, Revision, observation::Gather};

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
        self.map.len()
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

    /// Becomes what was read anew, and returns the ids of the instances that are not what they were. All
    /// others stay where they are, so that snapshots go on to share them.
    pub(super) fn replace(&mut self, now: Self) -> Vec<Arc<str>> {
        let different: Vec<_> = self.differing(&now).collect();
        for id in &different {
            match now.map.get(id) {
                Some(instance) => self.map.insert(Arc::clone(id), Arc::clone(instance)),
                None => self.map.remove(id),
            };
        }
        self.revision = now.revision;
        self.malformed = now.malformed;
        different
    }

    /// Takes note of a change, and returns the id of the instance that it changed, if any.
    pub(super) fn apply(&mut self, place: &Place, event: &Event) -> Option<Arc<str>> {
        self.revision = event.revision();
        match event {
            Event::Put { kv, .. } => self.put(place, kv),
            Event::Delete { key, .. } => {
                self.malformed.remove(key);
                match place.role(key) {
                    KeyRole::Instance(id) => self.remove(id),
                    KeyRole::Malformed | KeyRole::Other => None,
                }
            }
        }
    }

    fn put(&mut self, place: &Place, kv: &KeyValue) -> Option<Arc<str>> {
        let id = match place.role(&kv.key) {
            KeyRole::Instance(id) => id,
            KeyRole::Malformed => {
                self.reject(&kv.key, "its name is not text");
                return None;
            }
            KeyRole::Other => return None,
        };
        let read = place.decode(&kv.value);
        if let Err(why) = &read {
            self.reject(&kv.key, why);
        } else {
            self.malformed.remove(&kv.key);
        }
        let Ok(Some(instance)) = read else {
            return self.remove(id);
        };
        let id = match self.map.get_key_value(id) {
            Some((_, before)) if **before == instance => return None,
            Some((id, _)) => Arc::clone(id),
            None => Arc::from(id),
        };
        self.map.insert(Arc::clone(&id), Arc::new(instance));
        Some(id)
    }

    fn remove(&mut self, id: &str) -> Option<Arc<str>> {
        let (id, _) = self.map.get_key_value(id)?;
        let id = Arc::clone(id);
        self.map.remove(&*id);
        Some(id)
    }

    fn reject(&mut self, key: &Key, why: &str) {
        tracing::warn!(%key, why, "this is no instance of a service");
        // A copy: the key is a part of the page that it came in.
        self.malformed.insert(Key::from(&**key), why.into());
    }

    /// Takes note of what a reader was told.
    pub(super) fn tell(&mut self, change: &Change) {
        match change {
            Change::Joined(id, instance) | Change::Updated(id, instance) => {
                self.map.insert(Arc::clone(id), Arc::clone(instance));
            }
            Change::Left(id) => {
                self.map.remove(id);
            }
        }
    }

    /// The ids under which the two differ.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Arc<str>> + 'a {
        self.map
            .diff(&other.map)
            .map(|difference| match difference {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) => Arc::clone(id),
                DiffItem::Update { new: (id, _), .. } => Arc::clone(id),
            })
    }
}

/// Gathers the instances of the service that lies here.
impl Gather for Place {
    type State = Instances;

    fn add(&self, instances: &mut Instances, revision: Revision, page: Vec<KeyValue>) {
        instances.revision = revision;
        for kv in &page {
            instances.put(self, kv);
        }
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

//! What a template has read, all of it at one revision.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use quorate::{Client, KeyRange, KeyValue, Range, Result, Revision};

/// Keys that the outcome of a template depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    Key(String),
    Prefix(String),
}

impl Dependency {
    pub(super) fn keys(&self) -> KeyRange {
        match self {
            Self::Key(key) => KeyRange::key(key.as_str()),
            Self::Prefix(prefix) => KeyRange::prefix(prefix.as_str()),
        }
    }
}

/// Some keys as they all stood at one revision.
#[derive(Debug, Default)]
pub(super) struct View {
    revision: Revision,
    read: BTreeMap<Dependency, Vec<KeyValue>>,
}

impl View {
    /// The revision; that of the first read, and zero before.
    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    /// The keys, if they were read.
    pub(super) fn get(&self, dependency: &Dependency) -> Option<&[KeyValue]> {
        self.read.get(dependency).map(Vec::as_slice)
    }

    /// Reads more, at the revision of the first read.
    ///
    /// # Errors
    ///
    /// As [`Client::pages`]; the revision may be compacted away by now.
    pub(super) async fn read(&mut self, client: &Client, dependency: Dependency) -> Result<()> {
        let range = Range::new(dependency.keys()).revision(self.revision);
        let mut pages = client.pages(range);
        let mut kvs = Vec::new();
        while let Some(page) = pages.try_next().await? {
            self.revision = page.header.revision;
            kvs.extend(page.kvs);
        }
        self.read.insert(dependency, kvs);
        Ok(())
    }
}

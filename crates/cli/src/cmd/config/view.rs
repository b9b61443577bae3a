//! What a template has read, all of it at one revision.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use quorate::{Client, KeyRange, KeyValue, Range, Result, Revision};

/// Keys that the outcome of a template depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dependency {
    Key(String),
    Prefix(String),
}

impl Dependency {
    pub(crate) fn keys(&self) -> KeyRange {
        match self {
            Self::Key(key) => KeyRange::key(key.as_str()),
            Self::Prefix(prefix) => KeyRange::prefix(prefix.as_str()),
        }
    }
}

/// Some keys as they all stood at one revision.
#[derive(Debug, Default)]
pub(crate) struct View {
    revision: Revision,
    read: BTreeMap<Dependency, Vec<KeyValue>>,
}

impl View {
    /// The revision; that of the first read, and zero before.
    pub(crate) const fn revision(&self) -> Revision {
        self.revision
    }

    /// The keys, if they were read.
    pub(crate) fn get(&self, dependency: &Dependency) -> Option<&[KeyValue]> {
        self.read.get(dependency).map(Vec::as_slice)
    }

    /// Reads more, at the revision of the first read.
    ///
    /// # Errors
    ///
    /// As [`Client::pages`]; the revision may be compacted away by now.
    pub(crate) async fn read(&mut self, client: &Client, dependency: Dependency) -> Result<()> {
        let (revision, kvs) = read_at(client, &dependency, self.revision).await?;
        self.revision = revision;
        self.read.insert(dependency, kvs);
        Ok(())
    }

    /// Reads many at a time, likewise.
    pub(crate) async fn read_all(
        &mut self,
        client: &Client,
        dependencies: &BTreeSet<Dependency>,
    ) -> Result<()> {
        /// How many are read at a time.
        const AT_A_TIME: usize = 16;

        let mut rest = dependencies.iter().cloned();
        let Some(first) = rest.next() else {
            return Ok(());
        };
        self.read(client, first).await?;
        let revision = self.revision;
        let reads = stream::iter(rest).map(|dependency| async move {
            let read = read_at(client, &dependency, revision).await;
            read.map(|(_, kvs)| (dependency, kvs))
        });
        let reads: Vec<_> = reads.buffer_unordered(AT_A_TIME).try_collect().await?;
        self.read.extend(reads);
        Ok(())
    }
}

/// Reads keys at a revision, or at the newest if it is zero, and tells at which.
async fn read_at(
    client: &Client,
    dependency: &Dependency,
    mut revision: Revision,
) -> Result<(Revision, Vec<KeyValue>)> {
    let mut pages = client.pages(Range::new(dependency.keys()).revision(revision));
    let mut kvs = Vec::new();
    while let Some(page) = pages.try_next().await? {
        revision = page.header.revision;
        kvs.extend(page.kvs);
    }
    Ok((revision, kvs))
}

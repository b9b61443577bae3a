//! A configuration that is followed, as its reader sees it.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::{Error, ErrorKind, Key, Result, Revision};

/// A configuration that is followed: the last good value, at any time and without waiting.
///
/// A task follows the store, and ends when this and its clones are dropped; the watch on the store is
/// closed then. Clones each have a position of their own.
#[must_use = "a configuration is followed until its watch is dropped"]
pub struct ConfigWatch<T> {
    state: watch::Receiver<State<T>>,
    /// What was told of the state's counters.
    accepted: u64,
    refused: u64,
}

/// What [`ConfigWatch::next`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update<T> {
    /// Another value was taken over.
    Changed(Arc<T>),
    /// What is there now was refused: the last good value stays.
    Rejected(Arc<Rejected>),
}

/// A document that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its key. Below a prefix, the key that is to blame if it is one, else the prefix.
    pub key: Key,
    /// The revision of its write; below a prefix, the revision at which the keys stood like this.
    pub revision: Revision,
    /// What is wrong with it.
    pub reason: Rejection,
}

/// Why a document was refused. As text it tells what has to be corrected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// There is none: the key was deleted, or the last key below the prefix.
    Deleted,
    /// The validator refuses the value.
    Invalid(String),
    /// It cannot be decoded, or not as this type.
    Undecodable(String),
}

/// What the task tells the handle.
pub(super) struct State<T> {
    value: Arc<T>,
    revision: Revision,
    /// How many values were taken over since the first.
    accepted: u64,
    /// What is there now, if that is no value.
    rejected: Option<Arc<Rejected>>,
    /// How often it was told that something is no value.
    refused: u64,
    pub(super) stale: bool,
    /// Why the task ended.
    pub(super) end: Option<Error>,
}

impl<T> ConfigWatch<T> {
    pub(super) fn new(state: watch::Receiver<State<T>>) -> Self {
        Self {
            state,
            accepted: 0,
            refused: 0,
        }
    }

    /// The last good value.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.state.borrow().value)
    }

    /// The revision of the last good value: that of its write; below a prefix, one at which the keys
    /// stood like this. [Zero](Revision::ZERO) for the default value.
    pub fn revision(&self) -> Revision {
        self.state.borrow().revision
    }

    /// Whether the store may know better: there is no connection as far as is known, what was missed
    /// meanwhile is not told yet, or the value is the cache's and nothing was heard of the store yet. A
    /// connection that is silent is noticed after a few seconds.
    pub fn is_stale(&self) -> bool {
        self.state.borrow().stale
    }

    /// What is there now, if it was refused.
    pub fn rejected(&self) -> Option<Arc<Rejected>> {
        self.state.borrow().rejected.clone()
    }

    /// Waits until there is a value, or a refused document, that was not told yet. States in between
    /// may be skipped; the last one never is.
    ///
    /// # Errors
    ///
    /// What the store refuses for good, such as a missing permission. It is final, and the value is
    /// stale from then on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Update<T>> {
        loop {
            {
                let state = self.state.borrow_and_update();
                if self.accepted != state.accepted {
                    self.accepted = state.accepted;
                    return Ok(Update::Changed(Arc::clone(&state.value)));
                }
                if self.refused != state.refused {
                    self.refused = state.refused;
                    if let Some(rejected) = &state.rejected {
                        return Ok(Update::Rejected(Arc::clone(rejected)));
                    }
                }
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
            }
            if self.state.changed().await.is_err() {
                let message = "the configuration is followed no more: its task has ended";
                return Err(Error::new(ErrorKind::Closed, message));
            }
        }
    }
}

impl<T> Clone for ConfigWatch<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            ..*self
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for ConfigWatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("ConfigWatch")
            .field("current", &state.value)
            .field("revision", &state.revision)
            .field("rejected", &state.rejected)
            .field("stale", &state.stale)
            .finish_non_exhaustive()
    }
}

impl Rejected {
    pub(super) fn into_error(self) -> Error {
        let kind = match self.reason {
            Rejection::Deleted => ErrorKind::NotFound,
            Rejection::Invalid(_) | Rejection::Undecodable(_) => ErrorKind::InvalidData,
        };
        let message = match self.reason {
            Rejection::Deleted => format!("there is no configuration {}", self.key),
            _ => self.to_string(),
        };
        Error::new(kind, message)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            revision,
            reason,
        } = self;
        write!(f, "{key} at revision {revision}: {reason}")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted => f.write_str("it was deleted"),
            Self::Invalid(why) => write!(f, "the value is not valid: {why}"),
            Self::Undecodable(why) => f.write_str(why),
        }
    }
}

impl<T> State<T> {
    pub(super) fn new(value: T, revision: Revision) -> Self {
        Self {
            value: Arc::new(value),
            revision,
            accepted: 0,
            rejected: None,
            refused: 0,
            stale: false,
            end: None,
        }
    }

    pub(super) fn accept(&mut self, value: T, revision: Revision) {
        self.value = Arc::new(value);
        self.revision = revision;
        self.accepted += 1;
        self.rejected = None;
    }

    pub(super) fn reject(&mut self, rejected: Rejected) {
        let is_default = self.revision == Revision::ZERO && rejected.reason == Rejection::Deleted;
        self.rejected = (!is_default).then(|| Arc::new(rejected));
        self.refused += 1;
    }
}

//! What happened in a run, line by line: the same seed makes the same bytes.

use std::{
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use super::world::lock;

/// How much of a trace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Digest,
    Text,
}

/// A record of a run. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Option<Arc<Mutex<Inner>>>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Of all lines.
    digest: DefaultHasher,
    /// All lines, if they are kept.
    text: Option<String>,
    /// The present one.
    line: String,
}

impl Trace {
    /// A trace that begins now.
    pub(crate) fn new(keep: Keep) -> Self {
        if keep == Keep::Nothing {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Inner {
            origin: Instant::now(),
            digest: DefaultHasher::new(),
            text: (keep == Keep::Text).then(String::new),
            line: String::new(),
        }))))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        let Some(inner) = &self.0 else {
            return;
        };
        let mut inner = lock(inner);
        let Inner {
            origin,
            digest,
            text,
            line: buffer,
        } = &mut *inner;
        buffer.clear();
        let at = origin.elapsed().as_micros();
        // Writing to a string does not fail.
        let _ = writeln!(buffer, "{:>4}.{:06} {line}", at / 1_000_000, at % 1_000_000);
        digest.write(buffer.as_bytes());
        if let Some(text) = text {
            text.push_str(buffer);
        }
    }

    /// A number that differs if anything did.
    pub(crate) fn digest(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |inner| lock(inner).digest.finish())
    }

    /// The lines that were kept.
    pub(crate) fn text(&self) -> String {
        let inner = self.0.as_ref().map(|inner| lock(inner));
        inner
            .and_then(|inner| inner.text.clone())
            .unwrap_or_default()
    }
}

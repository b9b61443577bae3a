//! What is configured, and how it is written: in one key, or in a key for each field.

use quorate::{Key, KeyRange, KeyValue, Rejection};
use serde::{Deserialize, Serialize};

/// The key of the document.
pub(super) const KEY: &str = "cfg/limits.json";

/// What the keys of the fields begin with.
pub(super) const PREFIX: &str = "fields/";

/// The configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Limits {
    /// Not zero.
    pub(super) limit: u32,
    /// What `update` adds to.
    pub(super) count: u64,
    /// Who wrote it.
    pub(super) by: By,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct By {
    pub(super) name: String,
}

impl Limits {
    pub(super) fn new(by: &str, count: u64, limit: u32) -> Self {
        let by = By {
            name: by.to_owned(),
        };
        Self { limit, count, by }
    }

    /// The rule that the followers are given.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self.limit {
            0 => Err("the limit is zero"),
            _ => Ok(()),
        }
    }
}

/// Where a configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Document,
    Fields,
}

impl Place {
    pub(super) fn keys(self) -> KeyRange {
        match self {
            Self::Document => KeyRange::key(KEY),
            Self::Fields => KeyRange::prefix(PREFIX),
        }
    }

    /// What the keys say; none if that is not valid, whatever the library thinks.
    pub(super) fn decode(self, present: &[KeyValue]) -> Option<Limits> {
        let limits: Limits = match self {
            Self::Document => serde_json::from_slice(&present.first()?.value).ok()?,
            Self::Fields => {
                let get = |name: &str| {
                    let kv = present.iter().find(|kv| kv.key == field(name));
                    kv.and_then(|kv| kv.value.as_str())
                };
                let (limit, count) = (get("limit")?.parse().ok()?, get("count")?.parse().ok()?);
                Limits::new(get("by/name")?, count, limit)
            }
        };
        limits.check().is_ok().then_some(limits)
    }

    /// Whether what was refused is so.
    pub(super) fn is_refused(self, present: &[KeyValue], reason: &Rejection) -> bool {
        match reason {
            Rejection::Deleted => present.is_empty(),
            _ => !present.is_empty() && self.decode(present).is_none(),
        }
    }
}

/// The key of a field.
pub(super) fn field(name: &str) -> Key {
    format!("{PREFIX}{name}").into()
}

/// A document.
pub(super) fn text(by: &str, count: u64, limit: u32) -> String {
    let limits = Limits::new(by, count, limit);
    serde_json::to_string(&limits).expect("it has nothing but numbers and text")
}

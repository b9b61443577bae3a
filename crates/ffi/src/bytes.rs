//! Bytes and names as C gives them.

use std::{slice, time::Duration};

use quorate::{Key, Value};

use crate::error::Failure;

/// The longest input in bytes; etcd refuses requests above 1.5 MB unless it is told otherwise.
pub const QUORATE_MAX_LEN: usize = 67_108_864;

/// Bytes with their length. As an input they need no NUL behind them; in a result they have one, which
/// is not counted. Make inputs by quorate_str or quorate_buf.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_bytes {
    /// The bytes; may be NULL if there are none.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

/// What a quorate_keys names: one key.
pub const QUORATE_KEY: i32 = 0;
/// What a quorate_keys names: every key that begins with `key`; every key if that is empty.
pub const QUORATE_PREFIX: i32 = 1;
/// What a quorate_keys names: every key from `key` on.
pub const QUORATE_FROM: i32 = 2;
/// What a quorate_keys names: every key from `key` on and before `end`.
pub const QUORATE_BETWEEN: i32 = 3;

/// Which keys a call is about. Make it by quorate_key, quorate_prefix, quorate_from or quorate_between.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_keys {
    /// QUORATE_KEY, QUORATE_PREFIX, QUORATE_FROM or QUORATE_BETWEEN.
    pub kind: i32,
    /// The key, the prefix or the first key.
    pub key: quorate_bytes,
    /// With QUORATE_BETWEEN the key before which the range ends.
    pub end: quorate_bytes,
}

impl quorate_bytes {
    /// The bytes; `what` is what they are called in messages.
    pub(crate) fn slice(&self, what: &str) -> Result<&[u8], Failure> {
        if self.len == 0 {
            return Ok(&[]);
        }
        if self.data.is_null() {
            return Err(Failure::invalid(format!(
                "the {what} is NULL with a length"
            )));
        }
        if self.len > QUORATE_MAX_LEN {
            let message = format!("the {what} is longer than {QUORATE_MAX_LEN} bytes");
            return Err(Failure::invalid(message));
        }
        // SAFETY: the conventions ask for a pointer to so many bytes, which nobody writes during the
        // call. It is not null, and a byte needs no alignment.
        Ok(unsafe { slice::from_raw_parts(self.data, self.len) })
    }

    /// A key, or what is named like one.
    pub(crate) fn key(&self, what: &str) -> Result<Key, Failure> {
        match self.slice(what)? {
            [] => Err(Failure::invalid(format!("the {what} is empty"))),
            key => Ok(key.into()),
        }
    }

    pub(crate) fn value(&self, what: &str) -> Result<Value, Failure> {
        Ok(self.slice(what)?.into())
    }

    /// Text that is not empty.
    pub(crate) fn text(&self, what: &str) -> Result<&str, Failure> {
        self.optional_text(what)?
            .ok_or_else(|| Failure::invalid(format!("the {what} is empty")))
    }

    /// Text, or none if it is empty.
    pub(crate) fn optional_text(&self, what: &str) -> Result<Option<&str>, Failure> {
        let text = std::str::from_utf8(self.slice(what)?)
            .map_err(|_| Failure::invalid(format!("the {what} is not UTF-8")))?;
        Ok((!text.is_empty()).then_some(text))
    }
}

impl quorate_keys {
    pub(crate) fn range(&self) -> Result<quorate::KeyRange, Failure> {
        use quorate::KeyRange;

        match self.kind {
            QUORATE_KEY => Ok(KeyRange::key(self.key.key("key")?)),
            QUORATE_PREFIX => Ok(KeyRange::prefix(self.key.slice("prefix")?)),
            QUORATE_FROM => Ok(KeyRange::from(self.key.key("first key")?)),
            QUORATE_BETWEEN => {
                let first = self.key.key("first key")?;
                Ok(KeyRange::between(first, self.end.key("end of the keys")?))
            }
            kind => Err(Failure::invalid(format!(
                "{kind} is no kind of quorate_keys"
            ))),
        }
    }
}

/// A time in milliseconds; zero is none.
pub(crate) fn optional_millis(millis: i64, what: &str) -> Result<Option<Duration>, Failure> {
    match u64::try_from(millis) {
        Ok(0) => Ok(None),
        Ok(millis) => Ok(Some(Duration::from_millis(millis))),
        Err(_) => Err(Failure::invalid(format!("the {what} is negative"))),
    }
}

/// A time in milliseconds that there has to be.
pub(crate) fn millis(millis: i64, what: &str) -> Result<Duration, Failure> {
    optional_millis(millis, what)?.ok_or_else(|| Failure::invalid(format!("the {what} is zero")))
}

/// A duration in milliseconds, as C is told.
pub(crate) fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Refuses options that were not initialized, or are of a later version.
pub(crate) fn unreserved(reserved: &[u64]) -> Result<(), Failure> {
    if reserved.iter().all(|&word| word == 0) {
        Ok(())
    } else {
        let message = "what is reserved in the options is not zero: initialize them by {0}";
        Err(Failure::invalid(message))
    }
}

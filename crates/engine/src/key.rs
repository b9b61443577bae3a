//! Keys, values and the ranges that requests name.

use std::{fmt, ops::Deref};

use bytes::Bytes;

/// Defines a cheaply cloned byte string that prints as text where it is text.
macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// Wraps bytes without copying them.
            pub const fn new(bytes: Bytes) -> Self {
                Self(bytes)
            }

            /// The bytes as text, if they are UTF-8.
            pub fn as_str(&self) -> Option<&str> {
                std::str::from_utf8(&self.0).ok()
            }

            /// The bytes, shared rather than copied.
            pub fn into_bytes(self) -> Bytes {
                self.0
            }
        }

        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        /// Shows text as it is and other bytes escaped.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.as_str() {
                    Some(text) => f.write_str(text),
                    None => write!(f, "{}", self.0.escape_ascii()),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for Bytes {
            fn from(wrapped: $name) -> Self {
                wrapped.0
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&String> for $name {
            fn from(text: &String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Bytes::copy_from_slice(text.as_bytes()))
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(Bytes::copy_from_slice(bytes))
            }
        }

        impl<const N: usize> From<&[u8; N]> for $name {
            fn from(bytes: &[u8; N]) -> Self {
                Self::from(bytes.as_slice())
            }
        }

        impl From<&Self> for $name {
            fn from(other: &Self) -> Self {
                other.clone()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == *other.as_bytes()
            }
        }
    };
}

byte_string! {
    /// A key: any bytes, not empty. Cloning shares the bytes.
    Key
}

byte_string! {
    /// A value: any bytes, possibly none. Cloning shares the bytes.
    Value
}

/// The keys that a request is about: one key, or all keys from a first one up to an end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The only key, or the first key of the range.
    pub start: Key,
    /// Where the range ends.
    pub end: RangeEnd,
}

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The range is the start key alone.
    Single,
    /// The range ends before this key. Nothing is in it if this key is not above the start.
    Before(Key),
    /// The range has no end: every key from the start on.
    Unbounded,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Key>) -> Self {
        Self {
            start: key.into(),
            end: RangeEnd::Single,
        }
    }

    /// Every key that begins with `prefix`; with an empty prefix, every key.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        if start.is_empty() {
            return Self::all();
        }
        let end = prefix_end(&start);
        Self { start, end }
    }

    /// Every key from `first` on.
    pub fn from(first: impl Into<Key>) -> Self {
        Self {
            start: first.into(),
            end: RangeEnd::Unbounded,
        }
    }

    /// Every key from `first` up to, and without, `end`.
    pub fn between(first: impl Into<Key>, end: impl Into<Key>) -> Self {
        Self {
            start: first.into(),
            end: RangeEnd::Before(end.into()),
        }
    }

    /// Every key there is.
    pub fn all() -> Self {
        Self::from(b"\0")
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => *self.start == *key,
            RangeEnd::Before(end) => *self.start <= *key && *key < **end,
            RangeEnd::Unbounded => *self.start <= *key,
        }
    }

    /// Whether the range names exactly one key.
    pub const fn is_single(&self) -> bool {
        matches!(self.end, RangeEnd::Single)
    }

    /// Reads the pair of etcd's protocol: no end is one key, an end of one zero byte is no end.
    pub fn from_wire(key: impl Into<Key>, range_end: impl Into<Key>) -> Self {
        let range_end = range_end.into();
        let end = match &*range_end {
            b"" => RangeEnd::Single,
            b"\0" => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self {
            start: key.into(),
            end,
        }
    }

    /// The pair of etcd's protocol, as [`KeyRange::from_wire`] reads it. A range that ends before
    /// every key has no pair; it becomes another range that has no key.
    pub fn to_wire(&self) -> (Bytes, Bytes) {
        let end = match &self.end {
            RangeEnd::Single => Bytes::new(),
            // Without a first key the request is refused whatever its end is.
            RangeEnd::Before(end) if **end <= b"\0"[..] && !self.start.is_empty() => {
                return (Bytes::from_static(b"\x01"), Bytes::from_static(b"\x01"));
            }
            RangeEnd::Before(end) => end.clone().into_bytes(),
            RangeEnd::Unbounded => Bytes::from_static(b"\0"),
        };
        (self.start.clone().into_bytes(), end)
    }
}

/// One key is a range of one.
impl<K: Into<Key>> From<K> for KeyRange {
    fn from(key: K) -> Self {
        Self::key(key)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            RangeEnd::Single => write!(f, "{}", self.start),
            RangeEnd::Before(_) if self.end == prefix_end(&self.start) => {
                write!(f, "{}*", self.start)
            }
            RangeEnd::Before(end) => write!(f, "[{}, {})", self.start, end),
            RangeEnd::Unbounded if *self.start == *b"\0" => f.write_str("*"),
            RangeEnd::Unbounded => write!(f, "[{}, ...)", self.start),
        }
    }
}

/// The end of the range of all keys that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> RangeEnd {
    // The last byte that can be raised is raised and what follows it dropped; a prefix of 0xff
    // bytes alone has no key above it that lacks the prefix.
    match prefix.iter().rposition(|&byte| byte != u8::MAX) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            RangeEnd::Before(end.into())
        }
        None => RangeEnd::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_sibling() {
        assert_eq!(KeyRange::prefix("a/").end, RangeEnd::Before("a0".into()));
        assert_eq!(KeyRange::prefix(b"a\xff").end, RangeEnd::Before("b".into()));
        assert_eq!(KeyRange::prefix(b"\xff\xff").end, RangeEnd::Unbounded);
        assert!(KeyRange::prefix(b"\xff").contains(b"\xff\xff\x01"));
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    #[test]
    fn wire_pairs_read_back() {
        for range in [
            KeyRange::key("k"),
            KeyRange::prefix("p/"),
            KeyRange::from("f"),
            KeyRange::between("a", "b"),
            KeyRange::all(),
        ] {
            let (key, end) = range.to_wire();
            assert_eq!(KeyRange::from_wire(key, end), range);
        }
    }

    #[test]
    fn a_range_that_ends_before_every_key_does_not_turn_into_one_key_or_all() {
        for end in ["", "\0"] {
            for start in ["\0", "a"] {
                let (start, end) = KeyRange::between(start, end).to_wire();
                let sent = KeyRange::from_wire(start, end);
                assert!(matches!(&sent.end, RangeEnd::Before(end) if *end <= sent.start));
            }
        }
    }
}

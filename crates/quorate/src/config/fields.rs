//! The keys below a prefix, as the fields of a struct.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess,
        Unexpected, Visitor, value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{Refusal, Rejection};
use crate::{Key, Present};

/// How deep fields may nest, so that no key can exhaust the stack.
const DEEPEST: usize = 64;

/// Decodes the keys below `prefix`.
pub(super) fn decode<T: DeserializeOwned>(prefix: &Key, present: &Present) -> Result<T, Refusal> {
    let mut root = Branch::default();
    for (key, kv) in present {
        let refused = |why: String| Refusal {
            key: Some(key.clone()),
            reason: Rejection::Undecodable(why),
        };
        let below = key.strip_prefix(&**prefix).unwrap_or(key);
        let path = str::from_utf8(below).map_err(|_| refused("its name is not UTF-8".into()))?;
        let is_directory = path.is_empty() || path.ends_with('/');
        if !(is_directory && kv.value.is_empty()) {
            root.insert(path, &kv.value).map_err(refused)?;
        }
    }
    T::deserialize(Node::Branch(root)).map_err(|failure| Refusal {
        key: (!failure.path.is_empty()).then(|| [prefix, failure.path.as_bytes()].concat().into()),
        reason: Rejection::Undecodable(failure.message),
    })
}

enum Node<'a> {
    Branch(Branch<'a>),
    Leaf(Leaf<'a>),
}

#[derive(Default)]
struct Branch<'a>(BTreeMap<&'a str, Node<'a>>);

/// A value that becomes what the type wants.
#[derive(Clone, Copy)]
struct Leaf<'a>(&'a [u8]);

impl<'a> Branch<'a> {
    fn insert(&mut self, path: &'a str, value: &'a [u8]) -> Result<(), String> {
        let mut names = path.split('/');
        let last = names.next_back().unwrap_or_default();
        let mut branch = self;
        let mut length = 0;
        for (depth, name) in names.enumerate() {
            if depth + 1 == DEEPEST {
                return Err(format!("fields nest no deeper than {DEEPEST} levels"));
            }
            let node = branch.0.entry(name);
            length += name.len();
            match node.or_insert_with(|| Node::Branch(Self::default())) {
                Node::Branch(inner) => branch = inner,
                Node::Leaf(_) => return Err(conflict(&path[..length], path)),
            }
            length += 1;
        }
        match branch.0.entry(last) {
            Entry::Vacant(entry) => {
                entry.insert(Node::Leaf(Leaf(value)));
                Ok(())
            }
            Entry::Occupied(_) => Err(conflict(path, &format!("{path}/..."))),
        }
    }
}

fn conflict(value: &str, below: &str) -> String {
    format!("{value} is a value, and {below} lies below it: delete one of them")
}

/// What does not fit the type, and where.
#[derive(Debug)]
struct Failure {
    path: String,
    message: String,
}

impl Failure {
    fn below(mut self, name: &str) -> Self {
        self.path = match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{name}/{}", self.path),
        };
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self {
            path: String::new(),
            message: message.to_string(),
        }
    }
}

impl<'de> IntoDeserializer<'de, Failure> for Node<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! to_the_kind_of_node {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            match self {
                Self::Branch(branch) => visitor.visit_map(Entries::of(branch)),
                Self::Leaf(leaf) => leaf.$method(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Failure;

    to_the_kind_of_node! {
        deserialize_any deserialize_bool deserialize_byte_buf deserialize_bytes deserialize_char
        deserialize_f32 deserialize_f64 deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_identifier deserialize_ignored_any
        deserialize_map deserialize_seq deserialize_str deserialize_string deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_unit
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self {
            Self::Branch(_) => visitor.visit_some(self),
            Self::Leaf(leaf) => leaf.deserialize_option(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self {
            Self::Branch(branch) => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::of(branch)))
            }
            Self::Leaf(leaf) => leaf.deserialize_enum(name, variants, visitor),
        }
    }
}

/// The fields of a branch, one after the other.
struct Entries<'a> {
    rest: std::collections::btree_map::IntoIter<&'a str, Node<'a>>,
    value: Option<(&'a str, Node<'a>)>,
}

impl<'a> Entries<'a> {
    fn of(branch: Branch<'a>) -> Self {
        Self {
            rest: branch.0.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        let Some((name, node)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((name, node));
        seed.deserialize(Leaf(name.as_bytes()))
            .map(Some)
            .map_err(|failure| failure.below(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let (name, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value was asked for before its name"))?;
        seed.deserialize(node)
            .map_err(|failure: Failure| failure.below(name))
    }
}

impl<'de> Leaf<'de> {
    /// Takes the value for JSON if it is that, and else for text.
    fn json<V: Visitor<'de>>(
        self,
        visitor: V,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
            V,
        ) -> serde_json::Result<V::Value>,
    ) -> Result<V::Value, Failure> {
        if serde_json::from_slice::<IgnoredAny>(self.0).is_err() {
            return self.text(visitor);
        }
        let mut json = serde_json::Deserializer::from_slice(self.0);
        read(&mut json, visitor).map_err(de::Error::custom)
    }

    /// The text itself, or that of a JSON string.
    fn text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.0.trim_ascii_start().starts_with(b"\"")
            && let Ok(text) = serde_json::from_slice(self.0)
        {
            return visitor.visit_string(text);
        }
        match str::from_utf8(self.0) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => Err(de::Error::invalid_type(
                Unexpected::Other("bytes that are no UTF-8"),
                &visitor,
            )),
        }
    }
}

macro_rules! as_json {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.json(visitor, |json, visitor| json.$method(visitor))
        }
    )*};
}

macro_rules! as_text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.text(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Leaf<'de> {
    type Error = Failure;

    as_json! {
        deserialize_any deserialize_bool deserialize_f32 deserialize_f64 deserialize_i8
        deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_map
        deserialize_seq deserialize_unit
    }

    as_text! { deserialize_char deserialize_identifier deserialize_str deserialize_string }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0.trim_ascii() {
            b"null" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let start = self.0.trim_ascii_start().first();
        if matches!(start, Some(b'{' | b'"')) {
            let read = |json: &mut serde_json::Deserializer<_>, visitor| {
                json.deserialize_enum(name, variants, visitor)
            };
            return self.json(visitor, read);
        }
        match str::from_utf8(self.0) {
            Ok(text) => visitor.visit_enum(text.into_deserializer()),
            Err(_) => self.text(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { struct tuple tuple_struct unit_struct }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::{KeyValue, Revision};

    fn read<T: DeserializeOwned>(pairs: &[(&str, &str)]) -> Result<T, String> {
        let kv = |key: &str, value: &str| KeyValue {
            key: format!("p/{key}").into(),
            value: value.into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: None,
        };
        let kvs = pairs.iter().map(|(key, value)| kv(key, value));
        let present = kvs.map(|kv| (kv.key.clone(), kv)).collect();
        decode(&"p/".into(), &present).map_err(|refusal| {
            let key = refusal.key.unwrap_or_default();
            format!("{key}: {}", refusal.reason)
        })
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Info,
        Custom(u8),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Name(String);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Server {
        name: Name,
        port: u16,
        ratio: f64,
        on: bool,
        level: Level,
        tags: Vec<String>,
        note: Option<String>,
        #[serde(default)]
        none: Option<u8>,
        shards: HashMap<u32, Shard>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Shard {
        host: String,
    }

    #[test]
    fn the_type_decides_what_a_value_is() {
        let server: Server = read(&[
            ("name", "10"),
            ("port", "8080\n"),
            ("ratio", "2"),
            ("on", "true"),
            ("level", "info"),
            ("tags", r#"["a", "b"]"#),
            ("note", r#""quoted""#),
            ("none", "null"),
            ("shards/7/host", "true"),
            ("shards/8", r#"{"host": "h8"}"#),
            ("unknown/deep", "x"),
        ])
        .unwrap();
        assert_eq!(server.name, Name("10".into()));
        assert_eq!((server.port, server.ratio, server.on), (8080, 2.0, true));
        assert_eq!((server.level, server.none), (Level::Info, None));
        assert_eq!(
            (server.tags.len(), server.note.as_deref()),
            (2, Some("quoted"))
        );
        assert_eq!(
            (&*server.shards[&7].host, &*server.shards[&8].host),
            ("true", "h8")
        );

        let levels: HashMap<String, Level> = read(&[
            ("a", "\"info\""),
            ("b", r#"{"custom": 3}"#),
            ("c/custom", "4"),
        ])
        .unwrap();
        assert_eq!(levels["a"], Level::Info);
        assert_eq!(
            (&levels["b"], &levels["c"]),
            (&Level::Custom(3), &Level::Custom(4))
        );
        let any: serde_json::Value = read(&[("a", "1"), ("b/c", "word"), ("dir/", "")]).unwrap();
        assert_eq!(any, serde_json::json!({"a": 1, "b": {"c": "word"}}));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_key() {
        let of = |pairs: &[(&str, &str)]| read::<HashMap<String, Shard>>(pairs).unwrap_err();
        assert!(of(&[("a/host", "x"), ("b/port", "1")]).starts_with("p/b: missing field"));
        assert!(of(&[("a", "12")]).starts_with("p/a: invalid type: integer"));
        assert!(of(&[("a", "word")]).starts_with("p/a: invalid type: string \"word\""));
        assert!(of(&[("a/host/b", "x")]).starts_with("p/a/host: invalid type: map"));
        let ports = read::<HashMap<String, u16>>(&[("a", "70000")]).unwrap_err();
        assert!(
            ports.starts_with("p/a: invalid value: integer `70000`"),
            "{ports}"
        );
    }

    #[test]
    fn a_value_with_keys_below_it_is_refused() {
        for pairs in [[("a", "1"), ("a/b", "2")], [("a/b", "1"), ("a/b/c/d", "2")]] {
            let error = read::<serde_json::Value>(&pairs).unwrap_err();
            let (value, below) = (pairs[0].0, pairs[1].0);
            let told = format!("p/{below}: {value} is a value, and {below} lies below it");
            assert!(error.starts_with(&told), "{error}");
        }
        let error = read::<serde_json::Value>(&[("a/", "1"), ("a//b", "1")]).unwrap_err();
        assert!(error.contains("lies below it"), "{error}");
    }

    #[test]
    fn no_key_is_too_deep_for_the_stack() {
        let deep = "x/".repeat(100_000) + "y";
        let error = read::<serde_json::Value>(&[(&deep, "1")]).unwrap_err();
        assert!(error.contains("no deeper"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_panics(key in "[a-b/]{0,6}", other in "[a-b/]{0,6}", value in ".*") {
            let pairs = [(key.as_str(), value.as_str()), (other.as_str(), value.as_str())];
            let _ = read::<serde_json::Value>(&pairs);
            let _ = read::<Server>(&pairs);
            let _ = read::<HashMap<String, Level>>(&pairs);
            let _ = read::<HashMap<u8, Option<Name>>>(&pairs);
        }
    }
}

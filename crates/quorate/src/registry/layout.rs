//! Where the instances of a service lie in the store, and how each is written.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value as Json, json};

use super::Instance;
use crate::{Error, ErrorKind, Key, Result, Value};

/// How a service's instances are written in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// That of the naming package of etcd's Go client, for programs that use its gRPC resolver:
    /// `NAME/ID -> {"Op":0,"Addr":"host:port","Metadata":...}`.
    ///
    /// Metadata may be any JSON. A weight other than 1 and the draining flag are written as `Weight` and
    /// `Draining`, which Go ignores: its programs call a draining instance until it leaves. A value
    /// whose `Op` is 1 is no instance.
    Grpc,
    /// `services/NAME/ID -> {"address":"host:port","metadata":{},"weight":1,"draining":false}`.
    ///
    /// In what others wrote only the address has to be there, and what is not known is ignored. A key
    /// with a further slash is no instance.
    #[default]
    Quorate,
    /// `NAME/ID -> ADDRESS`: the value is the address and may be any text.
    ///
    /// There is no room for metadata, weights and the draining flag.
    Raw,
}

impl Layout {
    /// Reads the value of an instance's key; `None` if it tells that there is no such instance.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](ErrorKind::InvalidData) for a value that is none of this layout.
    pub fn decode(self, value: &Value) -> Result<Option<Instance>> {
        read(self, value).map_err(|why| Error::new(ErrorKind::InvalidData, why))
    }
}

/// The place of one service.
#[derive(Clone, Debug)]
pub(super) struct Place {
    layout: Layout,
    /// What the keys of the instances begin with.
    prefix: Key,
}

/// What a key is in the eyes of the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyRole<'a> {
    /// The key of the instance with this id.
    Instance(&'a str),
    /// Its name cannot be understood.
    Malformed,
    /// Nothing of the service's.
    Other,
}

impl Place {
    pub(super) fn new(layout: Layout, root: Option<&str>, name: &str) -> Result<Self> {
        if name.is_empty() {
            return Err(invalid("the name of a service is empty"));
        }
        if layout == Layout::Quorate && name.contains('/') {
            let message = format!("the name of a service has a slash in it: {name}");
            return Err(invalid(message));
        }
        let mut prefix = match (root, layout) {
            (Some(root), _) => root.to_owned(),
            (None, Layout::Quorate) => SERVICES.to_owned(),
            (None, Layout::Grpc | Layout::Raw) => String::new(),
        };
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        prefix.push_str(name);
        prefix.push('/');
        Ok(Self {
            layout,
            prefix: prefix.into(),
        })
    }

    pub(super) fn prefix(&self) -> &Key {
        &self.prefix
    }

    pub(super) fn key(&self, id: &str) -> Result<Key> {
        if id.is_empty() {
            return Err(invalid("the id of an instance is empty"));
        }
        if id.contains('/') {
            let message = format!("the id of an instance has a slash in it: {id}");
            return Err(invalid(message));
        }
        Ok([&*self.prefix, id.as_bytes()].concat().into())
    }

    pub(super) fn role<'a>(&self, key: &'a Key) -> KeyRole<'a> {
        let Some(id) = key.strip_prefix(&*self.prefix) else {
            return KeyRole::Other;
        };
        // Others' ids may have slashes in them.
        if id.is_empty() || (self.layout == Layout::Quorate && id.contains(&b'/')) {
            return KeyRole::Other;
        }
        std::str::from_utf8(id).map_or(KeyRole::Malformed, KeyRole::Instance)
    }

    pub(super) fn encode(&self, instance: &Instance) -> Result<Value> {
        if instance.address.is_empty() {
            return Err(invalid("the address of an instance is empty"));
        }
        let metadata = instance.metadata_json();
        let json = match self.layout {
            Layout::Raw if instance.is_bare() => return Ok(instance.address.as_str().into()),
            Layout::Raw => {
                return Err(invalid(
                    "the raw layout has room for the address only: neither metadata nor a weight, \
                     and no draining",
                ));
            }
            Layout::Quorate if !metadata.is_object() => {
                return Err(invalid("the metadata of an instance are no JSON object"));
            }
            Layout::Quorate => json!({
                "address": instance.address,
                "metadata": metadata,
                "weight": instance.weight,
                "draining": instance.draining,
            }),
            Layout::Grpc => {
                let metadata = instance.has_metadata().then_some(metadata);
                let mut json = json!({"Op": 0, "Addr": instance.address, "Metadata": metadata});
                if instance.weight != 1 {
                    json["Weight"] = instance.weight.into();
                }
                if instance.draining {
                    json["Draining"] = true.into();
                }
                json
            }
        };
        Ok(json.to_string().into())
    }

    /// The instance of a value; `None` if it tells that there is none. The error is for people.
    pub(super) fn decode(&self, value: &Value) -> Result<Option<Instance>, String> {
        read(self.layout, value)
    }
}

/// The operation of Go's naming package that says that there is no such endpoint.
const DELETE: u8 = 1;

/// Where services lie if nothing else is said.
pub(super) const SERVICES: &str = "services/";

fn read(layout: Layout, value: &Value) -> Result<Option<Instance>, String> {
    let names = match layout {
        Layout::Grpc => &GRPC,
        Layout::Quorate => &QUORATE,
        Layout::Raw => {
            let address = value.as_str().ok_or("it is not text")?;
            return Ok(Some(Instance::new(address)));
        }
    };
    let mut json = serde_json::Deserializer::from_slice(value);
    let fields = json.deserialize_map(names);
    let fields = fields.and_then(|fields| json.end().map(|()| fields));
    let fields = fields.map_err(|error| error.to_string())?;
    if fields.op == Some(DELETE.into()) {
        return Ok(None);
    }
    let address = fields.address.filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| format!("it has no {}", names.address))?;
    let mut instance = Instance::new(address);
    if let Some(metadata) = fields.metadata {
        if layout == Layout::Quorate && !metadata.is_object() {
            return Err(format!("its {} are no JSON object", names.metadata));
        }
        instance = instance.with_metadata_json(&metadata);
    }
    instance.weight = fields.weight.unwrap_or(instance.weight);
    instance.draining = fields.draining.unwrap_or(instance.draining);
    Ok(Some(instance))
}

/// What is told of an instance. What is null is as good as missing.
#[derive(Default)]
struct Fields {
    op: Option<Json>,
    address: Option<String>,
    metadata: Option<Json>,
    weight: Option<u32>,
    draining: Option<bool>,
}

/// What the fields of an instance are called. They are read into their types at once: a tree of all that
/// is written costs a tracker as much as all else it does.
struct Names {
    op: Option<&'static str>,
    address: &'static str,
    metadata: &'static str,
    weight: &'static str,
    draining: &'static str,
}

const GRPC: Names = Names {
    op: Some("Op"),
    address: "Addr",
    metadata: "Metadata",
    weight: "Weight",
    draining: "Draining",
};

const QUORATE: Names = Names {
    op: None,
    address: "address",
    metadata: "metadata",
    weight: "weight",
    draining: "draining",
};

impl<'de> Visitor<'de> for &Names {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key_seed(KnownName(self))? {
            let read = match name {
                None => map.next_value().map(|IgnoredAny| ()),
                _ if name == self.op => map.next_value().map(|op| fields.op = op),
                Some(name) if name == self.address => {
                    map.next_value().map(|address| fields.address = address)
                }
                Some(name) if name == self.metadata => {
                    map.next_value().map(|metadata| fields.metadata = metadata)
                }
                Some(name) if name == self.weight => {
                    map.next_value().map(|weight| fields.weight = weight)
                }
                Some(_) => map.next_value().map(|draining| fields.draining = draining),
            };
            read.map_err(|error| match name {
                Some(name) => A::Error::custom(format!("its {name}: {error}")),
                None => error,
            })?;
        }
        Ok(fields)
    }
}

/// The name of the next field, if it is one of those.
struct KnownName<'a>(&'a Names);

impl<'de> DeserializeSeed<'de> for KnownName<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownName<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let Names {
            op,
            address,
            metadata,
            weight,
            draining,
        } = *self.0;
        let known = [
            Some(address),
            Some(metadata),
            Some(weight),
            Some(draining),
            op,
        ];
        Ok(known.into_iter().flatten().find(|known| *known == name))
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(layout: Layout) -> Place {
        Place::new(layout, None, "api").unwrap()
    }

    fn decoded(layout: Layout, value: &str) -> Instance {
        place(layout).decode(&value.into()).unwrap().unwrap()
    }

    #[test]
    fn what_a_layout_writes_it_reads() {
        let plain = Instance::new("h:1");
        let full = plain.clone().meta("zone", "b").weight(0).draining(true);
        for layout in [Layout::Grpc, Layout::Quorate] {
            for instance in [&plain, &full] {
                let written = place(layout).encode(instance).unwrap();
                assert_eq!(place(layout).decode(&written), Ok(Some(instance.clone())));
            }
        }
        assert_eq!(place(Layout::Raw).encode(&plain).unwrap(), "h:1");
        assert_eq!(decoded(Layout::Raw, "h:1"), plain);
        let error = place(Layout::Raw).encode(&full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_go_writes_is_read_and_what_it_reads_is_written() {
        let go = r#"{"Op":0,"Addr":"10.0.0.7:8080","Metadata":null}"#;
        let instance = Instance::new("10.0.0.7:8080");
        assert_eq!(decoded(Layout::Grpc, go), instance);
        let written = place(Layout::Grpc).encode(&instance).unwrap();
        let written: Json = serde_json::from_slice(&written).unwrap();
        assert_eq!(written, serde_json::from_str::<Json>(go).unwrap());
        let any = r#"{"Op":0,"Addr":"h:1","Metadata":"grün","Attributes":{"x":1}}"#;
        assert_eq!(decoded(Layout::Grpc, any).metadata_text(), r#""grün""#);
        let deleted = r#"{"Op":1,"Addr":"h:1","Metadata":null}"#;
        assert_eq!(place(Layout::Grpc).decode(&deleted.into()), Ok(None));
    }

    #[test]
    fn missing_and_unknown_fields_are_no_harm() {
        let sparse = decoded(Layout::Quorate, r#"{"address":"h:1","colour":"red"}"#);
        assert_eq!(sparse, Instance::new("h:1"));
        let nulls = r#"{"address":"h:1","metadata":null,"weight":null,"draining":null}"#;
        assert_eq!(decoded(Layout::Quorate, nulls), Instance::new("h:1"));
    }

    #[test]
    fn metadata_are_the_same_in_any_order_and_keep_their_numbers() {
        let one = r#"{"address":"h:1","metadata":{"a":0.5,"b":[18446744073709551615,{}]}}"#;
        let other =
            r#"{"metadata": {"b": [18446744073709551615, {}], "a": 0.5}, "address": "h:1"}"#;
        assert_eq!(
            decoded(Layout::Quorate, one),
            decoded(Layout::Quorate, other)
        );
        let text = decoded(Layout::Quorate, other);
        assert_eq!(
            text.metadata_text(),
            r#"{"a":0.5,"b":[18446744073709551615,{}]}"#
        );
    }

    #[test]
    fn what_is_no_instance_says_why() {
        for (value, why) in [
            ("", "EOF while parsing"),
            ("h:1", "expected value"),
            ("[]", "invalid type: sequence, expected a JSON object"),
            ("{}", "it has no address"),
            (r#"{"address":""}"#, "it has no address"),
            (r#"{"address":7}"#, "its address: invalid type: integer"),
            (r#"{"address":"h:1","metadata":[]}"#, "its metadata are no"),
            (
                r#"{"address":"h:1","weight":-1}"#,
                "its weight: invalid value: integer",
            ),
            (
                r#"{"address":"h:1","weight":4294967296}"#,
                "its weight: invalid value: integer",
            ),
            (
                r#"{"address":"h:1","draining":1}"#,
                "its draining: invalid type: integer `1`, expected a boolean at line 1 column 29",
            ),
            (r#"{"address":"h:1"} 7"#, "trailing characters"),
            (
                &r#"{"metadata":"#.repeat(100_000),
                "its metadata: recursion limit",
            ),
        ] {
            let error = place(Layout::Quorate).decode(&value.into()).unwrap_err();
            assert!(error.starts_with(why), "{value}: {error}");
        }
        let bytes = Value::from(b"\xff".as_slice());
        assert!(place(Layout::Quorate).decode(&bytes).is_err());
        assert!(place(Layout::Raw).decode(&bytes).is_err());
    }

    #[test]
    fn each_layout_has_its_keys() {
        let key = |layout, root| Place::new(layout, root, "api").unwrap().key("a").unwrap();
        assert_eq!(key(Layout::Quorate, None), "services/api/a");
        assert_eq!(key(Layout::Quorate, Some("x")), "x/api/a");
        assert_eq!(key(Layout::Quorate, Some("")), "api/a");
        assert_eq!(key(Layout::Raw, None), "api/a");
        assert_eq!(key(Layout::Grpc, Some("x/")), "x/api/a");
        let deep = Place::new(Layout::Grpc, None, "foo/bar").unwrap();
        assert_eq!(deep.key("h:1").unwrap(), "foo/bar/h:1");

        let key = Key::from("services/api/a/b");
        assert_eq!(place(Layout::Quorate).role(&key), KeyRole::Other);
        let key = Key::from("api/a/b");
        assert_eq!(place(Layout::Raw).role(&key), KeyRole::Instance("a/b"));
        let key = Key::from(b"api/\xff".as_slice());
        assert_eq!(place(Layout::Raw).role(&key), KeyRole::Malformed);
    }

    #[test]
    fn names_and_ids_that_cannot_be_are_refused() {
        for name in ["", "a/b"] {
            let error = Place::new(Layout::Quorate, None, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let error = place(Layout::Raw).key(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let error = place(Layout::Raw).encode(&Instance::new("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

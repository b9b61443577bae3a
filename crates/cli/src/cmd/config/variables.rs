//! Keys as environment variables.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsString,
    os::unix::ffi::OsStringExt,
};

use quorate::{Key, KeyValue};

/// Environment variables, made of keys.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, OsString>,
    left_out: Vec<String>,
}

/// How keys become names.
#[derive(Debug)]
pub(crate) struct Naming {
    /// What is cut off.
    pub(crate) prefix: Vec<u8>,
    pub(crate) upper: bool,
}

impl Variables {
    /// The variables that keys make, or why they make none: two of them would have one name.
    pub(crate) fn of<'a>(
        kvs: impl IntoIterator<Item = &'a KeyValue>,
        naming: &Naming,
    ) -> Result<Self, String> {
        let mut variables = Self::default();
        let mut keys: BTreeMap<String, &Key> = BTreeMap::new();
        for kv in kvs {
            let Some(name) = naming.name(&kv.key) else {
                let key = &kv.key;
                let message = format!("{key} is left out: it makes no name of a variable");
                variables.left_out.push(message);
                continue;
            };
            match keys.entry(name) {
                Entry::Occupied(entry) => {
                    let (name, other, key) = (entry.key(), entry.get(), &kv.key);
                    return Err(format!(
                        "{other} and {key} would both be the variable {name}"
                    ));
                }
                Entry::Vacant(entry) if kv.value.contains(&0) => {
                    let (name, key) = (entry.key(), &kv.key);
                    let message = format!("{key} is left out: no variable can hold its zero byte");
                    variables.left_out.push(message);
                    variables.values.remove(name);
                    entry.insert(key);
                }
                Entry::Vacant(entry) => {
                    let value = OsString::from_vec(kv.value.to_vec());
                    variables.values.insert(entry.key().clone(), value);
                    entry.insert(&kv.key);
                }
            }
        }
        Ok(variables)
    }

    pub(crate) const fn values(&self) -> &BTreeMap<String, OsString> {
        &self.values
    }

    /// What is to be told of keys that make no variable.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Naming {
    fn name(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.prefix.as_slice())?;
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let of = |&byte: &u8| match byte {
            b'/' | b'-' | b'.' => '_',
            _ if self.upper => char::from(byte.to_ascii_uppercase()),
            _ => char::from(byte),
        };
        let name: String = rest.iter().map(of).collect();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit());
        (is_name && !name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use quorate::Revision;

    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: None,
        }
    }

    fn naming(prefix: &str, upper: bool) -> Naming {
        Naming {
            prefix: prefix.into(),
            upper,
        }
    }

    #[test]
    fn the_rest_of_a_key_is_the_name() {
        let name = |key: &str, upper| naming("cfg/", upper).name(key.as_bytes());
        assert_eq!(
            name("cfg/db/max-conns.soft", true).unwrap(),
            "DB_MAX_CONNS_SOFT"
        );
        assert_eq!(name("cfg/db/Host", false).unwrap(), "db_Host");
        for none in [
            "cfg/",
            "cfg/1",
            "cfg/a=b",
            "cfg/a b",
            "cfg/\u{fc}",
            "cfg/a\0",
        ] {
            assert_eq!(name(none, true), None, "{none}");
        }
        assert_eq!(naming("cfg", true).name(b"cfg/limit").unwrap(), "LIMIT");
    }

    #[test]
    fn two_keys_of_one_name_are_refused_and_odd_ones_left_out() {
        let naming = naming("", true);
        let kvs = [kv("a-b", "1"), kv("a.b", "2")];
        let message = Variables::of(&kvs, &naming).unwrap_err();
        assert_eq!(message, "a-b and a.b would both be the variable A_B");
        let kvs = [kv("7", "1"), kv("a", "0\0"), kv("b", "")];
        let variables = Variables::of(&kvs, &naming).unwrap();
        assert_eq!(variables.left_out().len(), 2);
        assert_eq!(variables.values().keys().collect::<Vec<_>>(), ["B"]);
    }
}

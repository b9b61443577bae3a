//! The functions that templates have beside the usual ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minijinja::{Environment, Error, ErrorKind, Value, value::Kwargs};
use quorate::{Instance, KeyValue, Layout};
use serde_json::Value as Json;

use super::{template::Lookups, view::Dependency};

/// Adds them to an environment. They look keys up in `lookups`; `prefix` is put before the names of keys.
pub(super) fn add(environment: &mut Environment<'_>, lookups: &Arc<Mutex<Lookups>>, prefix: &str) {
    let reader = Reader {
        lookups: Arc::clone(lookups),
        prefix: prefix.to_owned(),
    };
    let keys = reader.clone();
    environment.add_function("keys", move |prefix: String| keys.keys(&prefix));
    let tree = reader.clone();
    environment.add_function("tree", move |prefix: String| tree.tree(&prefix));
    let service = reader.clone();
    environment.add_function("service", move |name: String, options: Kwargs| {
        service.service(&name, &options)
    });
    environment.add_function("key", move |name: String, options: Kwargs| {
        reader.key(&name, &options)
    });
    environment.add_function("env", variable);
    environment.add_function("json", parse);
    environment.add_filter("json", parse);
}

/// Reads keys for a template.
#[derive(Clone)]
struct Reader {
    lookups: Arc<Mutex<Lookups>>,
    prefix: String,
}

impl Reader {
    /// `key(NAME, default=..)`: the value of a key.
    fn key(&self, name: &str, options: &Kwargs) -> Result<Value, Error> {
        let default = default(options)?;
        let name = format!("{}{name}", self.prefix);
        if name.is_empty() {
            let message = "a key has a name";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        let kvs = self.look(Dependency::Key(name.clone()))?;
        match (kvs.first(), default) {
            (Some(kv), _) => value(kv).map(Value::from),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(absent(&format!("there is no key {name}"))),
        }
    }

    /// `keys(PREFIX)`: what begins so, as a list with the `key`, the `name` (the rest of it) and the `value`
    /// of each.
    fn keys(&self, prefix: &str) -> Result<Value, Error> {
        let prefix = format!("{}{prefix}", self.prefix);
        let kvs = self.look(Dependency::Prefix(prefix.clone()))?;
        let entry = |kv: KeyValue| {
            let key = key(&kv)?;
            let name = key.strip_prefix(&prefix).unwrap_or(key);
            Ok(Value::from_pairs([
                ("key", Value::from(key)),
                ("name", Value::from(name)),
                ("value", Value::from(value(&kv)?)),
            ]))
        };
        kvs.into_iter()
            .map(entry)
            .collect::<Result<Vec<_>, _>>()
            .map(Value::from)
    }

    /// `tree(PREFIX)`: what begins so, as maps of maps: the value of PREFIX + `a/b` is `tree(PREFIX).a.b`.
    fn tree(&self, prefix: &str) -> Result<Value, Error> {
        let prefix = format!("{}{prefix}", self.prefix);
        let mut root = BTreeMap::new();
        for kv in self.look(Dependency::Prefix(prefix.clone()))? {
            let key = key(&kv)?;
            let name = key.strip_prefix(&prefix).unwrap_or(key);
            if !plant(&mut root, name, value(&kv)?) {
                let message = format!("{key} is a key, and keys lie under it or it under one");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(grown(root))
    }

    /// `service(NAME, draining=false)`: the instances of a service, as a list with the `id`, the `address`,
    /// the `metadata`, the `weight` of each, and whether it is `draining`.
    fn service(&self, name: &str, options: &Kwargs) -> Result<Value, Error> {
        let draining = options.get::<Option<bool>>("draining")?.unwrap_or(false);
        options.assert_all_used()?;
        if name.is_empty() || name.contains('/') {
            let message = format!("{name:?} is no name of a service");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        let prefix = format!("services/{name}/");
        let kvs = self.look(Dependency::Prefix(prefix.clone()))?;
        let mut instances: Vec<Value> = Vec::new();
        let mut warnings = BTreeSet::new();
        for kv in kvs {
            let Some(id) = kv.key.as_str().and_then(|key| key.strip_prefix(&*prefix)) else {
                warnings.insert(format!("{} is left out: its key is no text", kv.key));
                continue;
            };
            if id.is_empty() || id.contains('/') {
                continue; // something else of somebody's, as for trackers
            }
            match Layout::Quorate.decode(&kv.value) {
                Ok(None) => {}
                Ok(Some(found)) if found.draining && !draining => {}
                Ok(Some(found)) => instances.push(instance(id, &found)),
                Err(why) => {
                    warnings.insert(format!("{} is left out: {why}", kv.key));
                }
            }
        }
        self.lock().warnings.extend(warnings);
        Ok(Value::from(instances))
    }

    /// The keys. If they are not read yet this is an error that ends the rendering: what is asked for later
    /// may depend on them.
    fn look(&self, dependency: Dependency) -> Result<Vec<KeyValue>, Error> {
        let mut lookups = self.lock();
        lookups.used.insert(dependency.clone());
        if let Some(kvs) = lookups.view.get(&dependency) {
            return Ok(kvs.to_vec());
        }
        lookups.missing = Some(dependency);
        let message = "the keys are not read yet";
        Err(Error::new(ErrorKind::InvalidOperation, message))
    }

    fn lock(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What templates see of an instance.
fn instance(id: &str, instance: &Instance) -> Value {
    let metadata = serde_json::from_str(instance.metadata_text()).unwrap_or_default();
    Value::from_pairs([
        ("id", Value::from(id)),
        ("address", Value::from(&*instance.address)),
        ("metadata", from_json(metadata)),
        ("weight", Value::from(instance.weight)),
        ("draining", Value::from(instance.draining)),
    ])
}

/// A node of what [`Reader::tree`] returns.
enum Node {
    Branch(BTreeMap<String, Self>),
    Leaf(String),
}

/// Puts a value where its name says; false if something else is in the way.
fn plant(mut at: &mut BTreeMap<String, Node>, name: &str, value: String) -> bool {
    let (branches, leaf) = name
        .rsplit_once('/')
        .map_or((None, name), |(dir, leaf)| (Some(dir), leaf));
    for branch in branches.into_iter().flat_map(|dir| dir.split('/')) {
        let node = at.entry(branch.to_owned());
        match node.or_insert_with(|| Node::Branch(BTreeMap::new())) {
            Node::Branch(next) => at = next,
            Node::Leaf(_) => return false,
        }
    }
    at.insert(leaf.to_owned(), Node::Leaf(value)).is_none()
}

fn grown(nodes: BTreeMap<String, Node>) -> Value {
    let value = |node| match node {
        Node::Branch(nodes) => grown(nodes),
        Node::Leaf(value) => Value::from(value),
    };
    Value::from_pairs(nodes.into_iter().map(|(name, node)| (name, value(node))))
}

/// `env(NAME, default=..)`: a variable of quorate's environment.
fn variable(name: String, options: Kwargs) -> Result<Value, Error> {
    match (env::var(&name), default(&options)?) {
        (Ok(value), _) => Ok(Value::from(value)),
        (Err(env::VarError::NotPresent), Some(default)) => Ok(default),
        (Err(error), _) => Err(absent(&format!("{name}: {error}"))),
    }
}

/// `json(TEXT)`, `TEXT|json`: what the text holds.
fn parse(text: String) -> Result<Value, Error> {
    serde_json::from_str(&text).map(from_json).map_err(|error| {
        let message = format!("it is no JSON: {error}");
        Error::new(ErrorKind::InvalidOperation, message)
    })
}

fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(values) => values.into_iter().map(from_json).collect(),
        Json::Object(fields) => {
            let field = |(name, value)| (name, from_json(value));
            Value::from_pairs(fields.into_iter().map(field))
        }
    }
}

/// The argument `default`, the only one with a name.
fn default(options: &Kwargs) -> Result<Option<Value>, Error> {
    let default = match options.has("default") {
        true => Some(options.get("default")?),
        false => None,
    };
    options.assert_all_used()?;
    Ok(default)
}

fn absent(what: &str) -> Error {
    let message = format!("{what}; if it may be missing write default=... after its name");
    Error::new(ErrorKind::UndefinedError, message)
}

fn key(kv: &KeyValue) -> Result<&str, Error> {
    let no_text = || format!("the key {} is no text", kv.key);
    kv.key
        .as_str()
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, no_text()))
}

fn value(kv: &KeyValue) -> Result<String, Error> {
    let no_text = || format!("the value of {} is no text", kv.key);
    let text = kv.value.as_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, no_text()))
}

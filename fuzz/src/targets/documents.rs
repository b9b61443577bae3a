//! Configuration documents in every format, fields by key, the cache file, and what else is read from
//! values that others wrote.

use std::{collections::BTreeMap, fs, time::Duration};

use quorate::{
    Client, Config, ErrorKind, Format, Holder, Instance, Key, KeyRange, Layout, Value, WhenDown,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{hostile::clients::call, paused};

/// What separates the keys and values of one input.
const SEPARATOR: u8 = b'\n';

const FORMATS: [Format; 4] = [Format::Json, Format::Text, Format::Toml, Format::Yaml];

/// Everything that a type can ask of a format.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Everything {
    flag: bool,
    small: u8,
    signed: i64,
    large: u64,
    ratio: f64,
    letter: Option<char>,
    text: String,
    list: Vec<Self>,
    pair: Option<(i8, String)>,
    map: BTreeMap<String, u32>,
    numbered: BTreeMap<i32, bool>,
    one_of: Option<Choice>,
    any: Option<Box<Untagged>>,
    unit: (),
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
enum Choice {
    Unit,
    New(u16),
    Tuple(u8, u8),
    Struct { inner: Option<Box<Everything>> },
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
enum Untagged {
    Number(f32),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
}

/// Runs one input: how it is used, and the text.
pub(crate) fn feed(input: &[u8]) {
    let [how, text @ ..] = input else {
        return;
    };
    let text = text.to_vec();
    match how % 8 {
        0..=3 => {
            let format = FORMATS[usize::from(how % 4)];
            paused(documents(format, text));
        }
        4 | 5 => paused(fields(text)),
        6 => paused(cached(text)),
        _ => paused(values(text)),
    }
}

async fn memory() -> Client {
    Client::connect("mem:").await.expect("a store in memory")
}

async fn documents(format: Format, text: Vec<u8>) {
    let client = memory().await;
    let checked = format.check(&text);
    call("put", client.put("doc", text)).await.expect("a put");
    // What has no type is read where it is a document at all.
    if !matches!(format, Format::Text) {
        let read = typed::<serde::de::IgnoredAny, _>(&client.config("doc").format(format)).await;
        assert_eq!(read.is_ok(), checked.is_ok(), "{read:?} {checked:?}");
    }
    let _ = typed::<serde_json::Value, _>(&client.config("doc").format(format)).await;
    let _ = typed::<String, _>(&client.config("doc").format(format)).await;
    let _ = typed::<Choice, _>(&client.config("doc").format(format)).await;
    let config = client.config::<Everything>("doc").format(format);
    if let Ok(value) = typed(&config).await
        && !matches!(format, Format::Text)
    {
        // What was read can be written, or that is refused, and is the same then.
        if call("set", config.set(&value)).await.is_ok() {
            let again = typed(&config).await.expect("what was just written");
            let same = format!("{value:?}") == format!("{again:?}");
            assert!(same, "{value:?} {again:?}");
        }
    }
}

async fn fields(text: Vec<u8>) {
    let client = memory().await;
    let mut parts = text.split(|byte| *byte == SEPARATOR);
    while let Some(name) = parts.next() {
        let value = parts.next().unwrap_or_default().to_vec();
        let key = [b"cfg/", name].concat();
        call("put", client.put(key, value)).await.expect("a put");
    }
    let _ = typed::<Everything, _>(&client.config_prefix("cfg")).await;
    let _ = typed::<serde_json::Value, _>(&client.config_prefix("cfg")).await;
    let _ = typed::<Untagged, _>(&client.config_prefix("")).await;
    let _ = typed::<BTreeMap<String, String>, _>(&client.config_prefix("cfg/")).await;
}

/// Reads a configuration, which works or tells that the document is to blame.
async fn typed<T, L: 'static>(config: &Config<T, L>) -> quorate::Result<T>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    let read = call("get", config.get()).await;
    if let Err(error) = &read {
        let kinds = [ErrorKind::InvalidData, ErrorKind::NotFound];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
    read
}

/// A cache file that somebody else wrote, when there is nothing better.
async fn cached(text: Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cache");
    fs::write(&path, text).expect("a file");
    let client = memory().await;
    call("put", client.put("doc.json", "none"))
        .await
        .expect("a put");
    let config = client
        .config::<Everything>("doc.json")
        .cache(&path, WhenDown::UseCache);
    if let Ok(mut watch) = call("watch", config.watch()).await {
        let _ = (watch.current(), watch.is_stale(), watch.rejected());
        call("put", client.put("doc.json", "{}"))
            .await
            .expect("a put");
        let _ = call("update", watch.next()).await;
    }
}

/// What others wrote where locks, instances and services are.
async fn values(text: Vec<u8>) {
    let value = Value::from(text.clone());
    let _ = Holder::from_value(&value);
    for layout in [Layout::Quorate, Layout::Grpc, Layout::Raw] {
        if let Ok(Some(instance)) = layout.decode(&value) {
            look_at(&instance);
        }
    }
    let client = memory().await;
    let mut parts = text.split(|byte| *byte == SEPARATOR);
    while let Some(name) = parts.next() {
        let value = parts.next().unwrap_or_default().to_vec();
        for root in ["services/", "services/api/", "lock/"] {
            let key = Key::from([root.as_bytes(), name].concat());
            call("put", client.put(key, value.clone()))
                .await
                .expect("a put");
        }
    }
    let _ = call("services", client.services()).await.expect("any keys");
    let service = client.service("api");
    let instances = call("instances", service.instances())
        .await
        .expect("any keys");
    for (_, instance) in instances.iter() {
        look_at(instance);
    }
    let mut tracker = call("track", service.track()).await.expect("any keys");
    call("delete", client.delete(KeyRange::prefix("services/")))
        .await
        .expect("a deletion");
    while let Ok(Ok(_)) = timeout(Duration::from_secs(1), tracker.next()).await {}
    assert!(tracker.snapshot().is_empty());
    let _ = call("contenders", client.lock("lock").contenders())
        .await
        .expect("any keys");
    // Whoever stands there first holds until the key is gone.
    call("delete", client.delete(KeyRange::prefix("lock/")))
        .await
        .expect("a deletion");
    let guard = call("lock", client.lock("lock").acquire())
        .await
        .expect("a free lock");
    call("release", guard.release()).await.expect("a release");
}

fn look_at(instance: &Instance) {
    let _ = (instance.metadata("zone"), instance.metadata_text());
    let _ = instance.metadata_as::<Everything>();
    let _ = format!("{instance:?}");
}

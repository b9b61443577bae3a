//! The file that holds the last good configuration, for a start without the store.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Config, Place};
use crate::{Error, ErrorKind, Key, KeyValue, Present, Result, Revision, runtime::blocking};

/// The layout of the file.
const VERSION: u32 = 1;

/// More than any store of configuration holds: what is larger is no cache.
const LARGEST: u64 = 64 << 20;

/// A file that holds one configuration.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    path: PathBuf,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Contents {
    cache: Body,
    /// Tells a file that was damaged from one that was not.
    checksum: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    origin: Origin,
    revision: i64,
    documents: Vec<Stored>,
}

/// What the documents are.
#[derive(Serialize, Deserialize, PartialEq)]
struct Origin {
    namespace: Raw,
    key: Raw,
    is_prefix: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    key: Raw,
    revision: i64,
    value: Raw,
}

/// Bytes, as text where they are that.
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(untagged)]
enum Raw {
    Text(String),
    Bytes(Vec<u8>),
}

impl Cache {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` if there is none.
    pub(super) async fn load<T, L>(
        self,
        config: &Config<T, L>,
    ) -> Result<Option<(Revision, Present)>> {
        let origin = Origin::of(config);
        blocking(move || {
            let text = match read(&self.path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(unusable(format!("cannot be read: {error}"))),
            };
            Body::open(&text, &origin).map(Some)
        })
        .await
    }

    /// Replaces the file as a whole.
    pub(super) async fn store<T, L>(
        self,
        config: &Config<T, L>,
        revision: Revision,
        present: &Present,
    ) -> Result<()> {
        let stored = |kv: &KeyValue| Stored {
            key: Raw::of(&kv.key),
            revision: kv.mod_revision.0,
            value: Raw::of(&kv.value),
        };
        let body = Body {
            version: VERSION,
            origin: Origin::of(config),
            revision: revision.0,
            documents: present.values().map(stored).collect(),
        };
        let name = temporary(&self.path, config.client.link().runtime().random());
        blocking(move || {
            let text = body.seal()?;
            let written = write(&name, &text).and_then(|()| fs::rename(&name, &self.path));
            written.map_err(|error| {
                // It may never have been made.
                let _ = fs::remove_file(&name);
                unusable(format!("cannot be written: {error}"))
            })
        })
        .await
    }
}

impl Body {
    fn seal(self) -> Result<String> {
        let checksum = self.checksum()?;
        let contents = Contents {
            cache: self,
            checksum,
        };
        serde_json::to_string_pretty(&contents).map_err(internal)
    }

    /// Reads what [`Body::seal`] made for the same origin.
    fn open(text: &str, origin: &Origin) -> Result<(Revision, Present)> {
        let damaged = |why: &str| unusable(format!("is damaged: {why}"));
        let Contents { cache, checksum } =
            serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))?;
        if cache.version != VERSION {
            let version = cache.version;
            return Err(unusable(format!("is of version {version}, not {VERSION}")));
        }
        if cache.checksum()? != checksum {
            return Err(damaged("its checksum is another"));
        }
        if cache.origin != *origin {
            return Err(unusable(format!(
                "is of {}, not of {}",
                cache.origin.describe(),
                origin.describe()
            )));
        }
        let kv = |stored: Stored| KeyValue {
            key: stored.key.into_bytes().into(),
            value: stored.value.into_bytes().into(),
            create_revision: Revision(stored.revision),
            mod_revision: Revision(stored.revision),
            version: 1,
            lease: None,
        };
        let kvs = cache.documents.into_iter().map(kv);
        let present = kvs.map(|kv| (kv.key.clone(), kv)).collect();
        Ok((Revision(cache.revision), present))
    }

    /// FNV-1a: it is to notice accidents, not forgery.
    fn checksum(&self) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(internal)?;
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Ok(format!("{hash:016x}"))
    }
}

impl Origin {
    fn of<T, L>(config: &Config<T, L>) -> Self {
        Self {
            namespace: Raw::of(&config.client.link().namespace),
            key: Raw::of(&config.name),
            is_prefix: matches!(config.place, Place::Prefix),
        }
    }

    fn describe(&self) -> String {
        let what = if self.is_prefix { "prefix" } else { "key" };
        let text = |raw: &Raw| match raw {
            Raw::Text(text) => text.clone(),
            Raw::Bytes(bytes) => Key::from(bytes.clone()).to_string(),
        };
        format!(
            "{what} {} in namespace {:?}",
            text(&self.key),
            text(&self.namespace)
        )
    }
}

impl Raw {
    fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_owned()),
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe would be waited for without end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a file that only its owner may read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    // Else the name could be there before the contents after a crash of the machine.
    file.sync_all()
}

/// A name beside the file that nobody else uses.
fn temporary(path: &Path, random: u64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{random:016x}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn unusable(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

fn internal(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "the cache cannot be expressed").because(error)
}

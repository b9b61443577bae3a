//! Shared configuration: typed values in the store that programs take over without a restart.

use std::{
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;

use self::{cache::Cache, follow::begin};
pub use self::{
    format::Format,
    watch::{ConfigWatch, Rejected, Rejection, Update},
};
use crate::{Client, Key, KeyRange, Present, Result, Revision};

mod cache;
mod fields;
mod follow;
mod format;
mod watch;
mod write;

/// A typed configuration in the store: a document in one key, or the keys of a prefix as the fields of
/// a struct. See [`Client::config`] and [`Client::config_prefix`].
///
/// It is inert: [`Config::get`] reads it once, [`Config::watch`] follows it. Either decodes it and asks
/// the [validator](Config::validate) before anybody sees it.
///
/// The layout `L` says where it is: [`Document`] or [`Fields`].
pub struct Config<T, L = Document> {
    client: Client,
    /// The key, or the prefix of the keys.
    name: Key,
    place: Place,
    /// That of the document, if it is one.
    format: Format,
    validator: Option<Validator<T>>,
    default: Option<Arc<dyn Fn() -> T + Send + Sync>>,
    debounce: Duration,
    cache: Option<Cache>,
    when_down: WhenDown,
    layout: PhantomData<fn() -> L>,
}

/// The layout of a [`Config`] that is a document in one key.
#[derive(Clone, Copy, Debug)]
pub enum Document {}

/// The layout of a [`Config`] whose fields are keys below a prefix.
#[derive(Clone, Copy, Debug)]
pub enum Fields {}

/// What [`Config::watch`] does if the store does not answer within the call timeout of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// It fails.
    #[default]
    Fail,
    /// It waits for the store.
    Wait,
    /// It begins with what the [cache](Config::cache) holds, which is
    /// [stale](ConfigWatch::is_stale) until the store has told the present state. The cache is also
    /// used if the store has a document that is refused; not if it has none.
    UseCache,
}

type Validator<T> = Arc<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

/// Where a configuration is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Key,
    Prefix,
}

/// Why a state of the store is no value.
#[derive(Debug)]
struct Refusal {
    /// The key that is to blame, if that is another than that of the configuration.
    key: Option<Key>,
    reason: Rejection,
}

impl Client {
    /// A configuration that is a document in one key, in the [`Format`] that the key's extension tells.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Update};
    ///
    /// #[derive(serde::Deserialize, serde::Serialize)]
    /// struct Limits {
    ///     rps: u32,
    /// }
    ///
    /// let client = Client::connect("mem:").await?;
    /// client.put("cfg/limits.toml", "rps = 100").await?;
    ///
    /// let limits = client
    ///     .config::<Limits>("cfg/limits.toml")
    ///     .validate(|limits| if limits.rps > 0 { Ok(()) } else { Err("rps must not be 0") });
    /// let mut watch = limits.watch().await?;
    /// assert_eq!(watch.current().rps, 100);
    ///
    /// limits.update(|limits| limits.rps += 1).await?;
    /// let Update::Changed(now) = watch.next().await? else { unreachable!() };
    /// assert_eq!(now.rps, 101);
    ///
    /// client.put("cfg/limits.toml", "rps = 0").await?;
    /// let Update::Rejected(rejected) = watch.next().await? else { unreachable!() };
    /// assert!(rejected.to_string().ends_with("rps must not be 0"));
    /// assert_eq!(watch.current().rps, 101); // the last good value stays
    /// # Ok(())
    /// # }
    /// ```
    pub fn config<T>(&self, key: impl Into<Key>) -> Config<T> {
        let key = key.into();
        let format = Format::of(&key);
        Config::new(self, key, Place::Key).format(format)
    }

    /// A configuration whose fields are the keys below a prefix, all as they stood at one revision:
    /// `cfg/api/rps` is the field `rps` of `cfg/api/`, and `cfg/api/log/level` is the field `level` of
    /// the field `log`. A `/` is put at the end of the prefix if it has none.
    ///
    /// A value is JSON if it can be read as that, and else text. Where the type wants a string it gets
    /// the text itself, so `10` is as good for a string as for a number. Only where serde hides from us
    /// what the type wants (`#[serde(flatten)]`, untagged enums) is it always a number.
    ///
    /// It is refused if one key is a value and has keys below it. Keys that end in `/` and are empty,
    /// which some tools put for directories, are passed over.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// #[derive(serde::Deserialize)]
    /// struct Api {
    ///     rps: u32,
    ///     log: Log,
    /// }
    /// #[derive(serde::Deserialize)]
    /// struct Log {
    ///     level: String,
    /// }
    ///
    /// client.put("cfg/api/rps", "100").await?;
    /// client.put("cfg/api/log/level", "info").await?;
    /// let api = client.config_prefix::<Api>("cfg/api/").get().await?;
    /// assert_eq!((api.rps, api.log.level.as_str()), (100, "info"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn config_prefix<T>(&self, prefix: impl Into<Key>) -> Config<T, Fields> {
        let mut prefix = prefix.into();
        if !prefix.is_empty() && !prefix.ends_with(b"/") {
            prefix = [&*prefix, b"/"].concat().into();
        }
        Config::new(self, prefix, Place::Prefix)
    }
}

impl<T, L> Config<T, L> {
    fn new(client: &Client, name: Key, place: Place) -> Self {
        Self {
            client: client.clone(),
            name,
            place,
            format: Format::Json,
            validator: None,
            default: None,
            debounce: Duration::ZERO,
            cache: None,
            when_down: WhenDown::Fail,
            layout: PhantomData,
        }
    }

    /// Refuses values for which `check` returns an error: they are neither taken over nor written.
    pub fn validate<E: fmt::Display>(
        mut self,
        check: impl Fn(&T) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Arc::new(move |value| {
            check(value).map_err(|error| error.to_string())
        }));
        self
    }

    /// The value where the key does not exist, or no key below the prefix; without one that is
    /// [`NotFound`](crate::ErrorKind::NotFound). A watch that has seen a value keeps it when the key is
    /// deleted, and tells that.
    pub fn default_value(mut self, value: T) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        self.default = Some(Arc::new(move || value.clone()));
        self
    }

    /// Lets a watch take a change over only after the store was quiet for so long, so that a burst of
    /// changes is one. What never becomes quiet is taken over after five times as long.
    pub fn debounce(mut self, quiet: Duration) -> Self {
        self.debounce = quiet;
        self
    }

    /// Lets a watch keep the last good value in a file, and says when a watch begins with that.
    ///
    /// The file holds the raw documents: only its owner may read it. It is replaced as a whole after each
    /// value taken over; if that fails a warning is logged. What is read from it is checked as what the
    /// store tells, and a file that is damaged or of another key or namespace is refused.
    pub fn cache(mut self, path: impl Into<PathBuf>, when_down: WhenDown) -> Self {
        self.cache = Some(Cache::new(path.into()));
        self.when_down = when_down;
        self
    }

    /// What a watch does if the store does not answer at its start: [`WhenDown::Fail`] if nothing is
    /// said.
    pub fn when_down(mut self, when_down: WhenDown) -> Self {
        self.when_down = when_down;
        self
    }
}

impl<T, L> Config<T, L>
where
    T: DeserializeOwned + Send + Sync + 'static,
    L: 'static,
{
    /// Reads the present value.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none and no [default](Config::default_value);
    /// [`InvalidData`](crate::ErrorKind::InvalidData) if what is there cannot be decoded or the validator
    /// refuses it; otherwise as [`Client::get`].
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed.
    pub async fn get(&self) -> Result<T> {
        let pages = self.client.pages(self.keys());
        let pages: Vec<_> = pages.try_collect().await?;
        let read_at = pages
            .first()
            .map_or(Revision::ZERO, |page| page.header.revision);
        let kvs = pages.into_iter().flat_map(|page| page.kvs);
        let present = kvs.map(|kv| (kv.key.clone(), kv)).collect();
        match self.decode(&present) {
            Ok(value) => Ok(value),
            Err(refusal) => self.default_or(refusal.reject(self, self.revision(&present, read_at))),
        }
    }

    /// Follows the configuration. When this returns the first good value is there.
    ///
    /// Call it where tokio runs.
    ///
    /// # Errors
    ///
    /// As [`Config::get`]. If the store does not answer it is as [`WhenDown`] says:
    /// [`Timeout`](crate::ErrorKind::Timeout) if there is no cache to begin with, and
    /// [`InvalidData`](crate::ErrorKind::InvalidData) if it cannot be used.
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the cache should be used and no file was named.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is left running.
    pub async fn watch(&self) -> Result<ConfigWatch<T>> {
        begin(self.clone()).await
    }

    fn keys(&self) -> KeyRange {
        match self.place {
            Place::Key => KeyRange::key(&self.name),
            Place::Prefix => KeyRange::prefix(&self.name),
        }
    }

    /// The revision by which a state that was read at `read_at` is known.
    fn revision(&self, present: &Present, read_at: Revision) -> Revision {
        match (self.place, present.values().next()) {
            (Place::Key, Some(kv)) => kv.mod_revision,
            _ => read_at,
        }
    }

    /// Decodes and validates a state of the store.
    fn decode(&self, present: &Present) -> Result<T, Refusal> {
        let Some(first) = present.values().next() else {
            return Err(Rejection::Deleted.into());
        };
        match self.place {
            Place::Key => Ok(self.decode_document(&first.value)?),
            Place::Prefix => self.judge(|| fields::decode(&self.name, present)),
        }
    }

    fn decode_document(&self, document: &[u8]) -> Result<T, Rejection> {
        self.judge(|| {
            let value = self.format.decode(document);
            value.map_err(Rejection::Undecodable)
        })
    }

    /// Validates what is decoded. What the type or the validator panic at is refused as well.
    fn judge<R: From<Rejection>>(&self, decode: impl FnOnce() -> Result<T, R>) -> Result<T, R> {
        let judge = || {
            let value = decode()?;
            if let Some(check) = &self.validator {
                check(&value).map_err(Rejection::Invalid)?;
            }
            Ok(value)
        };
        catch_unwind(AssertUnwindSafe(judge))
            .unwrap_or_else(|_| Err(Rejection::Invalid("the check of it panicked".into()).into()))
    }

    fn default_or(&self, rejected: Rejected) -> Result<T> {
        match (&rejected.reason, &self.default) {
            (Rejection::Deleted, Some(default)) => Ok(default()),
            _ => Err(rejected.into_error()),
        }
    }
}

impl<T> Config<T> {
    /// Takes the document for one of this format, whatever its key ends in.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }
}

impl<T, L> Clone for Config<T, L> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            name: self.name.clone(),
            validator: self.validator.clone(),
            default: self.default.clone(),
            cache: self.cache.clone(),
            ..*self
        }
    }
}

impl<T, L> fmt::Debug for Config<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Refusal {
    fn reject<T, L>(self, config: &Config<T, L>, revision: Revision) -> Rejected {
        Rejected {
            key: self.key.unwrap_or_else(|| config.name.clone()),
            revision,
            reason: self.reason,
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Self { key: None, reason }
    }
}

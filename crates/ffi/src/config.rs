//! Shared configuration.

use std::{ffi::c_char, mem::MaybeUninit};

use futures_util::stream;
use quorate::{Config, ConfigWatch, Error, Format, Rejected, Rejection, Update, WhenDown};
use serde_json::Value as Json;

use crate::{
    bytes::{optional_millis, quorate_bytes, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    events::Events,
    guard::{give_buffer, quorate_buffer},
    handle::{self, Kind},
    output::{self, Arena, give, optional, required, set},
    wait::Limit,
};

/// The format of a document: by the extension of its key, and JSON without one.
pub const QUORATE_FORMAT_OF_KEY: i32 = 0;
/// The format of a document: JSON.
pub const QUORATE_FORMAT_JSON: i32 = 1;
/// The format of a document: TOML.
pub const QUORATE_FORMAT_TOML: i32 = 2;
/// The format of a document: YAML.
pub const QUORATE_FORMAT_YAML: i32 = 3;
/// The format of a document: text as it is, a string in JSON.
pub const QUORATE_FORMAT_TEXT: i32 = 4;

/// What quorate_config_open does if the store does not answer: it fails.
pub const QUORATE_DOWN_FAIL: i32 = 0;
/// What quorate_config_open does if the store does not answer: it waits.
pub const QUORATE_DOWN_WAIT: i32 = 1;
/// What quorate_config_open does if the store does not answer: it begins with what the cache holds.
pub const QUORATE_DOWN_USE_CACHE: i32 = 2;

/// What happened to a configuration: another document was taken over.
pub const QUORATE_CONFIG_CHANGED: i32 = 0;
/// What happened to a configuration: what is there now was refused, and the last good one stays.
pub const QUORATE_CONFIG_REJECTED: i32 = 1;

/// Where a configuration is, and how it is followed. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_config_options {
    /// The configuration is all keys below `key` and a slash, as the fields of one JSON object.
    pub prefix: bool,
    /// QUORATE_FORMAT_OF_KEY and so on; not with prefix.
    pub format: i32,
    /// A JSON document for when there is none in the store; empty for none.
    pub default_document: quorate_bytes,
    /// Takes a change over only after the store was quiet for so long; 0 takes it at once.
    pub debounce_ms: i64,
    /// A file that keeps the last good document; empty for none.
    pub cache: quorate_bytes,
    /// QUORATE_DOWN_FAIL and so on.
    pub when_down: i32,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// A configuration that is followed: the last good document, at any time and without waiting.
pub struct quorate_config {
    watch: ConfigWatch<Json>,
    events: Events<Update<Json>>,
}

impl Kind for quorate_config {
    const NAME: &'static str = "quorate_config";
}

/// What was refused.
#[repr(C)]
pub struct quorate_rejected {
    /// Its key; below a prefix the key that is to blame if it is one.
    pub key: quorate_bytes,
    /// The revision of its write.
    pub revision: i64,
    /// Whether it was deleted; else it cannot be decoded.
    pub deleted: bool,
    /// What is wrong.
    pub reason: *const c_char,
}

/// A document, in JSON whatever its format. Free it by quorate_document_free.
#[repr(C)]
pub struct quorate_document {
    /// The document.
    pub json: quorate_bytes,
    /// The revision of its write; 0 for the default.
    pub revision: i64,
    /// Whether the store may know better, as while there is no connection.
    pub stale: bool,
    /// What is there now, if that was refused; else NULL.
    pub rejected: *const quorate_rejected,
}

/// What happened to a configuration. Free it by quorate_config_update_free.
#[repr(C)]
pub struct quorate_config_update {
    /// QUORATE_CONFIG_CHANGED or QUORATE_CONFIG_REJECTED.
    pub kind: i32,
    /// With QUORATE_CONFIG_CHANGED: the document in JSON.
    pub json: quorate_bytes,
    /// With QUORATE_CONFIG_REJECTED: what was refused; else NULL.
    pub rejected: *const quorate_rejected,
}

/// Reads a configuration once, as JSON; free that by quorate_buffer_free. QUORATE_NOT_FOUND if there is
/// none and no default; QUORATE_INVALID_DATA if it cannot be decoded.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_get(
    client: *const quorate_client,
    key: quorate_bytes,
    options: Option<&quorate_config_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    json: Option<&mut MaybeUninit<*mut quorate_buffer>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(json, "json")?;
        let used = handle::used(client)?;
        let limit = Limit::new(timeout_ms, cancel)?;
        let json = match config(&used, key, options)? {
            Place::Document(config) => limit.run(&used.freed, config.get())?,
            Place::Fields(config) => limit.run(&used.freed, config.get())?,
        };
        *out = give_buffer(json.to_string().as_bytes());
        Ok(())
    })
}

/// Writes a document in its format, after it was checked to be one; QUORATE_INVALID_ARGUMENT if it is
/// none. `format` is QUORATE_FORMAT_OF_KEY and so on.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_set(
    client: *const quorate_client,
    key: quorate_bytes,
    document: quorate_bytes,
    format: i32,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    revision: Option<&mut MaybeUninit<i64>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = optional(revision);
        let (key, document) = (key.key("key")?, document.value("document")?);
        self::format(format)?
            .unwrap_or_else(|| Format::of(&key))
            .check(&document)?;
        let used = handle::used(client)?;
        let call = used.client.put(key, document);
        set(
            out,
            Limit::of_write(timeout_ms, cancel)?
                .run(&used.freed, call)?
                .0,
        );
        Ok(())
    })
}

/// Follows a configuration. When it returns the first good document is there.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_open(
    client: *const quorate_client,
    key: quorate_bytes,
    options: Option<&quorate_config_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    config: Option<&mut MaybeUninit<*mut quorate_config>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(config, "config")?;
        let used = handle::used(client)?;
        let limit = Limit::new(timeout_ms, cancel)?;
        let watch = match self::config(&used, key, options)? {
            Place::Document(config) => limit.run(&used.freed, config.watch())?,
            Place::Fields(config) => limit.run(&used.freed, config.watch())?,
        };
        *out = handle::open(quorate_config {
            events: Events::new(updates(watch.clone()))?,
            watch,
        });
        Ok(())
    })
}

/// The last good document, without waiting.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_current(
    config: *const quorate_config,
    document: Option<&mut MaybeUninit<*mut quorate_document>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(document, "document")?;
        let used = handle::used(config)?;
        let watch = &used.watch;
        let (revision, json) = loop {
            let revision = watch.revision();
            let value = watch.current();
            // It may have changed between.
            if watch.revision() == revision {
                break (revision, value.to_string());
            }
        };
        *out = give(|arena| quorate_document {
            json: arena.bytes(json.as_bytes()),
            revision: revision.0,
            stale: watch.is_stale(),
            rejected: lay_optional(watch.rejected().as_deref(), arena),
        });
        Ok(())
    })
}

/// Waits until another document was taken over or refused. States in between may be skipped, the last
/// one never is.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_next(
    config: *mut quorate_config,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    update: Option<&mut MaybeUninit<*mut quorate_config_update>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(update, "update")?;
        let used = handle::used(config)?;
        let update = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_update(&update)?;
        Ok(())
    })
}

/// A descriptor that is readable while quorate_config_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_fd(
    config: *const quorate_config,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(config)?.events.fd()?;
        Ok(())
    })
}

/// Follows the configuration no more; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_free(config: *mut quorate_config) {
    infallible((), || {
        handle::free(config);
        Ok(())
    });
}

/// Frees a document; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_document_free(document: *mut quorate_document) {
    infallible((), || {
        output::take_back(document);
        Ok(())
    });
}

/// Frees an update; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_config_update_free(update: *mut quorate_config_update) {
    infallible((), || {
        output::take_back(update);
        Ok(())
    });
}

enum Place {
    Document(Config<Json>),
    Fields(Config<Json, quorate::Fields>),
}

/// A configuration with its options.
fn config(
    client: &quorate_client,
    key: quorate_bytes,
    options: Option<&quorate_config_options>,
) -> Result<Place, Failure> {
    let key = key.key("key")?;
    let Some(options) = options else {
        return Ok(Place::Document(client.client.config(key)));
    };
    unreserved(&options.reserved)?;
    let format = format(options.format)?;
    if options.prefix {
        if format.is_some() {
            return Err(Failure::invalid("keys below a prefix have no format"));
        }
        let config = client.client.config_prefix(key);
        return Ok(Place::Fields(with(config, options)?));
    }
    let mut config = client.client.config(key);
    if let Some(format) = format {
        config = config.format(format);
    }
    Ok(Place::Document(with(config, options)?))
}

fn with<L>(
    mut config: Config<Json, L>,
    options: &quorate_config_options,
) -> Result<Config<Json, L>, Failure> {
    if let Some(document) = options.default_document.optional_text("default document")? {
        let value = serde_json::from_str(document).map_err(|error| {
            Failure::invalid(format!("the default document is no JSON: {error}"))
        })?;
        config = config.default_value(value);
    }
    if let Some(quiet) = optional_millis(options.debounce_ms, "debounce")? {
        config = config.debounce(quiet);
    }
    let when_down = match options.when_down {
        QUORATE_DOWN_FAIL => WhenDown::Fail,
        QUORATE_DOWN_WAIT => WhenDown::Wait,
        QUORATE_DOWN_USE_CACHE => WhenDown::UseCache,
        when_down => return Err(Failure::invalid(format!("{when_down} is no when_down"))),
    };
    Ok(match options.cache.optional_text("cache")? {
        Some(path) => config.cache(path, when_down),
        None => config.when_down(when_down),
    })
}

fn format(format: i32) -> Result<Option<Format>, Failure> {
    match format {
        QUORATE_FORMAT_OF_KEY => Ok(None),
        QUORATE_FORMAT_JSON => Ok(Some(Format::Json)),
        QUORATE_FORMAT_TOML => Ok(Some(Format::Toml)),
        QUORATE_FORMAT_YAML => Ok(Some(Format::Yaml)),
        QUORATE_FORMAT_TEXT => Ok(Some(Format::Text)),
        format => Err(Failure::invalid(format!("{format} is no format"))),
    }
}

fn updates(
    watch: ConfigWatch<Json>,
) -> impl futures_util::Stream<Item = Result<Update<Json>, Error>> + Send {
    stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(update) => Some((Ok(update), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn give_update(update: &Update<Json>) -> Result<*mut quorate_config_update, Failure> {
    let (kind, json, rejected) = match update {
        Update::Changed(value) => (QUORATE_CONFIG_CHANGED, value.to_string(), None),
        Update::Rejected(rejected) => (QUORATE_CONFIG_REJECTED, String::new(), Some(&**rejected)),
        _ => return Err(Failure::invalid("the library does not know what happened")),
    };
    Ok(give(|arena| quorate_config_update {
        kind,
        json: arena.bytes(json.as_bytes()),
        rejected: lay_optional(rejected, arena),
    }))
}

fn lay_optional(rejected: Option<&Rejected>, arena: &mut Arena) -> *const quorate_rejected {
    let Some(rejected) = rejected else {
        return std::ptr::null();
    };
    let laid = quorate_rejected {
        key: arena.bytes(&rejected.key),
        revision: rejected.revision.0,
        deleted: rejected.reason == Rejection::Deleted,
        reason: arena.text(&rejected.reason.to_string()),
    };
    arena.one(laid)
}

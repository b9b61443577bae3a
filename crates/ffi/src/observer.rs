//! Observers: the state of some keys, then every change.

use std::mem::MaybeUninit;

use quorate::{Client, Event, KeyValue, Observed, Observer, Revision};

use crate::{
    bytes::{quorate_keys, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    events::Events,
    handle::{self, Kind},
    kv::{lay_kv, lay_kvs, quorate_kv, quorate_kvs},
    output::{self, Arena, give, required},
    wait::Limit,
};

/// Where an observer begins: with the state of the keys.
pub const QUORATE_START_STATE: i32 = 0;
/// Where an observer begins: with the next change.
pub const QUORATE_START_NOW: i32 = 1;
/// Where an observer begins: with the oldest change that is kept.
pub const QUORATE_START_OLDEST: i32 = 2;
/// Where an observer begins: with the changes of `revision`.
pub const QUORATE_START_REVISION: i32 = 3;

/// What an observer tells: the keys as they stand. Any but the first means that changes were lost for
/// good: start over from it.
pub const QUORATE_RESET: i32 = 0;
/// What an observer tells: the changes of one revision.
pub const QUORATE_CHANGES: i32 = 1;

/// How to observe. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_observe_options {
    /// QUORATE_START_STATE and so on.
    pub start: i32,
    /// With QUORATE_START_REVISION: the first revision whose changes are told.
    pub revision: i64,
    /// Tells with each change what was there before.
    pub prev: bool,
    /// Tells of changes only the puts. Not together with deletes_only.
    pub puts_only: bool,
    /// Tells of changes only the deletions.
    pub deletes_only: bool,
    /// Ends after the deletion of the key, which has to be one.
    pub until_deleted: bool,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// Observes keys: every change exactly once, in order, those of one revision together.
pub struct quorate_observer {
    events: Events<Observed>,
}

impl Kind for quorate_observer {
    const NAME: &'static str = "quorate_observer";
}

/// One change of one key.
#[repr(C)]
pub struct quorate_event {
    /// Whether the key was deleted; else it was written.
    pub deleted: bool,
    /// The key as it now stands; of a deletion its name, and the revision of the deletion as mod_revision.
    pub kv: quorate_kv,
    /// The key as it stood before; NULL if there was none, or it was not asked for.
    pub prev: *const quorate_kv,
}

/// What an observer tells. Free it by quorate_observed_free.
#[repr(C)]
pub struct quorate_observed {
    /// QUORATE_RESET or QUORATE_CHANGES.
    pub kind: i32,
    /// The revision of the state, or that made the changes.
    pub revision: i64,
    /// With QUORATE_RESET: the keys.
    pub state: quorate_kvs,
    /// With QUORATE_CHANGES: the changes.
    pub events: *const quorate_event,
    /// How many.
    pub len: usize,
}

/// Observes keys. When it returns every change from then on will be told; it waits for a store that
/// cannot be reached. It goes on across disconnects, for ever.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_observe(
    client: *const quorate_client,
    keys: quorate_keys,
    options: Option<&quorate_observe_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    observer: Option<&mut MaybeUninit<*mut quorate_observer>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(observer, "observer")?;
        let used = handle::used(client)?;
        let mut observer = self::observer(&used.client, &keys, options)?;
        Limit::new(timeout_ms, cancel)?.run(&used.freed, observer.opened())?;
        let events = Events::new(observer)?;
        *out = handle::open(quorate_observer { events });
        Ok(())
    })
}

/// Waits for the state or the next changes. QUORATE_END after the deletion that was to be waited for.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_observer_next(
    observer: *mut quorate_observer,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    observed: Option<&mut MaybeUninit<*mut quorate_observed>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(observed, "observed")?;
        let used = handle::used(observer)?;
        let observed = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_observed(&observed);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_observer_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_observer_fd(
    observer: *const quorate_observer,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(observer)?.events.fd()?;
        Ok(())
    })
}

/// Frees an observer; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_observer_free(observer: *mut quorate_observer) {
    infallible((), || {
        handle::free(observer);
        Ok(())
    });
}

/// Frees what was observed; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_observed_free(observed: *mut quorate_observed) {
    infallible((), || {
        output::take_back(observed);
        Ok(())
    });
}

fn observer(
    client: &Client,
    keys: &quorate_keys,
    options: Option<&quorate_observe_options>,
) -> Result<Observer, Failure> {
    let mut observer = client.observe(keys.range()?);
    let Some(options) = options else {
        return Ok(observer);
    };
    unreserved(&options.reserved)?;
    observer = match options.start {
        QUORATE_START_STATE => observer,
        QUORATE_START_NOW => observer.from_now(),
        QUORATE_START_OLDEST => observer.from_oldest(),
        QUORATE_START_REVISION if options.revision > 0 => observer.from(Revision(options.revision)),
        QUORATE_START_REVISION => return Err(Failure::invalid("the revision is not above 0")),
        start => return Err(Failure::invalid(format!("{start} is no start"))),
    };
    if options.puts_only && options.deletes_only {
        return Err(Failure::invalid(
            "only the puts and only the deletions is nothing",
        ));
    }
    if options.prev {
        observer = observer.prev_kv();
    }
    if options.puts_only {
        observer = observer.puts_only();
    }
    if options.deletes_only {
        observer = observer.deletes_only();
    }
    if options.until_deleted {
        observer = observer.until_deleted();
    }
    Ok(observer)
}

fn give_observed(observed: &Observed) -> *mut quorate_observed {
    give(|arena| match observed {
        Observed::Reset(snapshot) => {
            let count = i64::try_from(snapshot.kvs.len()).unwrap_or(i64::MAX);
            quorate_observed {
                kind: QUORATE_RESET,
                revision: snapshot.revision.0,
                state: lay_kvs(&snapshot.kvs, snapshot.revision, count, arena),
                events: std::ptr::null(),
                len: 0,
            }
        }
        Observed::Changes(changes) => {
            let (events, len) = arena.collect(changes.events(), lay_event);
            quorate_observed {
                kind: QUORATE_CHANGES,
                revision: changes.revision().0,
                state: lay_kvs(&[], changes.revision(), 0, arena),
                events,
                len,
            }
        }
    })
}

fn lay_event(event: &Event, arena: &mut Arena) -> quorate_event {
    let lay_prev = |prev: &Option<KeyValue>, arena: &mut Arena| {
        let prev = prev.as_ref().map(|prev| lay_kv(prev, arena));
        prev.map_or(std::ptr::null(), |prev| arena.one(prev))
    };
    match event {
        Event::Put { kv, prev } => quorate_event {
            deleted: false,
            kv: lay_kv(kv, arena),
            prev: lay_prev(prev, arena),
        },
        Event::Delete {
            key,
            revision,
            prev,
        } => quorate_event {
            deleted: true,
            kv: quorate_kv {
                key: arena.bytes(key),
                value: arena.bytes(b""),
                create_revision: 0,
                mod_revision: revision.0,
                version: 0,
                lease: 0,
            },
            prev: lay_prev(prev, arena),
        },
    }
}

//! Keys and values.

use std::{mem::MaybeUninit, ptr};

use futures_util::TryStreamExt;
use quorate::{Delete, KeyValue, LeaseId, Order, Put, Range, RangeResult, Revision, SortBy, Swap};

use crate::{
    bytes::{quorate_bytes, quorate_keys, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    handle,
    output::{self, Arena, give, optional, required, set},
    wait::Limit,
};

/// A key as it stood at some revision. Free it by quorate_kv_free, unless it is part of something else.
#[repr(C)]
pub struct quorate_kv {
    /// The key.
    pub key: quorate_bytes,
    /// Its value.
    pub value: quorate_bytes,
    /// The revision that made the key.
    pub create_revision: i64,
    /// The revision of the last write to it.
    pub mod_revision: i64,
    /// How often it was written since it was made: 1 after the first put.
    pub version: i64,
    /// The lease that it lives by; 0 for none.
    pub lease: i64,
}

/// Keys as they stood at one revision. Free it by quorate_kvs_free, unless it is part of something else.
#[repr(C)]
pub struct quorate_kvs {
    /// The keys; NULL if there are none.
    pub kvs: *const quorate_kv,
    /// How many are here.
    pub len: usize,
    /// The revision of the store that they show.
    pub revision: i64,
    /// How many keys there are, whatever the limit.
    pub count: i64,
    /// Whether the limit left keys out.
    pub more: bool,
}

/// What a range is sorted by: its keys.
pub const QUORATE_BY_KEY: i32 = 0;
/// What a range is sorted by: the revision that made each.
pub const QUORATE_BY_CREATE: i32 = 1;
/// What a range is sorted by: the revision of the last write to each.
pub const QUORATE_BY_MOD: i32 = 2;
/// What a range is sorted by: the number of writes to each.
pub const QUORATE_BY_VERSION: i32 = 3;
/// What a range is sorted by: its values.
pub const QUORATE_BY_VALUE: i32 = 4;

/// How keys are read. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_range_options {
    /// The revision to read at; 0 is the latest.
    pub revision: i64,
    /// At most so many keys; 0 is no limit.
    pub limit: i64,
    /// Leaves out keys last written before this revision; 0 is no bound.
    pub min_mod_revision: i64,
    /// Leaves out keys last written after this revision; 0 is no bound.
    pub max_mod_revision: i64,
    /// Leaves out keys made before this revision; 0 is no bound.
    pub min_create_revision: i64,
    /// Leaves out keys made after this revision; 0 is no bound.
    pub max_create_revision: i64,
    /// QUORATE_BY_KEY and so on.
    pub sort_by: i32,
    /// The largest first.
    pub descending: bool,
    /// Leaves the values out.
    pub keys_only: bool,
    /// Leaves the keys out, and tells how many there are.
    pub count_only: bool,
    /// Lets a member answer by itself, which may lag.
    pub serializable: bool,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// How a key is written. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_put_options {
    /// The lease that the key shall live by; 0 for none.
    pub lease: i64,
    /// Keeps the value that is there, and writes the lease alone; the key must exist.
    pub ignore_value: bool,
    /// Keeps the lease that is there, and writes the value alone; the key must exist.
    pub ignore_lease: bool,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// Reads a key at a revision, 0 for the latest. `*kv` is NULL if it does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_get(
    client: *const quorate_client,
    key: quorate_bytes,
    revision: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    kv: Option<&mut MaybeUninit<*mut quorate_kv>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(kv, "kv")?;
        let key = key.key("key")?;
        let used = handle::used(client)?;
        let read = used.client.get_at(key, Revision(revision));
        let found = Limit::new(timeout_ms, cancel)?.run(&used.freed, read)?;
        *out = give_kv(found.as_ref());
        Ok(())
    })
}

/// Reads keys in one answer.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_range(
    client: *const quorate_client,
    keys: quorate_keys,
    options: Option<&quorate_range_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    kvs: Option<&mut MaybeUninit<*mut quorate_kvs>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(kvs, "kvs")?;
        let range = range(&keys, options)?;
        let used = handle::used(client)?;
        let read = used.client.range(range);
        let found = Limit::new(timeout_ms, cancel)?.run(&used.freed, read)?;
        *out = give(|arena| lay_range(&found, arena));
        Ok(())
    })
}

/// Reads every key that begins with `prefix`, all at one revision, page by page: for what may be large.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_list(
    client: *const quorate_client,
    prefix: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    kvs: Option<&mut MaybeUninit<*mut quorate_kvs>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(kvs, "kvs")?;
        let prefix = prefix.slice("prefix")?;
        let used = handle::used(client)?;
        let pages = used.client.pages(Range::prefix(prefix));
        let all = pages.try_fold(RangeResult::default(), |mut all, page| async move {
            all.header = page.header;
            all.kvs.extend(page.kvs);
            Ok(all)
        });
        let mut all = Limit::new(timeout_ms, cancel)?.run(&used.freed, all)?;
        all.count = i64::try_from(all.kvs.len()).unwrap_or(i64::MAX);
        *out = give(|arena| lay_range(&all, arena));
        Ok(())
    })
}

/// Writes a key. `*revision` is that of the write, and `*prev` the key as it stood before, NULL if there
/// was none; it is asked for only if `prev` is not NULL.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_put(
    client: *const quorate_client,
    key: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_put_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    revision: Option<&mut MaybeUninit<i64>>,
    prev: Option<&mut MaybeUninit<*mut quorate_kv>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (revision, prev) = (optional(revision), optional(prev));
        let mut put = put(key, value, options)?;
        put.prev_kv = prev.is_some();
        let used = handle::used(client)?;
        let written = used.client.put_with(put);
        let done = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, written)?;
        set(revision, done.revision.0);
        set(prev, give_kv(done.prev.as_ref()));
        Ok(())
    })
}

/// Deletes keys; none is no error. `*deleted` is how many there were, `*revision` that of the store after
/// it, and `*prevs` the keys as they stood before; these are asked for only if `prevs` is not NULL.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_delete(
    client: *const quorate_client,
    keys: quorate_keys,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    deleted: Option<&mut MaybeUninit<i64>>,
    revision: Option<&mut MaybeUninit<i64>>,
    prevs: Option<&mut MaybeUninit<*mut quorate_kvs>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (deleted, revision) = (optional(deleted), optional(revision));
        let prevs = optional(prevs);
        let mut delete = Delete::new(keys.range()?);
        delete.prev_kv = prevs.is_some();
        let used = handle::used(client)?;
        let call = used.client.delete_with(delete);
        let done = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        let count = i64::try_from(done.deleted).unwrap_or(i64::MAX);
        set(deleted, count);
        set(revision, done.revision.0);
        if let Some(prevs) = prevs {
            *prevs = give(|arena| lay_kvs(&done.prevs, done.revision, count, arena));
        }
        Ok(())
    })
}

/// Writes a key only if it does not exist. `*done` tells whether it was written; if so `*revision` is that
/// of the write, and if not `*present` is what is there.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_put_if_absent(
    client: *const quorate_client,
    key: quorate_bytes,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    done: Option<&mut MaybeUninit<bool>>,
    revision: Option<&mut MaybeUninit<i64>>,
    present: Option<&mut MaybeUninit<*mut quorate_kv>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    quorate_put_if_revision(
        client, key, 0, value, timeout_ms, cancel, done, revision, present, error,
    )
}

/// Writes a key only if it was last written at the revision `expected`: if nobody wrote it since it was
/// read. 0 expects that it does not exist. `*done` tells whether it was written; if so `*revision` is that
/// of the write, and if not `*present` is what is there, NULL if it does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_put_if_revision(
    client: *const quorate_client,
    key: quorate_bytes,
    expected: i64,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    done: Option<&mut MaybeUninit<bool>>,
    revision: Option<&mut MaybeUninit<i64>>,
    present: Option<&mut MaybeUninit<*mut quorate_kv>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (revision, present) = (optional(revision), optional(present));
        let done = required(done, "done")?;
        let (key, value) = (key.key("key")?, value.value("value")?);
        let used = handle::used(client)?;
        let call = used.client.put_if_revision(key, Revision(expected), value);
        let swap = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        set_swap(&swap, done, revision, present);
        Ok(())
    })
}

/// Writes a key only if its value is `expected`, which a key that does not exist has not. The outputs
/// are those of quorate_put_if_revision.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_put_if_value(
    client: *const quorate_client,
    key: quorate_bytes,
    expected: quorate_bytes,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    done: Option<&mut MaybeUninit<bool>>,
    revision: Option<&mut MaybeUninit<i64>>,
    present: Option<&mut MaybeUninit<*mut quorate_kv>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (revision, present) = (optional(revision), optional(present));
        let done = required(done, "done")?;
        let (key, value) = (key.key("key")?, value.value("value")?);
        let expected = expected.value("expected value")?;
        let used = handle::used(client)?;
        let call = used.client.test_and_set(key, Some(expected), value);
        let swap = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        set_swap(&swap, done, revision, present);
        Ok(())
    })
}

/// Frees a key; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_kv_free(kv: *mut quorate_kv) {
    infallible((), || {
        output::take_back(kv);
        Ok(())
    });
}

/// Frees keys; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_kvs_free(kvs: *mut quorate_kvs) {
    infallible((), || {
        output::take_back(kvs);
        Ok(())
    });
}

/// What is to be read.
pub(crate) fn range(
    keys: &quorate_keys,
    options: Option<&quorate_range_options>,
) -> Result<Range, Failure> {
    let mut range = Range::new(keys.range()?);
    let Some(options) = options else {
        return Ok(range);
    };
    unreserved(&options.reserved)?;
    let by = match options.sort_by {
        QUORATE_BY_KEY => SortBy::Key,
        QUORATE_BY_CREATE => SortBy::CreateRevision,
        QUORATE_BY_MOD => SortBy::ModRevision,
        QUORATE_BY_VERSION => SortBy::Version,
        QUORATE_BY_VALUE => SortBy::Value,
        by => return Err(Failure::invalid(format!("{by} is no order of keys"))),
    };
    if options.descending {
        range.order = Some((by, Order::Descending));
    } else if by != SortBy::Key {
        range.order = Some((by, Order::Ascending));
    }
    if options.limit < 0 {
        return Err(Failure::invalid("the limit is negative"));
    }
    range.limit = options.limit;
    range.revision = Revision(options.revision);
    range.min_mod_revision = Revision(options.min_mod_revision);
    range.max_mod_revision = Revision(options.max_mod_revision);
    range.min_create_revision = Revision(options.min_create_revision);
    range.max_create_revision = Revision(options.max_create_revision);
    range.keys_only = options.keys_only;
    range.count_only = options.count_only;
    range.serializable = options.serializable;
    Ok(range)
}

/// What is to be written.
pub(crate) fn put(
    key: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_put_options>,
) -> Result<Put, Failure> {
    let mut put = Put::new(key.key("key")?, value.value("value")?);
    let Some(options) = options else {
        return Ok(put);
    };
    unreserved(&options.reserved)?;
    put.lease = LeaseId::from_wire(options.lease);
    if options.ignore_value {
        put = put.ignore_value();
    }
    if options.ignore_lease {
        if options.lease != 0 {
            return Err(Failure::invalid("a lease is given, and is to be ignored"));
        }
        put = put.ignore_lease();
    }
    Ok(put)
}

/// A key for C.
pub(crate) fn lay_kv(kv: &KeyValue, arena: &mut Arena) -> quorate_kv {
    quorate_kv {
        key: arena.bytes(&kv.key),
        value: arena.bytes(&kv.value),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        lease: LeaseId::to_wire(kv.lease),
    }
}

/// Keys for C.
pub(crate) fn lay_kvs(
    kvs: &[KeyValue],
    revision: Revision,
    count: i64,
    arena: &mut Arena,
) -> quorate_kvs {
    let (kvs, len) = arena.collect(kvs, lay_kv);
    quorate_kvs {
        kvs,
        len,
        revision: revision.0,
        count,
        more: false,
    }
}

/// An answer for C.
pub(crate) fn lay_range(range: &RangeResult, arena: &mut Arena) -> quorate_kvs {
    quorate_kvs {
        more: range.more,
        ..lay_kvs(&range.kvs, range.header.revision, range.count, arena)
    }
}

fn give_kv(kv: Option<&KeyValue>) -> *mut quorate_kv {
    kv.map_or(ptr::null_mut(), |kv| give(|arena| lay_kv(kv, arena)))
}

fn set_swap(
    swap: &Swap,
    done: &mut bool,
    revision: Option<&mut i64>,
    present: Option<&mut *mut quorate_kv>,
) {
    match swap {
        Swap::Done(at) => {
            *done = true;
            set(revision, at.0);
        }
        Swap::Refused(kv) => {
            if let Some(present) = present {
                *present = give_kv(kv.as_ref());
            }
        }
    }
}

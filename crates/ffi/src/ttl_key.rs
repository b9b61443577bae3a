//! Keys that vanish by themselves, whoever lives.

use std::mem::MaybeUninit;

use quorate::TtlKey;

use crate::{
    bytes::{millis, quorate_bytes, to_millis},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{guarded, infallible, quorate_code, quorate_error},
    handle::{self, Kind},
    output::{optional, set},
    wait::Limit,
};

/// A key under a lease of its own that nobody keeps alive: it vanishes when its time is over, unless it
/// is refreshed before. To free it changes nothing: the key is left to its time.
pub struct quorate_ttl_key {
    key: TtlKey,
}

impl Kind for quorate_ttl_key {
    const NAME: &'static str = "quorate_ttl_key";
}

/// Writes a key that vanishes after `ttl_ms`, rounded up to whole seconds. `ttl_key` may be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_put(
    client: *const quorate_client,
    key: quorate_bytes,
    value: quorate_bytes,
    ttl_ms: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    ttl_key: Option<&mut MaybeUninit<*mut quorate_ttl_key>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = optional(ttl_key);
        let (key, value) = (key.key("key")?, value.value("value")?);
        let ttl = millis(ttl_ms, "time to live")?;
        let used = handle::used(client)?;
        let call = used.client.put_with_ttl(key, value, ttl);
        let key = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        if let Some(out) = out {
            *out = handle::open(quorate_ttl_key { key });
        }
        Ok(())
    })
}

/// The lease by which the key lives, and nothing else does; 0 for no key.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_lease(ttl_key: *const quorate_ttl_key) -> i64 {
    infallible(0, || Ok(handle::used(ttl_key)?.key.lease().0))
}

/// Begins the key's time anew; `*remaining_ms` is how long that is. QUORATE_NOT_FOUND once it is over.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_refresh(
    ttl_key: *const quorate_ttl_key,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    remaining_ms: Option<&mut MaybeUninit<i64>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = optional(remaining_ms);
        let used = handle::used(ttl_key)?;
        let call = used.key.refresh();
        let remaining = Limit::new(timeout_ms, cancel)?.run(&used.freed, call)?;
        set(out, to_millis(remaining));
        Ok(())
    })
}

/// Writes another value, for what is left of the key's time. QUORATE_NOT_FOUND once it is over.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_set(
    ttl_key: *const quorate_ttl_key,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let value = value.value("value")?;
        let used = handle::used(ttl_key)?;
        let call = used.key.set(value);
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        Ok(())
    })
}

/// Ends the key's time now. That it is over is no error.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_delete(
    ttl_key: *const quorate_ttl_key,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(ttl_key)?;
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, used.key.delete())
    })
}

/// Frees it; NULL is accepted. The key is left to its time.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ttl_key_free(ttl_key: *mut quorate_ttl_key) {
    infallible((), || {
        handle::free(ttl_key);
        Ok(())
    });
}

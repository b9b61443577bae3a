//! Leases by hand; what is held by a recipe lives by a session instead.

use std::{mem::MaybeUninit, time::Duration};

use quorate::LeaseId;

use crate::{
    bytes::{millis, quorate_bytes, to_millis},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    handle,
    output::{self, give, optional, required, set},
    wait::Limit,
};

/// What is left of a lease. Free it by quorate_lease_status_free.
#[repr(C)]
pub struct quorate_lease_status {
    /// Whether there is such a lease.
    pub alive: bool,
    /// The time to live that was granted, in milliseconds.
    pub granted_ms: i64,
    /// The time that is left, in whole seconds, in milliseconds.
    pub remaining_ms: i64,
    /// The keys that live by it.
    pub keys: *const quorate_bytes,
    /// How many.
    pub len: usize,
}

/// Grants a lease that lives for `ttl_ms`, rounded up to whole seconds. Nobody renews it: a lease that is
/// kept alive is a quorate_session. `*granted_ms` is its time to live, which the server may have raised.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lease_grant(
    client: *const quorate_client,
    ttl_ms: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    lease: Option<&mut MaybeUninit<i64>>,
    granted_ms: Option<&mut MaybeUninit<i64>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (granted_ms, lease) = (optional(granted_ms), required(lease, "lease")?);
        let ttl = millis(ttl_ms, "time to live")?;
        let used = handle::used(client)?;
        let call = used.client.grant_lease(ttl);
        let granted = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        *lease = granted.id.0;
        set(granted_ms, to_millis(granted.ttl));
        Ok(())
    })
}

/// Ends a lease, and deletes the keys that live by it. QUORATE_NOT_FOUND if there is no such lease.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lease_revoke(
    client: *const quorate_client,
    lease: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let lease = id(lease)?;
        let used = handle::used(client)?;
        let call = used.client.revoke_lease(lease);
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        Ok(())
    })
}

/// Tells what is left of a lease. That there is none is no error.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lease_look(
    client: *const quorate_client,
    lease: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    status: Option<&mut MaybeUninit<*mut quorate_lease_status>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(status, "status")?;
        let lease = id(lease)?;
        let used = handle::used(client)?;
        let call = used.client.lease_status(lease);
        let status = Limit::new(timeout_ms, cancel)?.run(&used.freed, call)?;
        *out = give(|arena| {
            let (keys, len) = arena.collect(&status.keys, |key, arena| arena.bytes(key));
            quorate_lease_status {
                alive: status.remaining.is_some(),
                granted_ms: to_millis(status.granted),
                remaining_ms: to_millis(status.remaining.unwrap_or(Duration::ZERO)),
                keys,
                len,
            }
        });
        Ok(())
    })
}

/// Frees what was told of a lease; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lease_status_free(status: *mut quorate_lease_status) {
    infallible((), || {
        output::take_back(status);
        Ok(())
    });
}

fn id(lease: i64) -> Result<LeaseId, Failure> {
    LeaseId::from_wire(lease).ok_or_else(|| Failure::invalid("0 is no lease"))
}

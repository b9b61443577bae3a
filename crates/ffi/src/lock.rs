//! Locks.

use std::mem::MaybeUninit;

use quorate::{Client, Contender, Key, LeaseId, Lock, Revision};

use crate::{
    bytes::{optional_millis, quorate_bytes, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, QUORATE_NOT_HELD, guarded, infallible, quorate_code, quorate_error},
    guard::{Hold, quorate_guard},
    handle,
    output::{self, Arena, give, optional, required, set},
    session::quorate_session,
    wait::Limit,
};

/// How a lock is held. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_lock_options {
    /// Holds under a session of its own with this time to live, rounded up to whole seconds; 0 for the
    /// session that the client's recipes share.
    pub ttl_ms: i64,
    /// Holds under this session; NULL for none. Not together with ttl_ms.
    pub session: *const quorate_session,
    /// Releases by itself after this time; 0 for never.
    pub max_hold_ms: i64,
    /// The name of who holds, for people to read; empty for the client's.
    pub holder: quorate_bytes,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// Somebody who stands in the queue of a lock or an election.
#[repr(C)]
pub struct quorate_contender {
    /// Its key.
    pub key: quorate_bytes,
    /// What it says of itself: of a lock JSON that tells who it is, of an election its value.
    pub value: quorate_bytes,
    /// Its fencing token: the revision that made its key.
    pub token: i64,
    /// The lease that its key lives by; 0 for none.
    pub lease: i64,
}

/// Who stands in a queue, who holds or leads first. Free it by quorate_contenders_free.
#[repr(C)]
pub struct quorate_contenders {
    /// They; NULL if there is nobody.
    pub contenders: *const quorate_contender,
    /// How many.
    pub len: usize,
}

/// Acquires the lock of a name, waiting for its turn: whoever comes first holds first, across processes,
/// machines and languages. It is not re-entrant. `options` may be NULL.
///
/// At the time-out, when cancelled, or when its session is lost, it leaves the queue.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lock_acquire(
    client: *const quorate_client,
    name: quorate_bytes,
    options: Option<&quorate_lock_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    guard: Option<&mut MaybeUninit<*mut quorate_guard>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(guard, "guard")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let lock = lock(&used.client, name, options)?;
        let guard = Limit::new(timeout_ms, cancel)?.run(&used.freed, lock.acquire())?;
        *out = quorate_guard::open(Hold::Lock(guard));
        Ok(())
    })
}

/// Acquires the lock if nobody holds it or waits for it, else returns QUORATE_NOT_HELD at once.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lock_try_acquire(
    client: *const quorate_client,
    name: quorate_bytes,
    options: Option<&quorate_lock_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    guard: Option<&mut MaybeUninit<*mut quorate_guard>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(guard, "guard")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let lock = lock(&used.client, name, options)?;
        let guard = Limit::new(timeout_ms, cancel)?.run(&used.freed, lock.try_acquire())?;
        let Some(guard) = guard else {
            let message = "somebody else holds the lock, or waits for it";
            return Err(Failure::new(QUORATE_NOT_HELD, message));
        };
        *out = quorate_guard::open(Hold::Lock(guard));
        Ok(())
    })
}

/// Tells who holds the lock and who waits for it.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lock_contenders(
    client: *const quorate_client,
    name: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    contenders: Option<&mut MaybeUninit<*mut quorate_contenders>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(contenders, "contenders")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let lock = used.client.lock(name);
        let found = Limit::new(timeout_ms, cancel)?.run(&used.freed, lock.contenders())?;
        *out = give_contenders(&found);
        Ok(())
    })
}

/// Breaks the hold that has this token: deletes its key. The next in the queue acquires at once, while the
/// broken holder goes on until it sees that; in between only fences and tokens exclude. `*broken` tells
/// whether there was such a hold.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_lock_break(
    client: *const quorate_client,
    name: quorate_bytes,
    token: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    broken: Option<&mut MaybeUninit<bool>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let broken = optional(broken);
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let lock = used.client.lock(name);
        let call = lock.break_hold(Revision(token));
        set(
            broken,
            Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?,
        );
        Ok(())
    })
}

/// Frees contenders; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_contenders_free(contenders: *mut quorate_contenders) {
    infallible((), || {
        output::take_back(contenders);
        Ok(())
    });
}

pub(crate) fn give_contenders(contenders: &[Contender]) -> *mut quorate_contenders {
    give(|arena| {
        let (contenders, len) = arena.collect(contenders, lay_contender);
        quorate_contenders { contenders, len }
    })
}

pub(crate) fn lay_contender(contender: &Contender, arena: &mut Arena) -> quorate_contender {
    quorate_contender {
        key: arena.bytes(&contender.key),
        value: arena.bytes(&contender.value),
        token: contender.token.0,
        lease: LeaseId::to_wire(contender.lease),
    }
}

fn lock(
    client: &Client,
    name: Key,
    options: Option<&quorate_lock_options>,
) -> Result<Lock, Failure> {
    let mut lock = client.lock(name);
    let Some(options) = options else {
        return Ok(lock);
    };
    unreserved(&options.reserved)?;
    if let Some(ttl) = optional_millis(options.ttl_ms, "time to live")? {
        lock = lock.ttl(ttl);
    }
    if !options.session.is_null() {
        if options.ttl_ms != 0 {
            return Err(Failure::invalid(
                "a session and a time to live exclude each other",
            ));
        }
        lock = lock.session(&handle::used(options.session)?.session);
    }
    if let Some(max_hold) = optional_millis(options.max_hold_ms, "longest hold")? {
        lock = lock.max_hold(max_hold);
    }
    if let Some(holder) = options.holder.optional_text("holder")? {
        lock = lock.holder(holder);
    }
    Ok(lock)
}

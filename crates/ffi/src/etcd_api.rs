//! The calls of the C library etcd-api, which was made for etcd's version 2, by its names: `etcd-api.h`.
//!
//! Its strings are C's, what it returns is freed by C's `free`, and its outputs are left alone by a call
//! that fails. All else is in the header, which is written by hand.

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_uint, c_ushort, c_void},
    future::Future,
    sync::Mutex,
    time::Duration,
};

use nix::libc;
use quorate::{
    Client, ErrorKind, Revision,
    etcd_api::{self, Change, Changes},
};

use crate::{
    bytes::QUORATE_MAX_LEN,
    cancel::quorate_cancel,
    client::connect,
    error::{Failure, infallible},
    handle::{self, Kind, Used},
    process::lock,
    wait::Limit,
};

/// What came of a call: an enumeration in C.
type EtcdResult = c_int;

const ETCD_OK: EtcdResult = 0;
const ETCD_PROTOCOL_ERROR: EtcdResult = 1;
const ETCD_WTF: EtcdResult = 2;

/// How many prefixes are followed on behalf of a session between its calls.
const FOLLOWED: usize = 64;

/// What an `etcd_session` stands for.
struct Session {
    client: Client,
    /// What was watched last, by its prefix: the next call goes on from there, if it asks for that.
    followed: Mutex<HashMap<Vec<u8>, Changes>>,
}

impl Kind for Session {
    const NAME: &'static str = "etcd_session";
}

/// A row of the list of servers.
#[repr(C)]
pub struct EtcdServer {
    host: *const c_char,
    port: c_ushort,
}

/// Why a call fails.
enum Unable {
    /// A server refused.
    Refused,
    /// Everything else.
    Other,
}

impl From<quorate::Error> for Unable {
    fn from(error: quorate::Error) -> Self {
        match error.kind() {
            ErrorKind::AlreadyExists
            | ErrorKind::Compacted
            | ErrorKind::Conflict
            | ErrorKind::Lost
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::Unauthenticated => Self::Refused,
            _ => Self::Other,
        }
    }
}

impl From<Failure> for Unable {
    fn from(_: Failure) -> Self {
        Self::Other
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_open(servers: *const EtcdServer) -> *mut c_void {
    or_null(|| open(&addresses(servers)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_open_str(servers: *const c_char) -> *mut c_void {
    or_null(|| open(text(servers)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_close(session: *mut c_void) {
    infallible((), || {
        handle::free(session.cast::<Session>());
        Ok(())
    });
}

/// The list of servers was copied, so there is no more to free.
#[unsafe(no_mangle)]
pub extern "C" fn etcd_close_str(session: *mut c_void) {
    etcd_close(session);
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_get(session: *mut c_void, key: *const c_char) -> *mut c_char {
    or_null(|| {
        let (session, key) = (used(session)?, bytes(key)?);
        let value = run(&session, etcd_api::get(&session.client, key))?;
        give(&value)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_set(
    session: *mut c_void,
    key: *const c_char,
    value: *const c_char,
    precond: *const c_char,
    ttl: c_uint,
) -> EtcdResult {
    result(|| {
        let (session, key, value) = (used(session)?, bytes(key)?, bytes(value)?);
        let precond = optional(precond)?;
        let ttl = (ttl > 0).then(|| Duration::from_secs(ttl.into()));
        let client = &session.client;
        run(&session, etcd_api::set(client, key, value, precond, ttl))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_delete(session: *mut c_void, key: *const c_char) -> EtcdResult {
    result(|| {
        let (session, key) = (used(session)?, bytes(key)?);
        run(&session, etcd_api::delete(&session.client, key))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_leader(session: *mut c_void) -> *mut c_char {
    or_null(|| {
        let session = used(session)?;
        give(run(&session, etcd_api::leader(&session.client))?.as_bytes())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_watch(
    session: *mut c_void,
    pfx: *const c_char,
    keyp: *mut *mut c_char,
    valuep: *mut *mut c_char,
    index_in: *const c_int,
    index_out: *mut c_int,
) -> EtcdResult {
    watch(session, pfx, [keyp, valuep], index_in, index_out)
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_watch64(
    session: *mut c_void,
    pfx: *const c_char,
    keyp: *mut *mut c_char,
    valuep: *mut *mut c_char,
    index_in: *const i64,
    index_out: *mut i64,
) -> EtcdResult {
    watch(session, pfx, [keyp, valuep], index_in, index_out)
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_lock(
    session: *mut c_void,
    key: *const c_char,
    ttl: c_uint,
    index_in: *const c_char,
    index_out: *mut *mut c_char,
) -> EtcdResult {
    result(|| {
        let (session, key) = (used(session)?, bytes(key)?);
        let ttl = Duration::from_secs(ttl.into());
        let index = match optional(index_in)? {
            Some(_) => Some(index(index_in)?),
            None => None,
        };
        let token = run(&session, etcd_api::lock(&session.client, key, ttl, index))?;
        if !index_out.is_null() {
            let told = match give(token.to_string().as_bytes()) {
                Ok(told) => told,
                Err(unable) => {
                    // Nobody knows by what to release it.
                    let _ = run(&session, etcd_api::unlock(&session.client, key, token));
                    return Err(unable);
                }
            };
            put(index_out, told);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn etcd_unlock(
    session: *mut c_void,
    key: *const c_char,
    index_in: *const c_char,
) -> EtcdResult {
    result(|| {
        let (session, key) = (used(session)?, bytes(key)?);
        let index = index(index_in)?;
        run(&session, etcd_api::unlock(&session.client, key, index))
    })
}

/// An index as a number of C.
trait Index: Copy + TryFrom<i64> + Into<i64> {}

impl Index for c_int {}

impl Index for i64 {}

/// The pointers to indexes may be the same one: what comes in is read before anything is written.
fn watch<I: Index>(
    session: *mut c_void,
    pfx: *const c_char,
    [keyp, valuep]: [*mut *mut c_char; 2],
    index_in: *const I,
    index_out: *mut I,
) -> EtcdResult {
    result(|| {
        let (session, pfx) = (used(session)?, bytes(pfx)?);
        let from = read(index_in).map(|index| Revision(index.into()));
        let kept = lock(&session.followed).remove(pfx);
        let kept = kept.and_then(|mut kept| kept.go_on_at(from?).then_some(kept));
        let (changes, change) = run(&session, async {
            let mut changes = match kept {
                Some(kept) => kept,
                None => Changes::open(&session.client, pfx, from).await?,
            };
            let change = changes.next().await?;
            Ok((changes, change))
        })?;
        let Change { key, value, index } = change;
        let out = match (I::try_from(index.0), index_out.is_null()) {
            (Ok(out), _) => Some(out),
            (Err(_), true) => None,
            // A later call is told it again, if it asks for the same index.
            (Err(_), false) => return Err(Unable::Refused),
        };
        let key = if keyp.is_null() {
            None
        } else {
            Some(give(&key)?)
        };
        let told = value.filter(|_| !valuep.is_null());
        let value = match told.map(|value| give(&value)).transpose() {
            Ok(value) => value,
            Err(unable) => {
                key.into_iter().for_each(take_back);
                return Err(unable);
            }
        };
        if let Some(key) = key {
            put(keyp, key);
        }
        put(valuep, value.unwrap_or_default());
        if let Some(out) = out {
            put(index_out, out);
        }
        keep(&session, pfx, changes);
        Ok(())
    })
}

/// Keeps what is followed for the next call.
fn keep(session: &Session, pfx: &[u8], changes: Changes) {
    let mut followed = lock(&session.followed);
    if followed.len() >= FOLLOWED {
        // A part of a revision that was not told yet cannot be asked for again.
        followed.retain(|_, changes| changes.is_within());
    }
    followed.insert(pfx.to_vec(), changes);
}

fn open(address: &str) -> Result<*mut c_void, Unable> {
    let session = Session {
        client: connect(address)?,
        followed: Mutex::default(),
    };
    Ok(handle::open(session).cast())
}

/// The addresses in a list that ends with a host that is NULL.
fn addresses(servers: *const EtcdServer) -> Result<String, Unable> {
    let mut addresses = Vec::new();
    let mut next = servers;
    loop {
        // SAFETY: C promises a list up to a host that is NULL, which was not met yet.
        let server = unsafe { next.as_ref() }.ok_or(Unable::Other)?;
        if server.host.is_null() {
            break;
        }
        let host = text(server.host)?;
        // What would be more than a host in an address is none, nor is nothing.
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || ",;/?#@".contains(c)) {
            return Err(Unable::Other);
        }
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        addresses.push(match server.port {
            0 => host,
            port => format!("{host}:{port}"),
        });
        // SAFETY: the list goes on behind a host that is not NULL.
        next = unsafe { next.add(1) };
    }
    Ok(addresses.join(","))
}

/// Runs a call to its end, or that of the session.
fn run<T>(
    session: &Used<Session>,
    call: impl Future<Output = quorate::Result<T>>,
) -> Result<T, Unable> {
    let limit = Limit::new(-1, std::ptr::null::<quorate_cancel>())?;
    let ended = limit.run(&session.freed, async { Ok::<_, Failure>(call.await) })?;
    Ok(ended?)
}

fn used(session: *mut c_void) -> Result<Used<Session>, Unable> {
    Ok(handle::used(session.cast::<Session>().cast_const())?)
}

/// A string of C.
fn bytes<'a>(string: *const c_char) -> Result<&'a [u8], Unable> {
    if string.is_null() {
        return Err(Unable::Other);
    }
    // SAFETY: it is not null, and C promises a string that ends, and that nobody writes to or frees
    // during the call.
    let bytes = unsafe { CStr::from_ptr(string) }.to_bytes();
    if bytes.len() > QUORATE_MAX_LEN {
        return Err(Unable::Other);
    }
    Ok(bytes)
}

/// A string of C that may be missing.
fn optional<'a>(string: *const c_char) -> Result<Option<&'a [u8]>, Unable> {
    if string.is_null() {
        return Ok(None);
    }
    bytes(string).map(Some)
}

fn text<'a>(string: *const c_char) -> Result<&'a str, Unable> {
    std::str::from_utf8(bytes(string)?).map_err(|_| Unable::Other)
}

/// The index of a lock, in decimal digits.
fn index(string: *const c_char) -> Result<Revision, Unable> {
    let index = text(string)?.parse().map_err(|_| Unable::Other)?;
    Ok(Revision(index))
}

/// Bytes with a zero behind them, for C to free.
fn give(bytes: &[u8]) -> Result<*mut c_char, Unable> {
    // SAFETY: any size may be asked for; one byte more than a slice has does not overflow.
    let given = unsafe { libc::malloc(bytes.len() + 1) }.cast::<u8>();
    if given.is_null() {
        return Err(Unable::Other);
    }
    // SAFETY: `given` has room for all of them, and is new.
    unsafe { given.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    // SAFETY: it has room for one more.
    let end = unsafe { given.add(bytes.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(given.cast())
}

fn take_back(given: *mut c_char) {
    // SAFETY: `give` had it from malloc, and nobody else has seen it.
    unsafe { libc::free(given.cast()) };
}

/// What a pointer of C points to, if it is not NULL.
fn read<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: C promises a pointer to a value that was set, or NULL.
    unsafe { from.as_ref() }.copied()
}

/// Sets an output, unless it is NULL.
fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: C promises a pointer to room for a value, or NULL.
        unsafe { out.write(value) };
    }
}

fn or_null<T>(call: impl FnOnce() -> Result<*mut T, Unable>) -> *mut T {
    infallible(std::ptr::null_mut(), || {
        Ok(call().unwrap_or(std::ptr::null_mut()))
    })
}

fn result(call: impl FnOnce() -> Result<(), Unable>) -> EtcdResult {
    infallible(ETCD_WTF, || {
        Ok(match call() {
            Ok(()) => ETCD_OK,
            Err(Unable::Refused) => ETCD_PROTOCOL_ERROR,
            Err(Unable::Other) => ETCD_WTF,
        })
    })
}

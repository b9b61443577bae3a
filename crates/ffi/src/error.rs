//! Codes and errors, and the boundary that no panic crosses.

use std::{
    any::Any,
    ffi::c_char,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
};

use quorate::{ErrorKind, Loss};

use crate::{
    aside::{aside, is_ending},
    output,
    process::Process,
};

/// What came of a call: QUORATE_OK, or why it failed. New ones may be added.
pub type quorate_code = i32;

/// It succeeded.
pub const QUORATE_OK: quorate_code = 0;
/// Correct the call: retrying it cannot help.
pub const QUORATE_INVALID_ARGUMENT: quorate_code = 2;
/// Check the name: there is no such thing.
pub const QUORATE_NOT_FOUND: quorate_code = 3;
/// Choose another name, or take what is there: it exists already.
pub const QUORATE_ALREADY_EXISTS: quorate_code = 4;
/// Read again and retry: another writer was first.
pub const QUORATE_CONFLICT: quorate_code = 5;
/// Read again from the present: the revision asked for is compacted away.
pub const QUORATE_COMPACTED: quorate_code = 6;
/// Stop the work: the hold is gone.
pub const QUORATE_LOST: quorate_code = 7;
/// Retry or give up: no answer, or no event, came in time.
pub const QUORATE_TIMEOUT: quorate_code = 8;
/// Retry later: no member can serve the request now.
pub const QUORATE_UNAVAILABLE: quorate_code = 9;
/// Correct user and password.
pub const QUORATE_UNAUTHENTICATED: quorate_code = 10;
/// Ask for the permission: the user lacks it.
pub const QUORATE_PERMISSION_DENIED: quorate_code = 11;
/// Stop using the handle: it was closed, or freed meanwhile by another thread.
pub const QUORATE_CLOSED: quorate_code = 12;
/// Load everything anew: the cluster was restored from a backup, or is another one now.
pub const QUORATE_CLUSTER_CHANGED: quorate_code = 13;
/// Do without: this store cannot do it.
pub const QUORATE_UNSUPPORTED: quorate_code = 14;
/// Report a bug: this should not happen.
pub const QUORATE_INTERNAL: quorate_code = 15;
/// Correct what is stored: it cannot be decoded.
pub const QUORATE_INVALID_DATA: quorate_code = 16;
/// The quorate_cancel that was given was triggered.
pub const QUORATE_CANCELLED: quorate_code = 100;
/// Wait, or come again: somebody else holds the lock, or waits for it.
pub const QUORATE_NOT_HELD: quorate_code = 101;
/// There will be no more events.
pub const QUORATE_END: quorate_code = 102;
/// Correct the program: the handle is NULL, was freed, or is of another type.
pub const QUORATE_BAD_HANDLE: quorate_code = 103;
/// Open a client in this process: the handle is that of the parent it was forked from.
pub const QUORATE_FORKED: quorate_code = 104;

/// How a hold ended. New ones may be added.
pub type quorate_loss = i32;

/// It has not ended.
pub const QUORATE_LOSS_NONE: quorate_loss = 0;
/// The session, or the client, was closed.
pub const QUORATE_LOSS_CLOSED: quorate_loss = 1;
/// Another owner took the name.
pub const QUORATE_LOSS_CONFLICT: quorate_loss = 2;
/// Somebody deleted the key.
pub const QUORATE_LOSS_DELETED: quorate_loss = 3;
/// The lease ran out.
pub const QUORATE_LOSS_EXPIRED: quorate_loss = 4;
/// The hold reached the longest time that it was asked for.
pub const QUORATE_LOSS_HOLD_LIMIT: quorate_loss = 5;
/// It was released.
pub const QUORATE_LOSS_RELEASED: quorate_loss = 6;
/// The key was deleted and made anew by somebody.
pub const QUORATE_LOSS_REPLACED: quorate_loss = 7;
/// The lease was revoked before its time.
pub const QUORATE_LOSS_REVOKED: quorate_loss = 8;
/// No server confirmed the lease in time.
pub const QUORATE_LOSS_UNREACHABLE: quorate_loss = 9;
/// In another way.
pub const QUORATE_LOSS_OTHER: quorate_loss = 100;

/// Why a call failed. Free it by quorate_error_free.
#[repr(C)]
pub struct quorate_error {
    /// What the call returned.
    pub code: quorate_code,
    /// For people; UTF-8, never NULL.
    pub message: *const c_char,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// Whether the write may have happened although the call failed.
    pub indefinite: bool,
    /// With QUORATE_LOST: how the hold ended.
    pub loss: quorate_loss,
    /// With QUORATE_COMPACTED: the oldest revision that is kept; 0 if the server did not tell.
    pub oldest_revision: i64,
}

/// Frees an error; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_error_free(error: *mut quorate_error) {
    infallible((), || {
        output::take_back(error);
        Ok(())
    });
}

/// What a code asks of the caller, as a sentence. It is never NULL, and not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_code_text(code: quorate_code) -> *const c_char {
    let text = match code {
        QUORATE_OK => c"it succeeded",
        QUORATE_INVALID_ARGUMENT => c"correct the call: retrying it cannot help",
        QUORATE_NOT_FOUND => c"check the name: there is no such thing",
        QUORATE_ALREADY_EXISTS => c"choose another name: it exists already",
        QUORATE_CONFLICT => c"read again and retry: another writer was first",
        QUORATE_COMPACTED => c"read again from the present: the revision is compacted away",
        QUORATE_LOST => c"stop the work: the hold is gone",
        QUORATE_TIMEOUT => c"retry or give up: nothing came in time",
        QUORATE_UNAVAILABLE => c"retry later: no member can serve the request now",
        QUORATE_UNAUTHENTICATED => c"correct user and password",
        QUORATE_PERMISSION_DENIED => c"ask for the permission: the user lacks it",
        QUORATE_CLOSED => c"stop using the handle: it was closed",
        QUORATE_CLUSTER_CHANGED => c"load everything anew: it is another cluster now",
        QUORATE_UNSUPPORTED => c"do without: this store cannot do it",
        QUORATE_INTERNAL => c"report a bug: this should not happen",
        QUORATE_INVALID_DATA => c"correct what is stored: it cannot be decoded",
        QUORATE_CANCELLED => c"the call was cancelled",
        QUORATE_NOT_HELD => c"wait or come again: somebody else holds it or waits for it",
        QUORATE_END => c"there will be no more events",
        QUORATE_BAD_HANDLE => c"correct the program: this is no handle of that type",
        QUORATE_FORKED => c"open a client after the fork: the handle is the parent's",
        _ => c"an unknown code",
    };
    text.as_ptr()
}

/// How a hold ended, in words. It is never NULL, and not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_loss_text(loss: quorate_loss) -> *const c_char {
    let text = match loss {
        QUORATE_LOSS_NONE => c"it is not lost",
        QUORATE_LOSS_CLOSED => c"the session was closed",
        QUORATE_LOSS_CONFLICT => c"another owner took the name",
        QUORATE_LOSS_DELETED => c"its key was deleted",
        QUORATE_LOSS_EXPIRED => c"the lease expired",
        QUORATE_LOSS_HOLD_LIMIT => c"the longest hold asked for is over",
        QUORATE_LOSS_RELEASED => c"it was released",
        QUORATE_LOSS_REPLACED => c"its key was replaced",
        QUORATE_LOSS_REVOKED => c"the lease was revoked",
        QUORATE_LOSS_UNREACHABLE => c"no server confirmed the lease in time",
        _ => c"it was lost in another way",
    };
    text.as_ptr()
}

/// Why a call fails, before C sees it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: quorate_code,
    message: String,
    retryable: bool,
    indefinite: bool,
    loss: quorate_loss,
    oldest_revision: i64,
}

impl Failure {
    pub(crate) fn new(code: quorate_code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code == QUORATE_TIMEOUT,
            indefinite: false,
            loss: QUORATE_LOSS_NONE,
            oldest_revision: 0,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(QUORATE_INVALID_ARGUMENT, message)
    }

    pub(crate) fn indefinite(mut self, indefinite: bool) -> Self {
        self.indefinite = indefinite;
        if indefinite {
            self.message.push_str(" (the write may have happened)");
        }
        self
    }

    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("of an unknown kind");
        let message = format!("the library panicked, please report it: {text}");
        Self::new(QUORATE_INTERNAL, message)
    }

    fn give(self) -> *mut quorate_error {
        output::give(|arena| quorate_error {
            code: self.code,
            message: arena.text(&self.message),
            retryable: self.retryable,
            indefinite: self.indefinite,
            loss: self.loss,
            oldest_revision: self.oldest_revision,
        })
    }
}

impl From<quorate::Error> for Failure {
    fn from(error: quorate::Error) -> Self {
        Self {
            code: error.kind().code().into(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            indefinite: error.is_indefinite(),
            loss: error.loss().map_or(QUORATE_LOSS_NONE, loss),
            oldest_revision: error.oldest_revision().map_or(0, |revision| revision.0),
        }
    }
}

/// The number of a loss.
pub(crate) fn loss(loss: Loss) -> quorate_loss {
    match loss {
        Loss::Closed => QUORATE_LOSS_CLOSED,
        Loss::Conflict => QUORATE_LOSS_CONFLICT,
        Loss::Deleted => QUORATE_LOSS_DELETED,
        Loss::Expired => QUORATE_LOSS_EXPIRED,
        Loss::HoldLimit => QUORATE_LOSS_HOLD_LIMIT,
        Loss::Released => QUORATE_LOSS_RELEASED,
        Loss::Replaced => QUORATE_LOSS_REPLACED,
        Loss::Revoked => QUORATE_LOSS_REVOKED,
        Loss::Unreachable => QUORATE_LOSS_UNREACHABLE,
        _ => QUORATE_LOSS_OTHER,
    }
}

/// Runs the body of a function of C: makes a code and an error of what comes of it, a panic included.
pub(crate) fn guarded(
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
    body: impl FnOnce() -> Result<(), Failure>,
) -> quorate_code {
    let error = output::optional(error);
    let Err(failure) = caught(body) else {
        return QUORATE_OK;
    };
    let code = failure.code;
    if let Some(error) = error {
        *error = failure.give();
    }
    code
}

/// Runs the body of a function of C that cannot fail: what goes wrong is the value of nothing.
pub(crate) fn infallible<T>(nothing: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    caught(body).unwrap_or(nothing)
}

/// Runs a body, and makes a failure of a panic.
fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let run = || {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // What is looked at or dropped may want to set a timer, or to spawn.
            let _context = Process::current().enter();
            body()
        }));
        outcome.unwrap_or_else(|panic| Err(Failure::panicked(&*panic)))
    };
    if is_ending() { aside(run) } else { run() }
}

/// The codes are those of the one table.
const _: () = {
    const fn same(code: quorate_code, kind: ErrorKind) {
        assert!(code == kind.code() as quorate_code);
    }
    same(QUORATE_INVALID_ARGUMENT, ErrorKind::InvalidArgument);
    same(QUORATE_NOT_FOUND, ErrorKind::NotFound);
    same(QUORATE_ALREADY_EXISTS, ErrorKind::AlreadyExists);
    same(QUORATE_CONFLICT, ErrorKind::Conflict);
    same(QUORATE_COMPACTED, ErrorKind::Compacted);
    same(QUORATE_LOST, ErrorKind::Lost);
    same(QUORATE_TIMEOUT, ErrorKind::Timeout);
    same(QUORATE_UNAVAILABLE, ErrorKind::Unavailable);
    same(QUORATE_UNAUTHENTICATED, ErrorKind::Unauthenticated);
    same(QUORATE_PERMISSION_DENIED, ErrorKind::PermissionDenied);
    same(QUORATE_CLOSED, ErrorKind::Closed);
    same(QUORATE_CLUSTER_CHANGED, ErrorKind::ClusterChanged);
    same(QUORATE_UNSUPPORTED, ErrorKind::Unsupported);
    same(QUORATE_INTERNAL, ErrorKind::Internal);
    same(QUORATE_INVALID_DATA, ErrorKind::InvalidData);
};

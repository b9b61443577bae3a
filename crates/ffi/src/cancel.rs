//! Cancelling calls that block.

use std::mem::MaybeUninit;

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    error::{Failure, QUORATE_INTERNAL, guarded, infallible, quorate_code, quorate_error},
    handle::{self, Kind},
    output::required,
    process::Process,
    signal::Signal,
};

/// Ends calls that block, from another thread. Once triggered it stays so: every call that it is given
/// to returns QUORATE_CANCELLED. Any number of calls may share one.
pub struct quorate_cancel {
    /// Readable once it is triggered, for ever.
    signal: AsyncFd<Signal>,
}

impl Kind for quorate_cancel {
    const NAME: &'static str = "quorate_cancel";
}

impl quorate_cancel {
    /// Completes when it is triggered.
    pub(crate) async fn triggered(&self) {
        if self.signal.readable().await.is_err() {
            // The runtime is ending, and whatever waits with it.
            std::future::pending().await
        }
    }
}

/// Makes a quorate_cancel, to be freed by quorate_cancel_free.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_cancel_new(
    cancel: Option<&mut MaybeUninit<*mut quorate_cancel>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let cancel = required(cancel, "cancel")?;
        let _context = Process::current().runtime()?.enter();
        let signal = Signal::new()?;
        // SAFETY: the descriptor is open, is always the same, and is closed only when its owner is
        // dropped, which is the registration.
        let registered = unsafe { AsyncFd::register_with_interest(signal, Interest::READABLE) };
        let signal = registered.map_err(|error| {
            let message = format!("the descriptor cannot be waited for: {error}");
            Failure::new(QUORATE_INTERNAL, message)
        })?;
        *cancel = handle::open(quorate_cancel { signal });
        Ok(())
    })
}

/// Ends every call that it is given to, now and later. Not for signal handlers: see quorate_cancel_fd.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_cancel_trigger(
    cancel: *mut quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        handle::used(cancel)?.signal.get_ref().set();
        Ok(())
    })
}

/// A descriptor to which a signal handler writes 8 bytes, a uint64_t of 1, to trigger it. It is the
/// handle's: do not read from it or close it.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_cancel_fd(
    cancel: *const quorate_cancel,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let fd = required(fd, "fd")?;
        *fd = handle::used(cancel)?.signal.get_ref().writer_number();
        Ok(())
    })
}

/// Frees it; NULL is accepted. Calls that it was given to go on, and cannot be cancelled any more.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_cancel_free(cancel: *mut quorate_cancel) {
    infallible((), || {
        handle::free(cancel);
        Ok(())
    });
}

//! Calls of a thread that is ending, as destructors and exit handlers make them.
//!
//! Its own storage is gone by then, and with it what it takes to wait. So another thread does the work; one
//! that it would start itself would leave a little of that storage behind.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use tokio::runtime::Handle;

use crate::{
    error::{Failure, QUORATE_INTERNAL},
    process::{Process, lock},
};

/// Whether the thread is ending.
pub(crate) fn is_ending() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

/// Lets a thread of the library do something, which must not panic, and waits for that.
pub(crate) fn aside<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut outcome = None;
    let over = Arc::new(Over::default());
    let job = Job {
        work,
        outcome: &mut outcome,
        _teller: Teller(Arc::clone(&over)),
    };
    let job: Box<dyn FnOnce() + '_> = Box::new(move || job.run());
    // SAFETY: when its teller is dropped, run or not, it touches nothing any more of what it borrows. That
    // is waited for, here where it is all owned.
    let job = unsafe { mem::transmute::<Box<dyn FnOnce() + '_>, Lent>(job) };
    let runtime = Process::current().runtime()?;
    let blocking = runtime.clone();
    runtime.spawn(async move {
        let _ = blocking.spawn_blocking(move || job.run()).await;
    });
    over.wait();
    outcome.unwrap_or_else(|| {
        let message = "no thread could be started for a call of one that ends";
        Err(Failure::new(QUORATE_INTERNAL, message))
    })
}

struct Job<'a, W, T> {
    work: W,
    outcome: &'a mut Option<T>,
    /// Dropped last.
    _teller: Teller,
}

impl<W: FnOnce() -> T, T> Job<'_, W, T> {
    fn run(self) {
        *self.outcome = Some((self.work)());
    }
}

/// A job that borrows from the thread that waits for it.
#[repr(transparent)]
struct Lent(Box<dyn FnOnce()>);

// SAFETY: who lends it touches nothing of what it borrows before it is over.
unsafe impl Send for Lent {}

impl Lent {
    fn run(self) {
        (self.0)();
    }
}

/// Told when its job is over.
#[derive(Default)]
struct Over {
    is_over: Mutex<bool>,
    told: Condvar,
}

impl Over {
    fn wait(&self) {
        let mut is_over = lock(&self.is_over);
        while !*is_over {
            is_over = self
                .told
                .wait(is_over)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells that its job is over, run or not.
struct Teller(Arc<Over>);

impl Drop for Teller {
    fn drop(&mut self) {
        *lock(&self.0.is_over) = true;
        self.0.told.notify_all();
    }
}

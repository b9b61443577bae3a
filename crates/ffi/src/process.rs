//! What this process has of the library: its runtime, and the tables of what it gave out.

use std::{
    collections::HashMap,
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use nix::sys::signal::SigSet;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

use crate::{
    error::{Failure, QUORATE_INTERNAL},
    handle::Entry,
    output::Given,
};

/// How many threads work for all clients. Callers' own threads do what they wait for.
const THREADS: usize = 2;

static CURRENT: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// The next handle: a handle is a number that is never given out twice, in this process or in one that
/// was forked from it.
static NEXT: AtomicUsize = AtomicUsize::new(0x1000);

/// One process. After a fork the child begins its own, since nobody holds or releases the locks of the
/// parent's there, and its threads are not.
pub(crate) struct Process {
    pid: u32,
    /// Handles below were given out before the fork.
    first: usize,
    runtime: OnceLock<Runtime>,
    starting: Mutex<()>,
    handles: RwLock<HashMap<usize, Entry>>,
    outputs: Mutex<HashMap<usize, Given>>,
    /// That of the parent, which is never freed.
    parent: *const Self,
}

// SAFETY: what `parent` points to is only kept, never read.
unsafe impl Sync for Process {}

// SAFETY: as above.
unsafe impl Send for Process {}

impl Process {
    /// That of the running process.
    pub(crate) fn current() -> &'static Self {
        loop {
            let found = CURRENT.load(Ordering::Acquire);
            // SAFETY: it is null, or was leaked below and never freed.
            if let Some(process) = unsafe { found.as_ref() }
                && process.pid == std::process::id()
            {
                return process;
            }
            let fresh = Box::into_raw(Box::new(Self::new(found)));
            let exchanged =
                CURRENT.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire);
            if exchanged.is_err() {
                // SAFETY: it was made above and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }

    fn new(parent: *const Self) -> Self {
        Self {
            pid: std::process::id(),
            first: NEXT.load(Ordering::Relaxed),
            runtime: OnceLock::new(),
            starting: Mutex::new(()),
            handles: RwLock::default(),
            outputs: Mutex::default(),
            parent,
        }
    }

    /// The runtime, which the first call starts.
    pub(crate) fn runtime(&self) -> Result<&Handle, Failure> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle());
        }
        let _starting = lock(&self.starting);
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle());
        }
        let built = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("quorate")
            // The signals of the program are for its own threads.
            .on_thread_start(|| {
                let _ = SigSet::all().thread_block();
            })
            .enable_all()
            .build();
        match built {
            Ok(runtime) => Ok(self.runtime.get_or_init(|| runtime).handle()),
            Err(error) => {
                let message = format!("the library's threads cannot be started: {error}");
                Err(Failure::new(QUORATE_INTERNAL, message))
            }
        }
    }

    /// The context of the runtime, once that is started.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.runtime.get().map(Runtime::enter)
    }

    pub(crate) fn handles(&self) -> &RwLock<HashMap<usize, Entry>> {
        &self.handles
    }

    pub(crate) fn outputs(&self) -> MutexGuard<'_, HashMap<usize, Given>> {
        lock(&self.outputs)
    }

    /// Whether a handle was given out before this process was forked.
    pub(crate) fn is_parents(&self, handle: usize) -> bool {
        !self.parent.is_null() && handle < self.first
    }

    /// Whether a handle was given out at all.
    pub(crate) fn was_given(handle: usize) -> bool {
        (0x1000..NEXT.load(Ordering::Relaxed)).contains(&handle)
    }

    /// A number for a handle.
    pub(crate) fn number() -> usize {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this process was forked from one that used the library.
    pub(crate) fn is_forked(&self) -> bool {
        !self.parent.is_null()
    }
}

/// A panic while it was locked is no reason to give up: what is changed under the locks here is changed
/// as a whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Handles: opaque pointers that are numbers, and what they stand for.
//!
//! Nothing is ever read through a handle. So one that was freed is known as that, and a thread that
//! waits in a handle keeps what it needs while another frees it.

use std::{
    any::Any,
    ops::Deref,
    ptr,
    sync::{Arc, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    error::{Failure, QUORATE_BAD_HANDLE, QUORATE_FORKED},
    process::Process,
};

/// What a handle of C stands for.
pub(crate) trait Kind: Any + Send + Sync {
    /// What it is called in messages.
    const NAME: &'static str;
}

/// A row of the table of handles.
pub(crate) struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    freed: CancellationToken,
    name: &'static str,
}

/// A handle in use by one call.
pub(crate) struct Used<T> {
    value: Arc<T>,
    /// Cancelled when the handle is freed.
    pub(crate) freed: CancellationToken,
}

impl<T> Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Gives out a handle.
pub(crate) fn open<T: Kind>(value: T) -> *mut T {
    let number = Process::number();
    let entry = Entry {
        value: Arc::new(value),
        freed: CancellationToken::new(),
        name: T::NAME,
    };
    let handles = Process::current().handles();
    let mut handles = handles.write().unwrap_or_else(PoisonError::into_inner);
    handles.insert(number, entry);
    ptr::without_provenance_mut(number)
}

/// What a handle stands for.
pub(crate) fn used<T: Kind>(handle: *const T) -> Result<Used<T>, Failure> {
    let number = handle.addr();
    if number == 0 {
        return Err(bad(format!("the {} is NULL", T::NAME)));
    }
    let process = Process::current();
    let found = {
        let handles = process.handles();
        let handles = handles.read().unwrap_or_else(PoisonError::into_inner);
        let found = handles.get(&number);
        found.map(|entry| (Arc::clone(&entry.value), entry.freed.clone(), entry.name))
    };
    match found {
        Some((value, freed, name)) => match value.downcast() {
            Ok(value) => Ok(Used { value, freed }),
            Err(_) => Err(bad(format!("this is a {name}, and no {}", T::NAME))),
        },
        None if !Process::was_given(number) => {
            Err(bad(format!("this is no {} of this library", T::NAME)))
        }
        None if process.is_parents(number) => {
            let message = "the handle is the parent's: open a client after the fork";
            Err(Failure::new(QUORATE_FORKED, message))
        }
        None => Err(bad(format!("the {} was freed", T::NAME))),
    }
}

/// Frees a handle: whoever waits in it returns. What is no handle of this type is left alone.
pub(crate) fn free<T: Kind>(handle: *mut T) {
    if used::<T>(handle).is_err() {
        return;
    }
    let process = Process::current();
    let entry = {
        let handles = process.handles();
        let mut handles = handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(&handle.addr())
    };
    if let Some(entry) = entry {
        entry.freed.cancel();
    }
}

/// How many handles are given out.
pub(crate) fn count() -> usize {
    let handles = Process::current().handles();
    let handles = handles.read().unwrap_or_else(PoisonError::into_inner);
    handles.len()
}

fn bad(message: String) -> Failure {
    Failure::new(QUORATE_BAD_HANDLE, message)
}

//! Outputs: plain values, and structs that C reads and then frees.

use std::{
    any::{Any, TypeId},
    ffi::c_char,
    mem::MaybeUninit,
    ptr,
};

use crate::{
    bytes::quorate_bytes,
    error::{Failure, QUORATE_INVALID_ARGUMENT},
    process::Process,
};

/// What an output is before it is set.
pub(crate) trait Empty {
    const EMPTY: Self;
}

impl<T> Empty for *mut T {
    const EMPTY: Self = ptr::null_mut();
}

impl Empty for bool {
    const EMPTY: Self = false;
}

impl Empty for i32 {
    const EMPTY: Self = 0;
}

impl Empty for i64 {
    const EMPTY: Self = 0;
}

impl Empty for u64 {
    const EMPTY: Self = 0;
}

/// An output that C has to take, set to nothing.
pub(crate) fn required<'a, T: Empty>(
    out: Option<&'a mut MaybeUninit<T>>,
    name: &str,
) -> Result<&'a mut T, Failure> {
    match optional(out) {
        Some(out) => Ok(out),
        None => {
            let message = format!("the output {name} is NULL");
            Err(Failure::new(QUORATE_INVALID_ARGUMENT, message))
        }
    }
}

/// An output that C may leave out, set to nothing.
pub(crate) fn optional<T: Empty>(out: Option<&mut MaybeUninit<T>>) -> Option<&mut T> {
    out.map(|out| out.write(T::EMPTY))
}

/// Sets an output that may be left out.
pub(crate) fn set<T>(out: Option<&mut T>, value: T) {
    if let Some(out) = out {
        *out = value;
    }
}

/// What a struct that was given out points to.
#[derive(Default)]
pub(crate) struct Arena {
    /// Vectors, which unlike boxes may be moved while they are pointed into.
    texts: Vec<Vec<u8>>,
    arrays: Vec<Box<dyn Any>>,
}

impl Arena {
    /// Bytes with a NUL behind them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> quorate_bytes {
        let kept = [bytes, b"\0"].concat();
        let data = kept.as_ptr();
        self.texts.push(kept);
        quorate_bytes {
            data,
            len: bytes.len(),
        }
    }

    /// A C string, in which a NUL becomes a space.
    pub(crate) fn text(&mut self, text: &str) -> *const c_char {
        let text = text.replace('\0', " ");
        self.bytes(text.as_bytes()).data.cast()
    }

    /// A C string, or NULL.
    pub(crate) fn optional_text(&mut self, text: Option<&str>) -> *const c_char {
        text.map_or(ptr::null(), |text| self.text(text))
    }

    /// An array, NULL if it is empty, and its length.
    pub(crate) fn array<T: 'static>(&mut self, items: Vec<T>) -> (*const T, usize) {
        if items.is_empty() {
            return (ptr::null(), 0);
        }
        let (data, len) = (items.as_ptr(), items.len());
        self.arrays.push(Box::new(items));
        (data, len)
    }

    /// One item.
    pub(crate) fn one<T: 'static>(&mut self, item: T) -> *const T {
        self.array(vec![item]).0
    }

    /// Many items, each made with this arena.
    pub(crate) fn collect<I: IntoIterator, T: 'static>(
        &mut self,
        items: I,
        mut each: impl FnMut(I::Item, &mut Self) -> T,
    ) -> (*const T, usize) {
        let items = items.into_iter().map(|item| each(item, self)).collect();
        self.array(items)
    }
}

/// A struct that was given out.
pub(crate) struct Given {
    at: *mut (),
    what: TypeId,
    drop: fn(*mut ()),
}

// SAFETY: it owns what `at` points to, which is plain data that refers to itself alone.
unsafe impl Send for Given {}

impl Drop for Given {
    fn drop(&mut self) {
        (self.drop)(self.at);
    }
}

/// The struct, and behind it what it points to.
#[repr(C)]
struct Output<T> {
    root: T,
    _arena: Arena,
}

/// Gives out a struct, to be freed by [`take_back`].
pub(crate) fn give<T: 'static>(fill: impl FnOnce(&mut Arena) -> T) -> *mut T {
    let mut arena = Arena::default();
    let root = fill(&mut arena);
    let at = Box::into_raw(Box::new(Output {
        root,
        _arena: arena,
    }));
    let given = Given {
        at: at.cast(),
        what: TypeId::of::<T>(),
        drop: |at| {
            // SAFETY: it came from the box above, and is dropped once: with its row.
            drop(unsafe { Box::from_raw(at.cast::<Output<T>>()) });
        },
    };
    Process::current().outputs().insert(at.addr(), given);
    at.cast()
}

/// Frees a struct that was given out. What is none of this type is left alone.
pub(crate) fn take_back<T: 'static>(output: *mut T) {
    let given = {
        let mut outputs = Process::current().outputs();
        match outputs.get(&output.addr()) {
            Some(given) if given.what == TypeId::of::<T>() => outputs.remove(&output.addr()),
            _ => None,
        }
    };
    drop(given);
}

/// How many structs are given out.
pub(crate) fn count() -> usize {
    Process::current().outputs().len()
}

//! Versions, and what is given out.

use std::ffi::{CStr, c_char};

use crate::{error::infallible, handle, output};

/// The first number of this header's version.
pub const QUORATE_VERSION_MAJOR: u32 = 0;
/// The second number of this header's version.
pub const QUORATE_VERSION_MINOR: u32 = 1;
/// The third number of this header's version.
pub const QUORATE_VERSION_PATCH: u32 = 0;
/// The number in the name of the library, libquorate.so.N: programs for another one do not load it.
pub const QUORATE_ABI_VERSION: u32 = 0;

/// The version of the library, such as "0.1.0". Not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The QUORATE_ABI_VERSION of the library.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_abi_version() -> u32 {
    QUORATE_ABI_VERSION
}

/// How many handles and results were given out and not freed yet, for tests that look for leaks.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_in_use() -> u64 {
    infallible(0, || Ok((handle::count() + output::count()) as u64))
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL"),
    };

/// The numbers are those of the package.
const _: () = {
    const fn is(text: &str, number: u32) -> bool {
        let bytes = text.as_bytes();
        let (mut read, mut at) = (0, 0);
        while at < bytes.len() {
            read = read * 10 + (bytes[at] - b'0') as u32;
            at += 1;
        }
        read == number
    }
    assert!(is(env!("CARGO_PKG_VERSION_MAJOR"), QUORATE_VERSION_MAJOR));
    assert!(is(env!("CARGO_PKG_VERSION_MINOR"), QUORATE_VERSION_MINOR));
    assert!(is(env!("CARGO_PKG_VERSION_PATCH"), QUORATE_VERSION_PATCH));
    assert!(is(env!("QUORATE_ABI"), QUORATE_ABI_VERSION));
};

//! Gives the shared library its name for the dynamic linker.

use std::env;

/// The number in the name: programs built for another one do not load this library.
const ABI: &str = "0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=QUORATE_ABI={ABI}");
    match &*env::var("CARGO_CFG_TARGET_OS").unwrap_or_default() {
        "linux" | "freebsd" | "netbsd" | "openbsd" => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libquorate.so.{ABI}");
            // Its threads run until the process ends: what they run must not be unloaded.
            println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        "macos" => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libquorate.{ABI}.dylib")
        }
        _ => {}
    }
}

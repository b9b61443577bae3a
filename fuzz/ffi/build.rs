//! Tells what the build script of quorate-ffi does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=QUORATE_ABI=0");
}

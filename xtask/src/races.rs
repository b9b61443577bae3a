//! Looks for data races in the C library, with its threaded test: under ThreadSanitizer where a nightly
//! toolchain with the source of the standard library is there, else under Helgrind.

use std::{env, path::PathBuf, process::Command};

use crate::run::{cargo, output, root, run};

/// The only platform that both are used on here.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How often ThreadSanitizer runs the test: each run may take another course.
const ROUNDS: usize = 5;

/// Runs the threaded test.
pub(crate) fn look() -> Result<(), String> {
    if has_nightly() {
        under_thread_sanitizer()
    } else {
        eprintln!("xtask: no nightly toolchain with rust-src: Helgrind instead of ThreadSanitizer");
        under_helgrind()
    }
}

/// Everything is built with the sanitizer, the standard library too: it does not know what
/// synchronization in code means that was built without.
fn under_thread_sanitizer() -> Result<(), String> {
    let target = target().join("races");
    let mut build = Command::new("cargo");
    build
        .current_dir(root())
        .args([
            "+nightly",
            "build",
            "--package",
            "quorate-ffi",
            "-Zbuild-std",
            "--target",
            TARGET,
        ])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-Zsanitizer=thread")
        // That of the toolchain that runs this would win.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    run(&mut build)?;
    let library = target.join(TARGET).join("debug/libquorate.a");
    let program = target.join("threads");
    // Rust's compiler brings the sanitizer's own part, as one library with everything else.
    let object = target.join("threads.o");
    run(Command::new("gcc")
        .args([
            "-std=c99",
            "-D_POSIX_C_SOURCE=200809L",
            "-g",
            "-fsanitize=thread",
            "-c",
        ])
        .args(sources())
        .arg("-o")
        .arg(&object))?;
    run(Command::new("gcc")
        .args(["-fsanitize=thread", "-g"])
        .arg(&object)
        .arg(&library)
        .arg("-o")
        .arg(&program)
        .args([
            "-lgcc_s",
            "-lutil",
            "-lrt",
            "-lpthread",
            "-lm",
            "-ldl",
            "-lc",
        ]))?;
    let suppressions = root().join("crates/ffi/tests/c/tsan.supp");
    for _ in 0..ROUNDS {
        run(Command::new(&program).arg("mem:races").env(
            "TSAN_OPTIONS",
            format!("halt_on_error=1:suppressions={}", suppressions.display()),
        ))?;
    }
    Ok(())
}

fn under_helgrind() -> Result<(), String> {
    let mut build = cargo();
    run(build.args(["build", "--package", "quorate-ffi"]))?;
    let target = target();
    let program = target.join("threads");
    run(Command::new("gcc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g"])
        .args(sources())
        .arg("-o")
        .arg(&program)
        .arg(target.join("debug/libquorate.a"))
        .args([
            "-lgcc_s",
            "-lutil",
            "-lrt",
            "-lpthread",
            "-lm",
            "-ldl",
            "-lc",
        ]))?;
    let suppressions = root().join("crates/ffi/tests/c/helgrind.supp");
    run(Command::new("valgrind")
        .args([
            "--tool=helgrind",
            "--error-exitcode=9",
            "--fair-sched=yes",
            "--history-level=approx",
        ])
        .arg(format!("--suppressions={}", suppressions.display()))
        .arg(&program)
        .arg("mem:races?timeout=120s&ttl=600s"))
}

fn sources() -> Vec<String> {
    let ffi = root().join("crates/ffi");
    let path = |name: &str| ffi.join(name).display().to_string();
    vec![
        "-I".to_owned(),
        path("include"),
        "-I".to_owned(),
        path("tests/c"),
        path("tests/c/threads.c"),
    ]
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |target| root().join(target))
}

fn has_nightly() -> bool {
    let sysroot = output(
        Command::new("rustc")
            .args(["+nightly", "--print", "sysroot"])
            .env_remove("RUSTUP_TOOLCHAIN"),
    );
    sysroot.is_ok_and(|sysroot| {
        PathBuf::from(sysroot.trim())
            .join("lib/rustlib/src/rust/library")
            .is_dir()
    })
}

//! Looks for data races in the C library, with its threaded tests: under ThreadSanitizer where a nightly
//! toolchain with the source of the standard library is there, else under Helgrind.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    install::install,
    run::{output, root, run},
};

/// The only platform that both are used on here.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the static library needs.
const LIBRARIES: [&str; 7] = [
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-lc",
];

/// The threaded tests, one for each header.
const TESTS: [&str; 2] = ["threads", "etcd_api_threads"];

/// How often ThreadSanitizer runs a test: each run may take another course.
const ROUNDS: usize = 5;

/// Runs the threaded tests, with `--helgrind` in any case under Helgrind.
pub(crate) fn look(flags: &[&str]) -> Result<(), String> {
    let helgrind = match flags {
        [] => false,
        ["--helgrind"] => true,
        _ => return Err("usage: cargo xtask races [--helgrind]".to_owned()),
    };
    if !helgrind && has_nightly() {
        under_thread_sanitizer()
    } else {
        if !helgrind {
            eprintln!("xtask: no nightly toolchain with rust-src: Helgrind, not ThreadSanitizer");
        }
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
    TESTS
        .iter()
        .try_for_each(|test| sanitized(test, &target, &library))
}

fn sanitized(test: &str, target: &Path, library: &Path) -> Result<(), String> {
    let program = target.join(test);
    let object = target.join(format!("{test}.o"));
    run(Command::new("gcc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g"])
        .args(["-fsanitize=thread", "-c"])
        .args(sources(test))
        .arg("-o")
        .arg(&object))?;
    // The sanitizer's own part has to be that of Rust's compiler, which needs more of it than gcc.
    run(Command::new("gcc")
        .arg(&object)
        .arg("-Wl,--whole-archive")
        .arg(nightly()?.join(format!(
            "lib/rustlib/{TARGET}/lib/librustc-nightly_rt.tsan.a"
        )))
        .args(["-Wl,--no-whole-archive", "-Wl,--export-dynamic"])
        .arg(library)
        .arg("-o")
        .arg(&program)
        .args(LIBRARIES)
        .arg("-lresolv"))?;
    let suppressions = root().join("crates/ffi/tests/c/tsan.supp");
    let options = format!("halt_on_error=1 suppressions={}", suppressions.display());
    for _ in 0..ROUNDS {
        run(Command::new(&program)
            .arg("mem:races")
            .env("TSAN_OPTIONS", &options))?;
    }
    Ok(())
}

/// With the shared library, so that the suppressions can tell it from the test.
fn under_helgrind() -> Result<(), String> {
    let prefix = target().join("races/prefix");
    install(&["--debug", &format!("--prefix={}", prefix.display())])?;
    let lib = prefix.join("lib");
    TESTS.iter().try_for_each(|test| watched(test, &lib))
}

fn watched(test: &str, lib: &Path) -> Result<(), String> {
    let program = target().join(format!("races/{test}-helgrind"));
    run(Command::new("gcc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g", "-pthread"])
        .args(sources(test))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(lib)
        .args(["-lquorate", "-Wl,-rpath"])
        .arg(lib))?;
    let suppressions = root().join("crates/ffi/tests/c/helgrind.supp");
    run(Command::new("valgrind")
        .args(["--tool=helgrind", "--error-exitcode=9", "--fair-sched=yes"])
        .arg("--history-level=approx")
        .arg(format!("--suppressions={}", suppressions.display()))
        .arg(&program)
        // It is slow: nothing may be late.
        .arg("mem:races?timeout=120s&ttl=600s"))
}

fn sources(test: &str) -> Vec<String> {
    let ffi = root().join("crates/ffi");
    let path = |name: &str| ffi.join(name).display().to_string();
    vec![
        "-I".to_owned(),
        path("include"),
        "-I".to_owned(),
        path("tests/c"),
        path(&format!("tests/c/{test}.c")),
    ]
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |target| root().join(target))
}

/// Where the nightly toolchain is.
fn nightly() -> Result<PathBuf, String> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["+nightly", "--print", "sysroot"])
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(PathBuf::from(output(&mut rustc)?.trim()))
}

fn has_nightly() -> bool {
    nightly().is_ok_and(|nightly| nightly.join("lib/rustlib/src/rust/library").is_dir())
}

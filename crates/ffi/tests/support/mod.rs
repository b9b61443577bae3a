//! What tests need around them: the library, compilers, and real etcd servers.
#![allow(dead_code)] // each test program uses a part
#![allow(unreachable_pub, clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // a test has no client whose clock it could take

#[path = "../../../quorate/tests/support/certificates.rs"]
pub mod certificates;
pub mod dev;
#[path = "../../../quorate/tests/support/etcd.rs"]
pub mod etcd;
#[path = "../../../quorate/tests/support/proxy.rs"]
pub mod proxy;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// The compiler's complaints are errors.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A language that the header is for.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    C99,
    Cpp17,
}

/// The library as it was built, and where programs are made.
pub struct Workshop {
    directory: TempDir,
}

impl Workshop {
    /// Builds the library, unless it is: nothing else does for tests of one that Rust cannot link.
    pub fn open() -> Self {
        let target = target();
        if env::var_os("QUORATE_FFI_IS_BUILT").is_none() {
            let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            without_package(&mut build);
            let built = build
                .args(["build", "--quiet", "--package", "quorate-ffi", "--lib"])
                .env("CARGO_TARGET_DIR", &target)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .stdin(Stdio::null())
                .status();
            assert!(built.unwrap().success(), "the library does not build");
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["libquorate.so", "libquorate.so.0"] {
            symlink(
                target.join("debug/libquorate.so"),
                directory.path().join(name),
            )
            .unwrap();
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the shared library is.
    pub fn library(&self) -> PathBuf {
        self.path("libquorate.so.0")
    }

    /// Compiles a program against the library, with the sanitizers of address, leaks and behaviour.
    pub fn compile(&self, source: &Path, language: Language) -> PathBuf {
        self.compile_with(
            source,
            language,
            &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        )
    }

    pub fn compile_with(&self, source: &Path, language: Language, flags: &[&str]) -> PathBuf {
        let stem = source.file_stem().unwrap().to_string_lossy();
        let program = self.path(&format!("{stem}-{language:?}"));
        let mut compiler = match language {
            Language::C99 => Command::new("gcc"),
            Language::Cpp17 => Command::new("g++"),
        };
        match language {
            Language::C99 => compiler.arg("-std=c99"),
            Language::Cpp17 => compiler.args(["-std=c++17", "-x", "c++"]),
        };
        compiler
            .arg("-D_POSIX_C_SOURCE=200809L")
            .args(STRICT)
            .args(["-g", "-pthread"])
            .args(flags)
            .arg("-I")
            .arg(crate_file("include"))
            .arg("-I")
            .arg(crate_file("tests/c"))
            .arg(source)
            .args(["-x", "none", "-o"])
            .arg(&program)
            .arg("-L")
            .arg(self.directory.path())
            .args(["-lquorate", "-Wl,-rpath"])
            .arg(self.directory.path());
        succeed(&mut compiler);
        program
    }
}

/// Takes from a cargo what the one above tells a test of its package: build scripts would run again.
pub fn without_package(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
        if of_package.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

/// A file of this crate.
pub fn crate_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The text of a file.
pub fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// A program that is watched for leaks, and ended if it hangs.
pub fn watched(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=ABRT", "60"]).arg(program);
    sanitize(&mut command);
    command
}

/// Tells a program's sanitizers what to do.
pub fn sanitize(command: &mut Command) {
    command
        .env("ASAN_OPTIONS", "detect_leaks=1:exitcode=99")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .stdin(Stdio::null());
}

/// Runs a command, which has to succeed, and returns what it prints.
pub fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8_lossy(&stdout).into_owned()
}

/// The address of a store in memory, under a name so that several clients share it.
pub fn memory() -> String {
    "mem:test".to_owned()
}

/// An address in the etcd that all tests share, under a namespace of one's own.
pub fn cluster(namespace: &str) -> String {
    let hosts = etcd::shared();
    let host = hosts.strip_prefix("http://").unwrap();
    format!("etcd://{host}/ffi-{namespace}-{}", std::process::id())
}

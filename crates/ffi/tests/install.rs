//! What is installed compiles and runs programs by pkg-config, with the shared and the static library.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{fs, path::Path, process::Command};

use support::{crate_file, succeed, target};

/// Installs below `destdir` for `prefix`.
fn install(prefix: &Path, destdir: Option<&Path>) {
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    support::without_package(&mut install);
    install
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "install",
            "--debug",
            "--prefix",
        ])
        .arg(prefix)
        .env("CARGO_TARGET_DIR", target())
        .current_dir(crate_file("../.."));
    if let Some(destdir) = destdir {
        install.arg("--destdir").arg(destdir);
    }
    succeed(&mut install);
}

#[test]
fn what_is_installed_compiles_and_runs_programs() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("usr");
    install(&prefix, None);
    let pkg_config = |arguments: &[&str]| {
        let flags = succeed(
            Command::new("pkg-config")
                .args(arguments)
                .arg("quorate")
                .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")),
        );
        flags
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let program = directory.path().join("program");
    let compile = |flags: &[String]| {
        succeed(
            Command::new("gcc")
                .arg(crate_file("examples/kv.c"))
                .arg("-o")
                .arg(&program)
                .args(flags),
        );
    };

    compile(&pkg_config(&["--cflags", "--libs"]));
    let lib = prefix.join("lib");
    let said = succeed(Command::new(&program).env("LD_LIBRARY_PATH", &lib));
    assert!(said.starts_with("swapped: yes"));
    let needed = succeed(Command::new("readelf").arg("-d").arg(&program));
    assert!(needed.contains("[libquorate.so.0]"), "{needed}");

    let mut flags = pkg_config(&["--static", "--cflags", "--libs"]);
    for flag in &mut flags {
        if flag == "-lquorate" {
            *flag = "-l:libquorate.a".to_owned();
        }
    }
    compile(&flags);
    assert!(succeed(&mut Command::new(&program)).starts_with("swapped: yes"));
    let needed = succeed(Command::new("readelf").arg("-d").arg(&program));
    assert!(!needed.contains("quorate"), "{needed}");

    let man = fs::read_to_string(prefix.join("share/man/man3/quorate.3")).unwrap();
    assert!(man.contains(&format!("quorate {}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_packager_installs_below_a_directory_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    install(Path::new("/opt/quorate"), Some(directory.path()));
    let installed = directory.path().join("opt/quorate");
    let pc = fs::read_to_string(installed.join("lib/pkgconfig/quorate.pc")).unwrap();
    assert!(pc.starts_with("prefix=/opt/quorate\n"), "{pc}");
    assert!(!pc.contains('@'), "{pc}");
    let real = fs::canonicalize(installed.join("lib/libquorate.so")).unwrap();
    let name = format!("libquorate.so.{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(real.file_name().unwrap().to_string_lossy(), name);
    assert!(installed.join("include/quorate.h").is_file());
}

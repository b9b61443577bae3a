//! Programs that tests need, and their installation where that is possible.

use std::{fs, path::Path, process::Command};

use crate::run::{output, run};

/// What the tests of the C library call, and the packages of Debian and Ubuntu that bring them. The
/// sanitizers come with the compilers.
const TOOLS: [(&str, &str); 5] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("pkg-config", "pkg-config"),
    ("python3", "python3"),
    ("readelf", "binutils"),
];

/// Makes sure of the tools that the tests of the C library call.
pub(crate) fn require() -> Result<(), String> {
    let missing = || -> Vec<(&str, &str)> {
        let is_missing =
            |(tool, _): &(&str, &str)| output(Command::new(tool).arg("--version")).is_err();
        TOOLS.into_iter().filter(is_missing).collect()
    };
    let found = missing();
    if found.is_empty() {
        return Ok(());
    }
    let names = |found: &[(&'static str, &'static str)]| -> String {
        let names: Vec<_> = found.iter().map(|(tool, _)| *tool).collect();
        names.join(", ")
    };
    let how = format!(
        "the tests of the C library need {}: install them, or put them on the PATH",
        names(&found)
    );
    let packages: Vec<_> = found.iter().map(|(_, package)| *package).collect();
    install(&packages, &how)?;
    match &*missing() {
        [] => Ok(()),
        still => Err(format!(
            "{} were installed but not found; {how}",
            names(still)
        )),
    }
}

/// Installs packages as root on Debian or Ubuntu; elsewhere fails with `how` to do it oneself.
pub(crate) fn install(packages: &[&str], how: &str) -> Result<(), String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = release
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="))
        })
        .any(|ids| ids.contains("debian") || ids.contains("ubuntu"));
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !debian || !root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(how.to_owned());
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "-y"]).args(packages)).map_err(|why| format!("{why}; {how}"))
}

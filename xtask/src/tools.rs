//! Finds the programs that chores need, and installs them where that is possible.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::{output, run};

/// What the tests call, and the packages of Debian and Ubuntu that bring it.
/// The sanitizers of C come with the compilers.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("g++", "g++"),
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("python3", "python3"),
    ("readelf", "binutils"),
];

/// The program that a variable names, else the one of that name on the PATH.
pub(crate) fn locate(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    on_path(name)
}

/// Makes sure of what the tests call by name.
pub(crate) fn require() -> Result<(), String> {
    let missing = || TOOLS.iter().filter(|(tool, _)| on_path(tool).is_none());
    let (tools, packages): (Vec<_>, Vec<_>) = missing().copied().unzip();
    if tools.is_empty() {
        return Ok(());
    }
    let tools = tools.join(", ");
    let needed = format!("the tests need {tools}");
    install(&packages, &needed, "put them on the PATH")?;
    match missing().next() {
        None => Ok(()),
        Some((tool, _)) => Err(format!("{tool} was installed but not found on the PATH")),
    }
}

pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Installs packages of Debian and Ubuntu as root. Elsewhere it says what is `missing`, and `how` to get it.
pub(crate) fn install(packages: &[&str], missing: &str, how: &str) -> Result<(), String> {
    let missing = || format!("{missing}; {how}");
    let release = fs::read_to_string("/etc/os-release").map_err(|_| missing())?;
    let debian = release
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="))
        })
        .any(|ids| ids.contains("debian") || ids.contains("ubuntu"));
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !debian || !root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(missing());
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "-y"]).args(packages)).map_err(|why| format!("{why}; {how}"))
}

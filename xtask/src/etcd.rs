//! Finds the etcd that tests run against, and installs it where that is possible.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{run::output, tools};

/// The oldest etcd that can be tested against, and why.
const OLDEST: (u32, u32) = (3, 4);
const WHY: &str =
    "the tests need learners, watch fragments and progress requests, which came with 3.4";

const HOW: &str = "\
put etcd and etcdctl 3.4 or newer on the PATH, or set ETCD_BIN and ETCDCTL_BIN to them; they come \
from the packages etcd-server and etcd-client of Debian and Ubuntu, or from \
https://github.com/etcd-io/etcd/releases";

/// An etcd to test against.
pub(crate) struct Etcd {
    pub(crate) server: PathBuf,
    pub(crate) ctl: PathBuf,
}

/// Prints where etcd is.
pub(crate) fn print() -> Result<(), String> {
    let etcd = Etcd::find()?;
    println!("ETCD_BIN={}", etcd.server.display());
    println!("ETCDCTL_BIN={}", etcd.ctl.display());
    Ok(())
}

impl Etcd {
    /// Finds etcd and etcdctl by environment or PATH, else installs them as root on Debian or Ubuntu.
    pub(crate) fn find() -> Result<Self, String> {
        let look = || {
            Some((
                locate("ETCD_BIN", "etcd")?,
                locate("ETCDCTL_BIN", "etcdctl")?,
            ))
        };
        let (server, ctl) = match look() {
            Some(found) => found,
            None => {
                install()?;
                look().ok_or_else(|| format!("etcd was installed but not found; {HOW}"))?
            }
        };
        check(&server, &["--version"])?;
        check(&ctl, &["version"])?;
        Ok(Self { server, ctl })
    }
}

/// The program that a variable names, else the one of that name on the PATH.
fn locate(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Installs the packages of Debian and Ubuntu. A server that these start does no harm: every test
/// starts its own, on free ports.
fn install() -> Result<(), String> {
    let how = format!("there is no etcd here; {HOW}");
    tools::install(&["etcd-server", "etcd-client"], &how)
}

/// Refuses a program that is older than [`OLDEST`] or tells no version.
fn check(program: &Path, arguments: &[&str]) -> Result<(), String> {
    // Without this an etcdctl before 3.4 speaks version 2.
    let text = output(
        Command::new(program)
            .args(arguments)
            .env("ETCDCTL_API", "3"),
    )
    .map_err(|why| format!("{}: {why}; {HOW}", program.display()))?;
    let version = version(&text)
        .ok_or_else(|| format!("{} tells no version: {}", program.display(), text.trim()))?;
    if version < OLDEST {
        let ((major, minor), (least_major, least_minor)) = (version, OLDEST);
        return Err(format!(
            "{} is version {major}.{minor}, older than {least_major}.{least_minor}: {WHY}; {HOW}",
            program.display()
        ));
    }
    Ok(())
}

/// The major and minor version in a line such as `etcd Version: 3.4.23`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text
        .lines()
        .find_map(|line| line.split_once("ersion: "))?
        .1
        .trim();
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off_what_etcd_and_etcdctl_print() {
        assert_eq!(
            version("etcd Version: 3.4.23\nGit SHA: Not provided"),
            Some((3, 4))
        );
        assert_eq!(
            version("etcdctl version: 3.5.30\nAPI version: 3.5"),
            Some((3, 5))
        );
        assert_eq!(version("etcd Version: 3.10.0-rc.1"), Some((3, 10)));
        assert_eq!(version("no such thing"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("etcd Version: 3.10.0") > Some(OLDEST));
        assert!(version("etcd Version: 3.3.27") < Some(OLDEST));
    }
}

//! The directory of a server's data, which one server has at a time.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind as IoKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A directory that is this process's. The system gives it back when the process is gone, however
/// that ends. Meanwhile those who clean up old files keep away: they heed the same lock.
#[derive(Debug)]
pub(crate) struct Owned {
    path: PathBuf,
    lock: Flock<File>,
}

/// Why a directory is not had.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another process has it.
    Taken,
    Failed(io::Error),
}

impl Owned {
    /// Takes a directory, which is made if it is not there.
    pub(crate) fn take(directory: &Path) -> Result<Self, Refused> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        match made {
            Err(error) if error.kind() != IoKind::AlreadyExists => {
                return Err(Refused::Failed(error));
            }
            // What is there may be a file.
            _ if !directory.is_dir() => {
                let error = io::Error::new(IoKind::NotADirectory, "it is no directory");
                return Err(Refused::Failed(error));
            }
            _ => {}
        }
        let lock = loop {
            let opened = File::open(directory).map_err(Refused::Failed)?;
            let lock = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, Errno::EWOULDBLOCK)) => return Err(Refused::Taken),
                Err((_, error)) => {
                    let message = format!(
                        "it cannot be locked against other servers ({}); \
                         choose a directory of a local file system",
                        error.desc()
                    );
                    return Err(Refused::Failed(io::Error::other(message)));
                }
            };
            // Who put another one in its place in the meantime lets others lock that.
            if is_at(&lock, directory).map_err(Refused::Failed)? {
                break lock;
            }
        };
        Ok(Self {
            path: directory.to_owned(),
            lock,
        })
    }

    /// Waits until the directory is no longer there, or another one is in its place: another server
    /// could have that.
    pub(crate) async fn displaced(&self) {
        while is_at(&self.lock, &self.path).unwrap_or(true) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Whether an open directory is the one at a path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == IoKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_had_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = Owned::take(&data).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Owned::take(&data), Err(Refused::Taken)));
        drop(first);
        Owned::take(&data).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Owned::take(&file), Err(Refused::Failed(_))));
    }

    #[tokio::test]
    async fn who_removes_the_directory_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let owned = Owned::take(&data).unwrap();
        fs::remove_dir_all(&data).unwrap();
        let _other = Owned::take(&data).unwrap();
        owned.displaced().await;
    }
}

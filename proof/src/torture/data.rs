//! A directory for the members' data, which is gone when this process is.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::statvfs::statvfs;

/// What a process that removes a directory is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    directory: PathBuf,
}

/// Waits until the input ends, as it does when whoever started this dies, and removes the directory.
pub(crate) fn tidy(options: &Options) -> Result<(), String> {
    let _ = io::stdin().read(&mut [0]);
    // Those who write there die now, too; until then it may not be empty for long.
    for _ in 0..50 {
        if fs::remove_dir_all(&options.directory).is_ok() || !options.directory.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{} is still there", options.directory.display()))
}

/// A directory in memory if there is room, so that no disk is slow but by a fault. It is removed when
/// this is dropped, and when this process dies in whatever way.
pub(crate) struct Data {
    path: PathBuf,
    tidy: Child,
}

impl Data {
    pub(crate) fn new() -> Result<Self, String> {
        let told = |error: io::Error| format!("a directory for data: {error}");
        let mut builder = tempfile::Builder::new();
        builder.prefix("torture-data-");
        let memory = Some(Path::new("/dev/shm")).filter(|memory| has_room(memory));
        let path = memory
            .and_then(|memory| builder.tempdir_in(memory).ok())
            .map_or_else(|| builder.tempdir(), Ok)
            .map_err(told)?
            .keep();
        let tidy = Command::new(env::current_exe().map_err(told)?)
            .arg("tidy")
            .arg(&path)
            .stdin(Stdio::piped())
            // Else who interrupts this from a terminal interrupts that as well.
            .process_group(0)
            .spawn()
            .map_err(told)?;
        Ok(Self { path, tidy })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a file system has room for the logs and databases of all members.
fn has_room(path: &Path) -> bool {
    const ENOUGH: u64 = 2 << 30;
    let room = statvfs(path).map(|room| room.blocks_available() * room.fragment_size());
    room.is_ok_and(|room| room >= ENOUGH)
}

impl Drop for Data {
    fn drop(&mut self) {
        drop(self.tidy.stdin.take());
        let _ = self.tidy.wait();
    }
}

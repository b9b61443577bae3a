//! The file that is rendered to, and its replacement as a whole.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// A file to be written.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    mode: Option<u32>,
}

impl Destination {
    /// # Errors
    ///
    /// There is no directory for it, or something is there that is no regular file.
    pub(super) fn new(path: PathBuf, mode: Option<u32>) -> io::Result<Self> {
        let place = directory(&path);
        // To replace a device would be a disaster.
        let is_file = match fs::metadata(&path) {
            Ok(metadata) => metadata.is_file(),
            Err(error) if error.kind() == ErrorKind::NotFound => path.file_name().is_some(),
            Err(error) => return Err(named(&path)(error)),
        };
        if !is_file || !fs::metadata(place).map_err(named(place))?.is_dir() {
            let error = io::Error::other("it is no regular file");
            return Err(named(&path)(error));
        }
        Ok(Self { path, mode })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; `None` if there is no such file.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&self.path)(error)),
        }
    }

    /// Whether it has this content, and the mode that was asked for.
    pub(super) fn is(&self, content: &[u8]) -> io::Result<bool> {
        if self.read()?.as_deref() != Some(content) {
            return Ok(false);
        }
        let mode = fs::metadata(&self.path).map_err(named(&self.path))?.mode();
        Ok(self.mode.is_none_or(|wanted| wanted == mode & ALL_BITS))
    }

    /// Writes what is to replace it beside it, safe on the disk, with the mode and the owner of the file
    /// that is there.
    pub(super) fn stage(&self, content: &[u8]) -> io::Result<Staged> {
        // Where a link leads there is the file; the link stays.
        let path = match fs::canonicalize(&self.path) {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => self.path.clone(),
            Err(error) => return Err(named(&self.path)(error)),
        };
        self.write(&path, content)
            .map(|file| Staged {
                file,
                path: path.clone(),
            })
            .map_err(named(&path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
        let before = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mode = self
            .mode
            .or_else(|| Some(before.as_ref()?.mode() & ALL_BITS));
        // Nobody else may read it before it has its mode; without one the umask says it.
        let first = mode.map_or(0o666, |_| 0o600);
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".");
        let mut file = Builder::new()
            .prefix(&name)
            .permissions(Permissions::from_mode(first))
            .tempfile_in(directory(path))?;
        file.write_all(content)?;
        if let Some(before) = before {
            let own = file.as_file().metadata()?;
            let (uid, gid) = (before.uid(), before.gid());
            if (own.uid(), own.gid()) != (uid, gid) {
                let error = |error: io::Error| {
                    let message = format!("its owner {uid}:{gid} cannot be kept: {error}");
                    io::Error::new(error.kind(), message)
                };
                fchown(file.as_file(), Some(uid), Some(gid)).map_err(error)?;
            }
        }
        if let Some(mode) = mode {
            let permissions = Permissions::from_mode(mode);
            file.as_file().set_permissions(permissions)?;
        }
        file.as_file().sync_all()?;
        Ok(file)
    }
}

/// A file that is complete, and not in its place yet. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Where it is until it is put in its place.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts it in its place. Whoever opens that finds the old file or this one, whole.
    pub(super) fn replace(self) -> io::Result<()> {
        let Self { file, path } = self;
        let replaced = file.persist(&path).map_err(|error| error.error);
        replaced.map_err(named(&path))?;
        // Best effort: after a crash of the machine the old file may be back, and is rendered again.
        let _ = File::open(directory(&path)).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Puts the path before the message of an error.
fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The bits of a mode that can be set.
const ALL_BITS: u32 = 0o7777;

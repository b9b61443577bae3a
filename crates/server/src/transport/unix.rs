//! Unix sockets, which only their owner may use.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

/// Reading and writing for the owner, and nothing for others.
const MODE: u32 = 0o600;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long a server may take to let somebody connect before it counts as alive all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often, and how much apart, the lock of the directory is asked for while another server starts.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// A Unix socket that is listened on. Its file goes with it.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and the number of the file, which tell it from one that has replaced it.
    file: (u64, u64),
}

impl UnixSocket {
    /// Takes the place of a dead server's socket, and of no other file.
    pub(crate) async fn open(path: PathBuf) -> io::Result<Self> {
        // From the look at what is there to the end of its replacement no other server that starts
        // may do the same, or it would take the new socket for a dead one.
        let _lock = lock_directory(&path).await?;
        let listener = match listen(&path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_dead(&path).await?;
                listen(&path)?
            }
            listener => listener.map_err(|error| explain(error, &path))?,
        };
        let file = identity(&path)?;
        Ok(Self {
            listener,
            path,
            file,
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the file, unless somebody has put another one in its place. It is still listened on, so
/// that no server that starts takes it for a dead one at the same time.
impl Drop for UnixSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a socket that others cannot use at any instant: on Linux a socket hands its mode on to its
/// file, and elsewhere nobody is let in before it is listened on.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = tokio::net::UnixSocket::new_stream()?;
    let handle = File::from(socket.as_fd().try_clone_to_owned()?);
    let _ = handle.set_permissions(Permissions::from_mode(MODE));
    socket.bind(path)?;
    let listening = fs::set_permissions(path, Permissions::from_mode(MODE));
    let listening = listening.and_then(|()| socket.listen(BACKLOG));
    listening.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Removes a socket that nobody listens on.
async fn remove_dead(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    if !is_socket {
        let reason = "there is a file that is no socket, and it is left alone; name another path";
        return Err(io::Error::new(ErrorKind::AlreadyExists, reason));
    }
    match timeout(PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => {
            let reason = "another server listens there; stop it, or name another path";
            Err(io::Error::new(ErrorKind::AddrInUse, reason))
        }
    }
}

/// Locks the directory of a socket against other servers that start. One that cannot be locked, as
/// on some network file systems, is used without.
async fn lock_directory(path: &Path) -> io::Result<Option<Flock<File>>> {
    let Some(mut directory) = path.parent().and_then(|parent| File::open(parent).ok()) else {
        return Ok(None);
    };
    for _ in 0..TRIES {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((file, nix::Error::EWOULDBLOCK)) => directory = file,
            Err(_) => return Ok(None),
        }
        sleep(PAUSE).await;
    }
    let reason = "another process keeps the directory locked; name a path in another directory";
    Err(io::Error::new(ErrorKind::WouldBlock, reason))
}

/// The file at a path, whatever its name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// What the system's words leave to be guessed.
fn explain(error: io::Error, path: &Path) -> io::Error {
    let reason = match error.kind() {
        ErrorKind::InvalidInput => {
            let bytes = path.as_os_str().len();
            format!("a path of {bytes} bytes is too long for a Unix socket; name a shorter one")
        }
        ErrorKind::NotFound => "its directory does not exist".to_owned(),
        ErrorKind::NotADirectory => "what should be its directory is a file".to_owned(),
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

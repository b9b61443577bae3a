//! `local:NAME`: a server of this user on this machine, which its first client starts.
//!
//! It lives in `/var/tmp/quorate-UID/NAME`, with its `socket`, its `data` and a `log`. That depends on nothing but
//! user and name, so that any two programs of the user meet; and it outlives the machine's restarts, so
//! that revisions, and with them fences, never go back. The server holds a lock from before it
//! touches socket or data until its process is gone: there are never two.

use std::{
    env, fs,
    io::{self, ErrorKind as IoKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::geteuid;
use tokio::time::{Instant, sleep};

use super::{
    classify::{Failure, Remedy},
    starter::{Started, Starter},
};
use crate::{Error, ErrorKind, Result};

/// A server that is started when it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    name: String,
    /// That of all the user's servers.
    parent: PathBuf,
    /// That of this server.
    directory: PathBuf,
}

impl Local {
    /// The server of a `local:NAME`; None if the endpoint is of another kind.
    pub(crate) fn of(endpoint: &str) -> Option<Result<Self>> {
        let name = endpoint.strip_prefix("local:")?;
        Some(Self::named(name).map_err(|reason| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("endpoint {endpoint:?}: {reason}"),
            )
        }))
    }

    /// The server of a name, or what is wrong with the name; an empty one is `default`.
    pub(crate) fn named(name: &str) -> Result<Self, &'static str> {
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if name.len() > LONGEST_NAME {
            return Err("a name after local: has at most 64 characters");
        }
        if name.starts_with('.') || !name.bytes().all(is_usual) {
            return Err(
                "a name after local: is made of letters, digits, dots, hyphens and underscores, \
                 and begins with no dot",
            );
        }
        let name = if name.is_empty() { "default" } else { name };
        // The user as files know it, and never the environment, which differs from shell to shell.
        let parent = PathBuf::from(format!("/var/tmp/quorate-{}", geteuid()));
        Ok(Self {
            name: name.to_owned(),
            directory: parent.join(name),
            parent,
        })
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Connects by `attempt`, and starts a server as long as nobody listens. It ends by itself only
    /// when it is certain that no server will come.
    ///
    /// The server that is found may be on its way out, and one that is started may find that another
    /// is. So this goes on until there is one that answers.
    pub(super) async fn connect<T, F>(
        &self,
        attempt: impl Fn() -> F,
        last: &mut Option<Failure>,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pause = PAUSE_FIRST;
        let mut next_start = Instant::now();
        loop {
            // A socket in another's directory could be another's.
            if self.is_there()? {
                match attempt().await {
                    Err(failure) if failure.is_of_connection => *last = Some(failure),
                    answered => return answered,
                }
            }
            let begun = Instant::now();
            if begun >= next_start {
                let started = self.start().await?;
                // Another that has begun needs about as long as it took us to find out.
                next_start = Instant::now() + pause + begun.elapsed();
                pause = (pause * 2).min(PAUSE_LONGEST);
                if started == Started::Now {
                    continue;
                }
            }
            sleep(LOOK_INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn start(&self) -> Result<Started, Failure> {
        for directory in [&self.parent, &self.directory] {
            make(directory)?;
        }
        let listen = format!("unix:{}", self.socket().display());
        let [data, log] = ["data", "log"].map(|name| self.directory.join(name));
        let arguments = [
            "dev".as_ref(),
            "--detach".as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--data-dir".as_ref(),
            data.as_ref(),
            "--exit-when-idle".as_ref(),
            "10s".as_ref(),
            "--log".as_ref(),
            log.as_ref(),
        ];
        let program = program();
        let unavailable = |message: String| {
            let message = format!("local:{}: {message}", self.name);
            Failure::new(ErrorKind::Unavailable, message, Remedy::None)
        };
        let starter = Starter::spawn(&program, &arguments).map_err(|error| {
            unavailable(match error.kind() {
                IoKind::NotFound => format!(
                    "there is no program {} to start its server with: install the package \
                     quorate-cli, or name the program in QUORATE_BIN",
                    program.display()
                ),
                _ => format!("cannot run {}: {error}", program.display()),
            })
        })?;
        starter.done().await.map_err(|reason| {
            unavailable(match reason.as_str() {
                "" => "its server did not start, and told nothing".to_owned(),
                _ => format!("its server did not start: {reason}"),
            })
        })
    }

    /// Whether the directory is there. One that another could write to, or has made, is refused.
    fn is_there(&self) -> Result<bool, Failure> {
        Ok(is_ours(&self.parent)? && is_ours(&self.directory)?)
    }
}

/// Makes a directory for this user alone, unless there is one.
fn make(directory: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    match made {
        Err(error) if error.kind() != IoKind::AlreadyExists => Err(unusable(directory, &error)),
        _ => is_ours(directory).map(drop),
    }
}

/// Whether there is such a directory of this user's, and of nobody else's.
fn is_ours(directory: &Path) -> Result<bool, Failure> {
    let found = match fs::symlink_metadata(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == IoKind::NotFound => return Ok(false),
        Err(error) => return Err(unusable(directory, &error)),
    };
    let mode = found.mode() & 0o7777;
    let reason = if found.is_symlink() {
        "it is a symbolic link: remove it".to_owned()
    } else if !found.is_dir() {
        "it is no directory: remove it".to_owned()
    } else if found.uid() != geteuid().as_raw() {
        format!(
            "it belongs to user {}, and not to user {}",
            found.uid(),
            geteuid()
        )
    } else if mode & 0o077 != 0 {
        format!("its mode {mode:03o} lets others in: set it to 700")
    } else {
        return Ok(true);
    };
    let message = format!("{} is not used: {reason}", directory.display());
    Err(Failure::new(
        ErrorKind::PermissionDenied,
        message,
        Remedy::None,
    ))
}

fn unusable(directory: &Path, error: &io::Error) -> Failure {
    let message = format!("{}: {error}", directory.display());
    Failure::new(ErrorKind::Unavailable, message, Remedy::None)
}

/// The program that serves: the one that was named, this one, or the one on the path.
fn program() -> PathBuf {
    if let Some(named) = env::var_os("QUORATE_BIN").filter(|named| !named.is_empty()) {
        return named.into();
    }
    let own = env::current_exe().ok();
    let own = own.filter(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // So Linux calls a program whose file was replaced.
        name.strip_suffix(b" (deleted)").unwrap_or(name) == b"quorate"
    });
    match own {
        // The link leads to this very program, whatever has become of its file.
        Some(_) if cfg!(target_os = "linux") => "/proc/self/exe".into(),
        Some(own) => own,
        None => "quorate".into(),
    }
}

/// The longest name that leaves a socket's path short enough.
const LONGEST_NAME: usize = 64;

/// How often to look for a server that another starts.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The pause after a start, before another: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "a\0",
            "\u{e9}",
            &*"a".repeat(65),
        ] {
            assert!(Local::named(name).is_err(), "{name}");
        }
        let longest = "a".repeat(64);
        let local = Local::named(&longest).expect("it is as long as may be");
        assert!(std::os::unix::net::SocketAddr::from_pathname(local.socket()).is_ok());
        let local = Local::named("").expect("it is the default");
        assert!(local.url().ends_with("/default/socket"), "{}", local.url());
    }

    #[test]
    fn a_directory_that_others_have_a_hand_in_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let refusal = |name: &str| is_ours(&at(name)).expect_err(name).message;
        assert!(!is_ours(&at("absent")).expect("nothing is wrong"));
        make(&at("own")).expect("made");
        make(&at("own")).expect("there");
        assert!(is_ours(&at("own")).expect("nothing is wrong"));
        assert_eq!(
            fs::metadata(at("own")).expect("there").mode() & 0o777,
            0o700
        );
        symlink(at("own"), at("link")).expect("linked");
        assert!(refusal("link").contains("symbolic link"));
        fs::write(at("file"), "").expect("written");
        assert!(refusal("file").contains("no directory"));
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o750)).expect("set");
        assert!(refusal("own").contains("mode 750 lets others in"));
        let message = is_ours(Path::new("/proc/1")).map_err(|failure| failure.message);
        if !geteuid().is_root() {
            assert!(message.is_err_and(|it| it.contains("belongs to user 0")));
        }
    }
}

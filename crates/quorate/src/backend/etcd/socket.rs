//! Endpoints that are sockets of this machine: `unix:///path/to/socket`.

use std::{error::Error as StdError, io};

use super::classify::{causes, root_cause};

/// The path in a URL of a socket, or what is wrong with it; None if the URL is of another kind.
pub(crate) fn path_of(url: &str) -> Option<Result<&str, &'static str>> {
    let rest = url.strip_prefix(SCHEME)?;
    Some(match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => Ok(path),
        Some(_) => Err("a host has no place in it: write unix:/path or unix:///path"),
        None => Ok(rest),
    })
}

/// The one URL of the socket at a path, or why no socket can be there.
pub(crate) fn url_of(path: &str) -> Result<String, &'static str> {
    if path.is_empty() || path.ends_with('/') {
        return Err("it names no socket: write unix:/path/to/socket");
    }
    if path.contains('\0') {
        return Err("a path has no zero byte");
    }
    let absolute = std::path::absolute(path).ok();
    let absolute = absolute.as_deref().and_then(|path| path.to_str());
    let absolute = absolute.ok_or("the current directory cannot be told: write a whole path")?;
    #[cfg(unix)]
    if std::os::unix::net::SocketAddr::from_pathname(absolute).is_err() {
        return Err("its path is longer than those of sockets may be, some hundred bytes");
    }
    Ok(format!("{SCHEME}//{absolute}"))
}

/// Why a connection to a socket failed.
pub(super) fn explained(error: &(dyn StdError + 'static)) -> String {
    let cause = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>());
    let known = match cause.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => "there is no such socket; is its server running?",
        Some(io::ErrorKind::ConnectionRefused) => "nobody listens on the socket",
        Some(io::ErrorKind::PermissionDenied) => {
            "permission denied: the socket, or a directory on the way to it, is another user's"
        }
        Some(io::ErrorKind::WouldBlock) => "too many wait for its server to accept them",
        _ => return root_cause(error),
    };
    known.to_owned()
}

const SCHEME: &str = "unix:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_in_either_form() {
        for (url, path) in [
            ("unix:/run/a", Some(Ok("/run/a"))),
            ("unix:///run/a", Some(Ok("/run/a"))),
            ("unix:a", Some(Ok("a"))),
            ("http://a", None),
        ] {
            assert_eq!(path_of(url), path, "{url}");
        }
        assert!(path_of("unix://host/a").is_some_and(|it| it.is_err()));
    }

    #[test]
    fn a_socket_has_one_url_wherever_it_is_named_from() {
        assert_eq!(url_of("/run/a").as_deref(), Ok("unix:///run/a"));
        let here = std::env::current_dir().expect("there is one");
        let url = format!("unix://{}/a", here.display());
        assert_eq!(url_of("a"), Ok(url));
        assert!(url_of("").is_err());
        assert!(url_of(&"/a".repeat(80)).is_err());
    }
}

//! Where a server listens, and what it says of that.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{self, PathBuf},
};

use axum::http::Uri;
use tokio::net::lookup_host;

use crate::{Error, Result};

/// Addresses that belong to nobody. To look for the way there sends nothing.
const ELSEWHERE: [(IpAddr, IpAddr); 2] = [
    (
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    ),
    (
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ),
];

/// A port, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Understands `host:port`, whose name is looked up, and `unix:path`.
    pub(crate) async fn resolve(text: &str) -> Result<Self> {
        let unusable = |cause| Error::Address {
            address: text.to_owned(),
            cause,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return absolute(path).map(Self::Unix).map_err(unusable);
        }
        let mut found = lookup_host(text).await.map_err(unusable)?;
        let nowhere = || unusable(io::Error::other("the name has no address"));
        found.next().map(Self::Tcp).ok_or_else(nowhere)
    }
}

/// `unix:path` and `unix:///path`. What follows two slashes would be a host.
fn absolute(text: &str) -> io::Result<PathBuf> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let text = match text.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(invalid("a Unix socket has no host: write unix:///path")),
        None => text,
    };
    if text.contains('\0') {
        return Err(invalid("a path has no byte zero"));
    }
    if text.ends_with('/') {
        return Err(invalid("a Unix socket is a file, and this is a directory"));
    }
    path::absolute(text)
}

/// Where a client of this machine reaches a port. One that listens on all addresses is reached by
/// the loopback of its kind.
pub(crate) fn nearby(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Where a client of any machine may reach a port. One that listens on all addresses is given the
/// address by which this machine goes to others, or the loopback if it goes nowhere.
pub(crate) fn from_afar(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ways = ELSEWHERE.iter().filter(|(all, _)| {
        address.is_ipv6() || all.is_ipv4() // who listens on [::] is reached by both kinds
    });
    let outgoing = ways.filter_map(|&(all, elsewhere)| {
        let socket = UdpSocket::bind((all, 0)).ok()?;
        socket.connect((elsewhere, 9)).ok()?;
        Some(SocketAddr::new(
            socket.local_addr().ok()?.ip(),
            address.port(),
        ))
    });
    outgoing
        .into_iter()
        .next()
        .unwrap_or_else(|| nearby(address))
}

/// Whether clients of etcd take it for a client URL of a member.
pub(crate) fn check_url(url: &str) -> Result<()> {
    let refused = |reason| {
        let url = url.to_owned();
        Err(Error::Advertise { url, reason })
    };
    match url.split_once("://") {
        Some(("unix" | "unixs", path)) if !path.is_empty() => Ok(()),
        Some(("http" | "https", _)) => match Uri::try_from(url) {
            Ok(uri) if uri.port().is_none() => refused("it names no port"),
            Ok(uri) if uri.path_and_query().is_some_and(|path| path != "/") => {
                refused("it has a path")
            }
            Ok(_) => Ok(()),
            Err(_) => refused("it is malformed"),
        },
        _ => refused("it begins with none of http://, https://, unix:// and unixs://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_given_with_slashes_or_without() {
        let path = PathBuf::from("/run/store");
        for text in ["/run/store", "///run/store"] {
            assert_eq!(absolute(text).expect("a good path"), path, "{text}");
        }
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(absolute("store").expect("a good path"), here.join("store"));
        for text in ["", "//", "//host/store", "/run/", "/run/a\0b"] {
            assert!(absolute(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whoever_listens_everywhere_names_one_place() {
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7));
        assert_eq!(nearby(all), SocketAddr::from((Ipv4Addr::LOCALHOST, 7)));
        let told = from_afar(all);
        assert!(!told.ip().is_unspecified() && told.port() == 7, "{told}");
        let one = SocketAddr::from((Ipv4Addr::new(10, 1, 2, 3), 7));
        assert_eq!((nearby(one), from_afar(one)), (one, one));
    }

    #[test]
    fn what_is_advertised_is_a_url_of_etcd() {
        for url in [
            "http://store:2379",
            "https://[::1]:1",
            "http://a:1/",
            "unix:///run/store",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "store:2379",
            "http://store",
            "http://a:1/x",
            "ftp://a:1",
            "unix://",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}

//! What connections are accepted from.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

#[cfg(unix)]
use crate::transport::unix::UnixSocket;
use crate::{
    Error, Result,
    transport::address::{Address, from_afar, nearby},
};

/// What bytes come from and go to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open port or Unix socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp {
        listener: TcpListener,
        address: SocketAddr,
    },
    #[cfg(unix)]
    Unix(UnixSocket),
}

impl Listener {
    pub(crate) async fn open(address: Address) -> Result<Self> {
        match address {
            Address::Tcp(address) => {
                let cannot_listen = |cause| Error::Listen {
                    address: address.to_string(),
                    cause,
                };
                let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
                let address = listener.local_addr().map_err(cannot_listen)?;
                Ok(Self::Tcp { listener, address })
            }
            Address::Unix(path) => {
                let address = format!("unix:{}", path.display());
                let cannot_listen = |cause| Error::Listen { address, cause };
                open_unix(path).await.map_err(cannot_listen)
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Tcp { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                // Without it small answers wait for each other; a socket that refuses works all the
                // same.
                let _ = socket.set_nodelay(true);
                Ok(Box::new(socket))
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Box::new(socket.accept().await?)),
        }
    }

    pub(crate) const fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { address, .. } => Some(*address),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// How a client of this machine names it.
    pub(crate) fn url(&self, is_secure: bool) -> String {
        self.url_at(is_secure, nearby)
    }

    /// How any client names it.
    pub(crate) fn advertised(&self, is_secure: bool) -> String {
        self.url_at(is_secure, from_afar)
    }

    fn url_at(&self, is_secure: bool, place: fn(SocketAddr) -> SocketAddr) -> String {
        let (tcp, unix) = match is_secure {
            true => ("https", "unixs"),
            false => ("http", "unix"),
        };
        match self {
            Self::Tcp { address, .. } => format!("{tcp}://{}", place(*address)),
            #[cfg(unix)]
            Self::Unix(socket) => format!("{unix}://{}", socket.path().display()),
        }
    }
}

#[cfg(unix)]
async fn open_unix(path: std::path::PathBuf) -> io::Result<Listener> {
    UnixSocket::open(path).await.map(Listener::Unix)
}

#[cfg(not(unix))]
async fn open_unix(_path: std::path::PathBuf) -> io::Result<Listener> {
    let reason = "this system has no Unix sockets: give a host and a port";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

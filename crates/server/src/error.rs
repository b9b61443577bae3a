//! Why a server does not start.

use std::{io, net::SocketAddr};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Clients cannot use the URL that they would be told.
    #[error("cannot advertise {url:?}: {reason}; give a URL as http://host:2379")]
    Advertise {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The address makes no sense, or its name is unknown.
    #[error(
        "cannot listen on {address:?}: {cause}; give an address as 127.0.0.1:2379 or unix:/path"
    )]
    Address {
        /// What was asked for.
        address: String,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// The port or the Unix socket cannot be had.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where it was to listen.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Other machines could reach the address, which nobody allowed.
    #[error(
        "{address} can be reached by other machines, and the server lets everybody in: \
         listen on 127.0.0.1, or call allow_remote"
    )]
    Remote {
        /// What was asked for.
        address: SocketAddr,
    },
}

/// The result of starting a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

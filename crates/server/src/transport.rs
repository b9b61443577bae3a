//! How bytes come in: socket, TLS, the repair of requests, and what becomes of a connection.
//!
//! - `address`: where the server listens, and what it says of that
//! - `listener`, `unix`: ports and Unix sockets
//! - `connection`: connections, which end with the server
//! - `tls`: how the server proves itself, and who its clients are
//! - `authority`: requests that HTTP/2 in Rust refuses, and Go's does not
//! - `cut`: streams and connections that can be cut
//! - `idle`: when nobody needs the server

pub(crate) mod address;
pub(crate) mod authority;
pub(crate) mod connection;
pub(crate) mod cut;
pub(crate) mod idle;
pub(crate) mod listener;
pub(crate) mod tls;
#[cfg(unix)]
mod unix;

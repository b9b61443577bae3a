//! An etcd v3 endpoint in this process: the embedded store of `quorate`, served over gRPC.
//!
//! What talks to etcd v3 can talk to a [`Server`]: etcdctl, and the clients of every language. It
//! needs no etcd, no directory and no free port, so that a test, a demonstration or a developer's
//! machine has a store at once. Everything is in memory, and gone with the server.
//!
//! ```
//! use quorate::Client;
//! use quorate_server::Server;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start().await?;
//! let client = Client::connect(server.url()).await?;
//! client.put("greeting", "hello").await?;
//! let found = client.get("greeting").await?.expect("it was just put");
//! assert_eq!(found.value, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # What a client can tell from a real etcd
//!
//! - what it can tell of the store itself: see the crate `quorate-engine`
//! - a watch without an end needs the right to read all that it tells; a real etcd is content with
//!   the right to read its first key
//! - all tokens end with the server; and they are etcd's simple ones, which are in no need to be
//!   exchanged when users and roles change
//! - there is one member, and there will be no other; it takes no snapshot
//! - the services Lock and Election answer "unimplemented"
//! - a request for progress is answered even on a stream without watches, and after all that there
//!   was to tell, where etcd 3.5 leaves such a request unanswered
//! - a batch of changes that a client does not want in fragments is parted between revisions
//! - sorts, compares, filters and operations of no known kind are refused; a real etcd passes over
//!   some of them, and ends on others
//! - a stream of watches answers with its headers at once, a real etcd with its first message
//! - the hash of the store is that of what can be read at a revision
//!
//! # Layout
//!
//! - `server`: [`Server`], the entry
//! - `builder`: [`Builder`], how it is to be
//! - `address`: where it listens, and what it says of that
//! - `listener`, `unix`: ports and Unix sockets
//! - `connection`: connections, which end with the server
//! - `authority`: requests that HTTP/2 in Rust refuses, and Go's does not
//! - `idle`: when nobody needs the server
//! - `shared`: the store behind its lock, and the task that expires its leases
//! - `watches`: all watches, and whom a change concerns
//! - `access`: who may do what; every handler names what it needs
//! - `caller`, `token`, `password`: who asks, and how that is proved
//! - `kv`, `lease`, `watch`, `cluster`, `maintenance`, `auth`, `recipes`: one gRPC service each, and
//!   the two that are not served
//! - `convert`: etcd's messages and the store's vocabulary
//! - `error`: why a server does not start
//! - `status`: refusals in etcd's codes and texts
//! - `plain`: what is served beside gRPC

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod access;
mod address;
mod auth;
mod authority;
mod builder;
mod caller;
mod calls;
mod cluster;
mod connection;
mod convert;
mod election;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod health;
mod idle;
mod kv;
mod lease;
mod listener;
mod lock;
mod maintenance;
mod metrics;
mod observer;
mod password;
mod plain;
mod queue;
mod server;
mod shared;
mod status;
mod token;
#[cfg(unix)]
mod unix;
mod wait;
mod watch;
mod watches;

pub use builder::Builder;
pub use error::{Error, Result};
pub use server::Server;

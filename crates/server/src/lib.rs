//! An etcd v3 endpoint in this process: the embedded store of `quorate`, served over gRPC.
//!
//! What talks to etcd v3 can talk to a [`Server`]: etcdctl, and the clients of every language. It
//! needs no etcd, no directory and no free port, so that a test, a demonstration or a developer's
//! machine has a store at once. Everything is in memory, and gone with the server, unless it has a
//! [data directory](Builder::data_dir).
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
//! What has no gRPC asks by JSON, at the paths of etcd's gateway on the same port:
//!
//! ```text
//! $ curl http://127.0.0.1:2379/v3/kv/put -d '{"key": "Z3JlZXRpbmc=", "value": "aGVsbG8="}'
//! {"header":{"cluster_id":"42","member_id":"7","revision":"2","raft_term":"2"}}
//! ```
//!
//! Keys and values are in base64, long numbers are strings, and defaults are left out. Streams are
//! objects in a line each. `/health`, `/livez`, `/readyz`, `/version` and `/metrics` are etcd's, too.
//!
//! # What a client can tell from a real etcd
//!
//! - what it can tell of the store itself: see the crate `quorate-engine`
//! - a watch without an end needs the right to read all that it tells; a real etcd is content with
//!   the right to read its first key
//! - tokens are etcd's simple ones, never JWT, and all of them end with the server
//! - there is one member, and there will be no other; it has no address for peers
//! - a client that gives as the host in TLS what is no name of a host is refused, as etcdctl 3.4 gives
//!   the whole path of a Unix socket
//! - the services Lock and Election tell nobody that he holds or leads whose key is gone, as a lease
//!   that ended while its holder waited; etcd tells so whoever campaigns, and 3.4 whoever locks. They
//!   tell it at once rather than in turn, and leave no lease behind of a wait that was given up
//! - calls that wait by the same lease have one place, which lasts until the last of them goes
//! - a refused observer is told so; in etcd the stream just ends
//! - the gateway reads requests while it answers them, over HTTP/1.1 too; tells what is wrong with
//!   JSON within a stream, where etcd 3.5 ends the stream in silence; and reads no message of more
//!   than 4 MiB of text. Its refusals bear the fields of etcd 3.4 and of 3.5, under the statuses of 3.5
//! - of the metrics there are those that mean something here
//! - a request for progress is answered even on a stream without watches, and after all that there
//!   was to tell, where etcd 3.5 leaves such a request unanswered
//! - a batch of changes that a client does not want in fragments is parted between revisions
//! - sorts, compares, filters and operations of no known kind are refused; a real etcd passes over
//!   some of them, and ends on others
//! - a stream of watches answers with its headers at once, a real etcd with its first message
//!
//! # Layout
//!
//! - `server`: [`Server`], the entry
//! - `builder`: [`Builder`], how it is to be
//! - `transport`: sockets, TLS, connections
//! - `routes`: who answers a request
//! - `services`: the gRPC services
//! - `plain`: what is served beside gRPC: the JSON gateway, health, metrics
//! - `access`: who may do what; every handler names what it needs
//! - `store`: the store, its watches, and what is written down of it
//! - `convert`, `status`: etcd's messages and refusals, and the store's
//! - `control`: what makes the server misbehave, for tests
//! - `error`: why a server does not start

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod access;
mod builder;
mod control;
mod convert;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod plain;
mod routes;
mod server;
mod services;
mod status;
mod store;
mod transport;

pub use builder::Builder;
pub use control::{Control, Replies};
pub use error::{Error, Result};
pub use server::Server;
pub use transport::tls::Tls;

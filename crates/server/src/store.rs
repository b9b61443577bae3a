//! The store that is served: who waits for it, and what is written down of it.
//!
//! - `shared`: the store behind its lock, and the task that expires its leases
//! - `watches`: all watches, and whom a change concerns
//! - `wait`: waiting for changes inside the server
//! - `journal`: what makes writes survive: the queue to the thread that writes, the database
//! - `rows`: what etcd's members and the journal keep in their databases
//! - `snapshot`, `member`, `bolt`: the file that is a snapshot, the tables in it, and their format

mod bolt;
pub(crate) mod journal;
pub(crate) mod member;
mod rows;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod wait;
pub(crate) mod watches;

//! etcdctl can use the server as it uses an etcd: what it prints of one it prints of the other.
//!
//! Each script is run by every etcdctl that there is, on a server and on a real etcd that are both new.
#![allow(unreachable_pub, dead_code, missing_docs)] // the support is shared with other programs
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod keys;
mod leases;
mod mirror;
mod rounds;
mod secure;
#[path = "../support/mod.rs"]
mod support;
mod txns;
mod upkeep;
mod watches;

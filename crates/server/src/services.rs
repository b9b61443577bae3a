//! The gRPC services, one each, and what Lock and Election are made of.
//!
//! - `kv`, `lease`, `watch`, `cluster`, `maintenance`, `auth`, `lock`, `election`
//! - `queue`: who waits for a lock or campaigns, in which order
//! - `observer`: what is told of an election

pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod election;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod maintenance;
mod observer;
pub(crate) mod queue;
pub(crate) mod watch;

//! Who may do what, as etcd decides it.
#![allow(unreachable_pub, dead_code, missing_docs)] // the support is shared with other programs
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod client;
mod etcdctl;
mod ranges;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tokens;

use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

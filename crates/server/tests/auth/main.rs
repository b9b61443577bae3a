//! Who may do what, as etcd decides it.
#![allow(unreachable_pub, dead_code, missing_docs)] // the support is shared with other programs
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[path = "../../../quorate/tests/support/certificates.rs"]
mod certificates;
mod client;
#[path = "../../../quorate/tests/support/etcd.rs"]
mod etcd;
mod etcdctl;
mod ranges;
mod subject;
mod table;
mod tokens;

use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

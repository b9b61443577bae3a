//! Who may do what, as etcd decides it.
#![allow(unreachable_pub, dead_code)] // the support is shared with other programs
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[path = "../../../quorate/tests/support/certificates.rs"]
pub mod certificates;
#[path = "../../../quorate/tests/support/etcd.rs"]
pub mod etcd;
mod subject;
mod table;

use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

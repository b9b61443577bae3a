//! What tests of the server need around them.
#![allow(dead_code)] // each test program uses a part
#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../../quorate/tests/support/certificates.rs"]
pub mod certificates;
#[path = "../../../quorate/tests/support/etcd.rs"]
pub mod etcd;
pub mod etcdctl;
pub mod http;
pub mod normal;
pub mod subject;

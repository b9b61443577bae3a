//! The backend for real etcd clusters.

mod options;

pub use options::{EtcdOptions, Identity, Tls, User};

//! What is fuzzed.

mod authority;
mod connection;
mod hostile;
mod json;
mod requests;

use crate::Target;

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("authority", authority::feed),
    ("connection", connection::feed),
    ("hostile", hostile::feed),
    ("json", json::feed),
    ("requests", requests::feed),
];

//! What is fuzzed.

mod authority;
mod c_api;
mod command_line;
mod connection;
mod documents;
mod hostile;
mod json;
mod keys;
mod requests;
mod url;

use crate::Target;

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("authority", authority::feed),
    ("c_api", c_api::feed),
    ("command_line", command_line::feed),
    ("connection", connection::feed),
    ("documents", documents::feed),
    ("hostile", hostile::feed),
    ("json", json::feed),
    ("keys", keys::feed),
    ("requests", requests::feed),
    ("url", url::feed),
];

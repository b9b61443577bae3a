//! The verbs, one a file.

mod demo;
mod elect;
mod get;
mod lock;
mod locks;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::Client;

use crate::{args::Verb, failure::Failure, guardian, output::Output};

/// Runs a verb, and returns its exit status.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    verb: Verb,
) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Demo => demo::run(client, out).await,
        Verb::Elect(args) => elect::run(client, out, args).await,
        Verb::Get(args) => get::run(client, out, args).await,
        Verb::Lock(args) => lock::run(client, out, args).await,
        Verb::Locks(args) => locks::run(client, out, args).await,
        Verb::Guardian => Ok(guardian::run()),
    }
}

/// What was typed as bytes, for a key or a value.
fn typed(text: OsString) -> Vec<u8> {
    text.into_vec()
}

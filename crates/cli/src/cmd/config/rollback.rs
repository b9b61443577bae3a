//! `config rollback`: write a former version of a key again.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, Key, Revision};

use super::print_written;
use crate::{args, failure::Failure, output::Output};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::RollBack,
) -> Result<ExitCode, Failure> {
    let key = Key::from(args.name.into_vec());
    let written = client
        .config_rollback(&key, Revision(args.revision))
        .await?;
    print_written(out, &key, written)?;
    Ok(ExitCode::SUCCESS)
}

//! `config get`: print a document.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, Revision};

use super::print;
use crate::{
    args,
    failure::{Failure, NO},
    output::Output,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::GetDocument,
) -> Result<ExitCode, Failure> {
    let revision = args.rev.map_or(Revision::ZERO, Revision);
    match client.get_at(args.name.into_vec(), revision).await? {
        Some(kv) => {
            print(out, &kv)?;
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::from(NO)),
    }
}

//! `delete`: delete keys.

use std::process::ExitCode;

use quorate::{Client, Delete};
use serde_json::json;

use super::keys;
use crate::{args, failure::Failure, output::Output};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Delete,
) -> Result<ExitCode, Failure> {
    let keys = keys(args.name, args.prefix);
    let done = client.delete_with(Delete::new(keys)).await?;
    out.result(
        &[done.deleted.to_string().as_bytes()],
        || json!({ "deleted": done.deleted, "revision": done.revision.0 }),
    )?;
    Ok(ExitCode::SUCCESS)
}

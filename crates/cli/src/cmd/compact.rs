//! `compact`: drop history.

use std::process::ExitCode;

use quorate::{Client, Revision};
use serde_json::json;

use crate::{args, failure::Failure, output::Output};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: &args::Compact,
) -> Result<ExitCode, Failure> {
    client
        .compact(Revision(args.revision), args.physical)
        .await?;
    out.json_only(|| json!({ "compacted": args.revision }))?;
    Ok(ExitCode::SUCCESS)
}

//! `list`: read many keys.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use futures_util::TryStreamExt;
use quorate::{Client, Range};

use crate::{
    args,
    failure::Failure,
    output::{Output, key_only, key_value},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::List,
) -> Result<ExitCode, Failure> {
    let mut range = Range::prefix(args.prefix.into_vec());
    if args.keys_only {
        range = range.keys_only();
    }
    print_pages(client, out, range).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints keys, all as they stood at one revision, and tells whether there were any.
pub(super) async fn print_pages(
    client: &Client,
    out: &mut Output,
    range: Range,
) -> Result<bool, Failure> {
    let keys_only = range.keys_only;
    let mut pages = client.pages(range);
    let mut found = false;
    while let Some(page) = pages.try_next().await? {
        for kv in &page.kvs {
            found = true;
            if keys_only {
                out.result(&[&kv.key], || key_only(kv))?;
            } else {
                out.result(&[&kv.key, &kv.value], || key_value(kv))?;
            }
        }
    }
    Ok(found)
}

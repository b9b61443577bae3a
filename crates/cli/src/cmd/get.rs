//! `get`: read keys.

use std::process::ExitCode;

use futures_util::TryStreamExt;
use quorate::{Client, KeyRange, Range, Revision};

use super::typed;
use crate::{
    args,
    failure::{Failure, NO},
    output::{Output, key_value},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Get,
) -> Result<ExitCode, Failure> {
    let key = typed(args.key);
    let revision = args.rev.map_or(Revision::ZERO, Revision);
    if !args.prefix {
        let Some(kv) = client.get_at(key, revision).await? else {
            return Ok(ExitCode::from(NO));
        };
        out.result(&[&kv.value], || key_value(&kv))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut pages = client.pages(Range::new(KeyRange::prefix(key)).revision(revision));
    let mut is_empty = true;
    while let Some(page) = pages.try_next().await? {
        for kv in &page.kvs {
            is_empty = false;
            out.result(&[&kv.key, &kv.value], || key_value(kv))?;
        }
    }
    Ok(ExitCode::from(if is_empty { NO } else { 0 }))
}

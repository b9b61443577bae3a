//! `get`: read keys.

use std::process::ExitCode;

use quorate::{Client, Range, Revision};

use super::{keys, list::print_pages};
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
    let range = Range::new(keys(args.name, args.prefix))
        .revision(args.rev.map_or(Revision::ZERO, Revision));
    let found = if args.prefix {
        print_pages(client, out, range).await?
    } else {
        let kvs = client.range(range).await?.kvs;
        for kv in &kvs {
            out.result(&[&kv.value], || key_value(kv))?;
        }
        !kvs.is_empty()
    };
    Ok(ExitCode::from(if found { 0 } else { NO }))
}

//! `config set`: write a document.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, Key, Revision, Swap};

use super::print_written;
use crate::{
    args::{self, DocumentFormat},
    cmd::standard_input,
    failure::{Failure, NO, complain},
    output::Output,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::SetDocument,
) -> Result<ExitCode, Failure> {
    let document = match args.value.as_encoded_bytes() {
        b"-" => standard_input()?,
        _ => args.value.into_vec(),
    };
    let key = Key::from(args.name.into_vec());
    DocumentFormat::of(args.format, &key)
        .check(&document)
        .map_err(|error| error.context(format!("{key} is left as it was")))?;
    let revision = match args.revision {
        None => client.put(&key, document).await?,
        Some(expected) => {
            let expected = Revision(expected);
            match client.put_if_revision(&key, expected, document).await? {
                Swap::Done(revision) => revision,
                Swap::Refused(present) => {
                    complain(&match present {
                        Some(kv) => {
                            format!("not set: {key} was written at revision {}", kv.mod_revision)
                        }
                        None => format!("not set: {key} does not exist"),
                    });
                    return Ok(ExitCode::from(NO));
                }
            }
        }
    };
    print_written(out, &key, revision)?;
    Ok(ExitCode::SUCCESS)
}

//! `config watch`: print a document whenever it changes.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use futures_util::TryStreamExt;
use quorate::{Client, Event, Format, Key, KeyValue, Observed};

use super::print;
use crate::{
    args::{self, DocumentFormat},
    failure::{Failure, complain},
    output::Output,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::FormattedDocument,
) -> Result<ExitCode, Failure> {
    let key = Key::from(args.name.into_vec());
    let format = DocumentFormat::of(args.format, &key);
    // An observer waits for as long as no server answers; a read tells so.
    client.get(&key).await?;
    let mut versions = client.observe(&key);
    while let Some(observed) = versions.try_next().await? {
        match observed {
            Observed::Reset(all) => match all.kvs.first() {
                Some(kv) => show(out, format, kv)?,
                None => complain(&format!("there is no {key}")),
            },
            Observed::Changes(changes) => {
                for event in &changes {
                    match event {
                        Event::Put { kv, .. } => show(out, format, kv)?,
                        Event::Delete { key, revision, .. } => {
                            complain(&format!("{key} was deleted at revision {revision}"));
                        }
                    }
                }
            }
        }
        // A reader should see a change when it happens.
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut Output, format: Format, kv: &KeyValue) -> Result<(), Failure> {
    match format.check(&kv.value) {
        Ok(()) => print(out, kv),
        Err(error) => {
            complain(&format!(
                "{} at revision {}: {error}",
                kv.key, kv.mod_revision
            ));
            Ok(())
        }
    }
}

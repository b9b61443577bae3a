//! `config rollback`: write a former version of a key again.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, ErrorKind, Event, Key, KeyValue, Result, Revision};

use super::print_written;
use crate::{
    args::{self, DocumentFormat},
    failure::Failure,
    output::Output,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::RollBack,
) -> Result<ExitCode, Failure> {
    let key = Key::from(args.name.into_vec());
    let revision = Revision(args.revision);
    // What was then is the same whenever it is read.
    if let Some(then) = version_at(client, &key, revision).await? {
        DocumentFormat::of(args.format, &key)
            .check(&then.value)
            .map_err(|error| error.context(format!("{key} is left as it was")))?;
    }
    let written = client.config_rollback(&key, revision).await?;
    print_written(out, &key, written)?;
    Ok(ExitCode::SUCCESS)
}

/// What would be written; nothing if there is nothing, which the rollback explains.
async fn version_at(client: &Client, key: &Key, revision: Revision) -> Result<Option<KeyValue>> {
    match client.get_at(key, revision).await {
        Err(error) if error.kind() == ErrorKind::Compacted => {}
        found => return found,
    }
    // The revision is compacted away, but not what stood then if nothing was written since.
    let history = client.config_history(key).await?;
    Ok(match history.versions.into_iter().next_back() {
        Some(Event::Put { kv, .. }) if kv.mod_revision <= revision => Some(kv),
        _ => None,
    })
}

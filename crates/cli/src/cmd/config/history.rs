//! `config history`: print the versions of a key.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{Client, Event, Key};
use serde_json::json;

use crate::{
    args,
    failure::{Failure, NO},
    output::{Output, bytes, key_value},
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Document,
) -> Result<ExitCode, Failure> {
    let key = Key::from(args.name.into_vec());
    let history = client.config_history(&key).await?;
    for version in &history.versions {
        print(out, version)?;
    }
    if let Some(oldest) = history.compacted {
        let revision = oldest.to_string();
        out.result(
            &[revision.as_bytes(), b"-", b"compacted"],
            || json!({ "compacted": oldest.0 }),
        )?;
    }
    let code = if history.versions.is_empty() { NO } else { 0 };
    Ok(ExitCode::from(code))
}

fn print(out: &mut Output, version: &Event) -> Result<(), Failure> {
    match version {
        Event::Put { kv, .. } => {
            let [revision, version, size] = [
                kv.mod_revision.to_string(),
                kv.version.to_string(),
                kv.value.len().to_string(),
            ];
            let line = [revision.as_bytes(), version.as_bytes(), size.as_bytes()];
            out.result(&line, || key_value(kv))
        }
        Event::Delete { key, revision, .. } => {
            let at = revision.to_string();
            out.result(
                &[at.as_bytes(), b"-", b"deleted"],
                || json!({ "key": bytes(key), "mod_revision": revision.0, "deleted": true }),
            )
        }
    }
}

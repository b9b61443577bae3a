//! `config`: documents, and configuration for programs that know nothing of the store.

mod debounce;
mod diff;
mod edit;
mod exec;
mod file;
mod followed;
mod functions;
mod get;
mod history;
mod patience;
mod render;
mod rollback;
mod set;
pub(crate) mod template;
pub(crate) mod variables;
pub(crate) mod view;
mod watch;

use std::process::ExitCode;

use quorate::{Client, Key, KeyValue, Revision};
use serde_json::json;

use crate::{
    args::ConfigCommand,
    failure::Failure,
    output::{Output, bytes, key_value},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    command: ConfigCommand,
) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Edit(args) => edit::run(client, out, args).await,
        ConfigCommand::Exec(args) => exec::run(client, args).await,
        ConfigCommand::Get(args) => get::run(client, out, args).await,
        ConfigCommand::History(args) => history::run(client, out, args).await,
        ConfigCommand::Render(args) => render::run(client, out, args).await,
        ConfigCommand::Rollback(args) => rollback::run(client, out, args).await,
        ConfigCommand::Set(args) => set::run(client, out, args).await,
        ConfigCommand::Watch(args) => watch::run(client, out, args).await,
    }
}

/// Prints the document of a key, with one line feed at its end.
fn print(out: &mut Output, kv: &KeyValue) -> Result<(), Failure> {
    let document = kv.value.strip_suffix(b"\n").unwrap_or(&kv.value);
    out.result(&[document], || key_value(kv))
}

/// Prints what was written.
fn print_written(out: &mut Output, key: &Key, revision: Revision) -> Result<(), Failure> {
    out.result(
        &[revision.to_string().as_bytes()],
        || json!({ "key": bytes(key), "revision": revision.0 }),
    )
}

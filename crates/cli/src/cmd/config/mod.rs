//! `config`: configuration for programs that know nothing of the store.

mod debounce;
mod diff;
mod exec;
mod file;
mod followed;
mod functions;
mod patience;
mod render;
mod template;
mod variables;
mod view;

use std::process::ExitCode;

use quorate::Client;

use crate::{args::ConfigCommand, failure::Failure, output::Output};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    command: ConfigCommand,
) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Exec(args) => exec::run(client, args).await,
        ConfigCommand::Render(args) => render::run(client, out, args).await,
    }
}

//! `config exec`: run a command with keys as its environment.

use std::process::ExitCode;

use quorate::Client;

use crate::{
    args,
    failure::{Failure, invalid},
};

pub(super) async fn run(_: &Client, _: args::Exec) -> Result<ExitCode, Failure> {
    Err(invalid("not yet").into())
}

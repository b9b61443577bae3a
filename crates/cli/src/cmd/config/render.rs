//! `config render`: a file from a template over keys.

use std::process::ExitCode;

use quorate::Client;

use crate::{
    args,
    failure::{Failure, invalid},
    output::Output,
};

pub(super) async fn run(_: &Client, _: &mut Output, _: args::Render) -> Result<ExitCode, Failure> {
    Err(invalid("not yet").into())
}

//! stub
use std::path::Path;
#[derive(clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_: &Options) -> Result<(), String> { Ok(()) }
pub(crate) fn directory(_: &Path) -> Result<(), String> { Err("x".into()) }

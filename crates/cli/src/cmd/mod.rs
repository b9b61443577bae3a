//! The verbs, one a file.

mod compact;
pub(crate) mod config;
mod delete;
mod demo;
pub(crate) mod dev;
mod elect;
mod get;
mod health;
mod leader;
mod lease;
mod list;
mod lock;
mod locks;
mod members;
mod observe;
mod register;
mod services;
mod set;
mod status;
pub(crate) mod txn;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    process::ExitCode,
};

use quorate::{Client, KeyRange};

use crate::{
    args::Verb,
    failure::{Failure, invalid},
    guardian,
    output::Output,
};

/// Runs a verb, and returns its exit status.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    verb: Verb,
) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Compact(args) => compact::run(client, out, &args).await,
        Verb::Config(command) => config::run(client, out, command).await,
        Verb::Delete(args) => delete::run(client, out, args).await,
        Verb::Demo => demo::run(client, out).await,
        Verb::Dev(args) => Ok(dev::run(args)),
        Verb::Discover(args) => services::discover(client, out, args).await,
        Verb::Elect(args) => elect::run(client, out, args).await,
        Verb::EtcdTest => {
            Err(invalid("etcd-test is the first word, and its options come after it").into())
        }
        Verb::Get(args) => get::run(client, out, args).await,
        Verb::Health(args) => health::run(client, out, &args).await,
        Verb::Lock(args) => lock::run(client, out, args).await,
        Verb::Locks(args) => locks::run(client, out, args).await,
        Verb::Guardian => Ok(guardian::run()),
        Verb::Leader(args) => leader::run(client, out, args).await,
        Verb::Lease(verb) => lease::run(client, out, verb).await,
        Verb::List(args) => list::run(client, out, args).await,
        Verb::Members => members::run(client, out).await,
        Verb::Observe(args) => observe::run(client, out, args).await,
        Verb::Register(args) => register::run(client, out, args).await,
        Verb::Services => services::list(client, out).await,
        Verb::Set(args) => set::run(client, out, args).await,
        Verb::Status(args) => status::run(client, out, &args).await,
        Verb::Txn => txn::run(client, out).await,
        Verb::Watch(args) => watch::run(client, out, args).await,
    }
}

/// One key, or all that begin with it.
fn keys(name: OsString, prefix: bool) -> KeyRange {
    let name = name.into_vec();
    match prefix {
        true => KeyRange::prefix(name),
        false => KeyRange::key(name),
    }
}

/// Everything that is on standard input.
fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .map_err(Failure::System)?;
    Ok(input)
}

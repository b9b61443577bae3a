//! The verbs that register services and find them.

use std::{ffi::OsString, time::Duration};

use clap::{Args as Group, ValueEnum};
use quorate::duration::parse_duration;

use super::hold::Ttl;
use crate::failure::{invalid, long_help};

#[derive(Group)]
#[command(after_help = STATUSES, after_long_help = long_help(WHILE_REGISTERED, STATUSES))]
pub(crate) struct Register {
    #[command(flatten)]
    pub(crate) service: Service,

    /// The id of the instance, one of its own in the service
    pub(crate) id: String,

    /// Where the instance is reached, such as host:port
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,

    #[command(flatten)]
    pub(crate) ttl: Ttl,

    /// Tell clients this of the instance; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = meta)]
    pub(crate) meta: Vec<(String, String)>,

    /// How much of the load it should get in proportion to others; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) weight: u32,

    /// Register even if the id is taken, such as by a process that has just died
    #[arg(long)]
    pub(crate) take_over: bool,

    /// How long clients have to turn to other instances before CMD is told to end, or the
    /// registration ends [default: 1s with CMD, else 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) drain: Option<Duration>,

    /// The command that serves; without one the instance is registered until interrupted
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Group)]
pub(crate) struct Discover {
    #[command(flatten)]
    pub(crate) service: Service,

    /// Then print every change until interrupted; each line begins with joined, updated or left
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Group)]
pub(crate) struct Service {
    /// The service
    #[arg(value_name = "SERVICE")]
    pub(crate) name: String,

    /// How instances are written in the store
    #[arg(long, value_enum, default_value_t = Layout::Quorate)]
    pub(crate) layout: Layout,
}

/// How instances are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// As etcd's Go client does for gRPC: SERVICE/ID -> {"Op":0,"Addr":...}
    Grpc,
    /// services/SERVICE/ID -> {"address":...}
    Quorate,
    /// SERVICE/ID -> ADDR
    Raw,
}

fn meta(text: &str) -> Result<(String, String), quorate::Error> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| invalid("write it as NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

const WHILE_REGISTERED: &str = "\
The instance is registered once CMD has been started, and until CMD has ended. On SIGTERM or
SIGINT clients are asked to turn to other instances (it drains), and after --drain, or a second
signal, CMD gets the signal. Other signals are passed on at once. If quorate is killed so is
CMD, and the registration ends with its time to live.

A registration that is lost with the store, or deleted, comes back by itself, and CMD runs on
meanwhile. Only if another owner has taken the id is it over: then CMD is asked to end, and
killed 10s later.

Without CMD it prints KEY and TOKEN, with a tab between, once the instance is registered.";

const STATUSES: &str = "\
Exit status: that of CMD, 128 and the signal if one ended it; or
   0  without CMD: interrupted while it was registered
   4  the id is taken (see --take-over); a CMD has been ended
  76  another owner has taken the id; a CMD has been ended
 126  CMD cannot be executed
 127  CMD was not found
and those that quorate --help tells";

//! What can be typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as Group, Parser, Subcommand};
use quorate::duration::parse_duration;

pub(crate) use self::hold::{Elect, Lock, Locks};
use crate::{failure::STATUSES, guardian, output::Format};

mod hold;

#[derive(Parser)]
#[command(
    name = "quorate",
    version,
    about,
    after_help = STATUSES,
    after_long_help = format!("{ENVIRONMENT}\n\n{STATUSES}"),
    disable_help_subcommand = true,
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connect: Connect,

    /// How results are printed; json is one object a line, bytes that are no text as {"base64": ...}
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where the store is, and how to reach it.
#[derive(Default, Group)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connect {
    /// The store: mem:, etcd://host:2379,host:2379/namespace?option=..., or http(s)://...
    #[arg(long, global = true)]
    pub(crate) url: Option<String>,

    /// The servers, such as host:2379,host:2379; 127.0.0.1:2379 if nothing names any
    #[arg(short, long, global = true, value_name = "HOSTS")]
    pub(crate) servers: Vec<String>,

    /// Keep to the keys under NAME/, inside the URL's namespace if it has one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<OsString>,

    /// Trust the authorities of this PEM file; turns TLS on
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,

    /// Present the certificate of this PEM file; turns TLS on, needs --key
    #[arg(long = "cert", global = true, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The PEM file with the private key of --cert
    #[arg(long = "key", global = true, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name in the servers' certificates, if it is not their host; turns TLS on
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    /// Authenticate as this user; with --password all of it is the name
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,

    /// The user's password; others see it in the list of processes, the environment is better
    #[arg(long, global = true)]
    pub(crate) password: Option<String>,

    /// How long a request may take in all [default: 5s, or the URL's]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

const ENVIRONMENT: &str = "\
The first of these that is given names the store:
  --url, -s, QUORATE_URL, ETCD_SERVERS, ETCDCTL_ENDPOINTS

Environment:
  QUORATE_URL                           as --url
  ETCD_SERVERS, ETCDCTL_ENDPOINTS       as --servers
  ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY
                                        as --cacert, --cert, --key, unless the address
                                        is http:// or has TLS options itself
  ETCDCTL_USER, ETCDCTL_PASSWORD        as --user, --password, unless the address has a user

A DURATION is a number with ms, s, m or h, such as 500ms; a number alone is seconds.";

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Show and check what locks and elections promise, on mem: unless --url or -s name a store
    ///
    /// Three participants elect a leader; the leader is cut off and another takes over; the former
    /// leader is refused; eight contenders add to a counter under a lock. Exits with 0 if every step
    /// was observed, else it tells which was not. The keys are under quorate-demo/ and are deleted.
    Demo,
    /// Campaign, and lead while a command runs or until interrupted
    Elect(Elect),
    /// Print the value of a key; nothing, with exit status 1, if there is none
    Get(Get),
    /// Hold a lock while a command runs or until interrupted
    Lock(Lock),
    /// Show who holds locks and leads, and break holds
    #[command(subcommand)]
    Locks(Locks),
    /// Guards the command of another quorate process.
    #[command(name = guardian::SUBCOMMAND, hide = true)]
    Guardian,
}

#[derive(Group)]
pub(crate) struct Get {
    pub(crate) key: OsString,

    /// Print every key that begins with KEY, with its value: KEY<tab>VALUE
    #[arg(long)]
    pub(crate) prefix: bool,

    /// As it stood at this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) rev: Option<i64>,
}

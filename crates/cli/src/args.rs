//! What can be typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as Group, Parser, Subcommand};
use quorate::{LeaseId, duration::parse_duration};

pub(crate) use self::{
    config::{ConfigCommand, Exec, Render},
    dev::Dev,
    discovery::{Discover, Layout, Register, Service},
    document::{Document, DocumentFormat, FormattedDocument, GetDocument, RollBack, SetDocument},
    hold::{Elect, Lock, Locks},
    observe::Observe,
};
use crate::{
    etcd_test,
    failure::{STATUSES, invalid},
    guardian,
    output::Format,
};

mod config;
mod dev;
mod discovery;
mod document;
mod hold;
mod observe;

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
#[derive(Default, Group, PartialEq, Eq)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connect {
    /// The store: etcd://host:2379,host:2379/namespace?option=..., http(s)://..., unix:PATH, mem:, or
    /// local: for a server that is started here when it is needed
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
    /// Drop the history before a revision; what is current stays
    Compact(Compact),
    /// Read and write configuration, and bring it to programs: files from templates, environment variables
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Delete a key, and print how many there were; none is no failure
    Delete(Delete),
    /// Show and check what locks and elections promise, on mem: unless --url or -s name a store
    ///
    /// Three participants elect a leader; the leader is cut off and another takes over; the former
    /// leader is refused; eight contenders add to a counter under a lock. Exits with 0 if every step
    /// was observed, else it tells which was not. The keys are under quorate-demo/ and are deleted.
    Demo,
    /// Serve etcd's protocol on this machine, for development and tests
    Dev(Dev),
    /// Print the instances of a service; exit status 1 if there is none
    ///
    /// ID, ADDRESS, WEIGHT, draining or nothing, and METADATA as JSON, with tabs between.
    Discover(Discover),
    /// Campaign, and lead while a command runs or until interrupted
    Elect(Elect),
    /// Be etcd-test, the program of the C library etcd-api, for scripts that call it; first of all words
    ///
    /// So is a link of that name to this program. Without further words it tells how it is called.
    #[command(name = etcd_test::SUBCOMMAND, disable_help_flag = true)]
    EtcdTest,
    /// Print the value of a key; nothing, with exit status 1, if there is none
    Get(Get),
    /// Print how the members are, and whether the cluster is up; exit status 1 if it is degraded, 9 if down
    #[command(after_help = HEALTH)]
    Health(Health),
    /// Hold a lock while a command runs or until interrupted
    Lock(Lock),
    /// Show who holds locks and leads, and break holds
    #[command(subcommand)]
    Locks(Locks),
    /// Guards the command of another quorate process.
    #[command(name = guardian::SUBCOMMAND, hide = true)]
    Guardian,
    /// Print the member that leads the cluster, or who leads an election; exit status 1 if nobody does
    Leader(Leader),
    /// Grant, keep alive and revoke leases
    #[command(subcommand)]
    Lease(Lease),
    /// Print the keys that begin with PREFIX, or all keys, with their values
    List(List),
    /// Print the members of the cluster
    Members,
    /// Print the keys that begin with PREFIX, then every change of them, for ever
    Observe(Observe),
    /// Register an instance of a service while a command runs or until interrupted
    Register(Register),
    /// Print the services that have instances, each with their number
    Services,
    /// Write a key, and print the revision of the write
    Set(Set),
    /// Print the status of the member that answers
    Status(Status),
    /// Apply several operations at once, on conditions, as standard input says
    #[command(after_help = TXN)]
    Txn,
    /// Print the changes of a key until interrupted
    #[command(after_help = WATCH)]
    Watch(Watch),
}

#[derive(Group)]
pub(crate) struct Compact {
    /// The oldest revision to keep
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) revision: i64,

    /// Return only when the space is free
    #[arg(long)]
    pub(crate) physical: bool,
}

#[derive(Group)]
pub(crate) struct Delete {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// Delete every key that begins with KEY; an empty KEY is every key
    #[arg(long)]
    pub(crate) prefix: bool,
}

#[derive(Group)]
pub(crate) struct Get {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// Print every key that begins with KEY, as KEY<tab>VALUE
    #[arg(long)]
    pub(crate) prefix: bool,

    /// As it stood at this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) rev: Option<i64>,
}

const HEALTH: &str = "\
A line for each member: NAME, ENDPOINT, STATE (leader, follower, learner, unreachable, not asked, or refused
if it tells nothing to this user), VERSION, the size of its database in bytes, and how many raft entries it
has yet to apply. Then a line for the cluster: cluster, HEALTH, LEADER, MEMBERS (learners in parentheses), REASONS.

  up        nothing is wrong
  degraded  it serves, but a member is unreachable, lags, sees no leader, reports an error or is near its
            quota, an endpoint belongs to another cluster, or writes are refused (NOSPACE)
  down      no linearizable read succeeds, or the members' data differ (CORRUPT)

Members that -s or --url do not name are asked where they say that clients reach them.";

#[derive(Group)]
pub(crate) struct Health {
    /// Print the line of the cluster each time that anything but a number changes, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,

    /// How long to pause between looks [default: 5s]
    #[arg(long, requires = "watch", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) interval: Option<Duration>,

    /// The quota of the members' databases, 0 for none [default: what they tell, or else 2 GiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) quota: Option<u64>,

    /// Ask nobody but the servers that -s or --url name
    #[arg(long)]
    pub(crate) endpoints_only: bool,
}

#[derive(Group)]
pub(crate) struct Leader {
    /// The election; without it the cluster's own leader, as NAME<tab>CLIENT-URLS
    pub(crate) name: Option<OsString>,

    /// Print every change of leader, until interrupted; an empty line while nobody leads
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Subcommand)]
pub(crate) enum Lease {
    /// Grant a lease, and print its id
    Grant {
        /// How long it lives, rounded up to seconds; the server may raise it
        #[arg(value_parser = parse_duration)]
        ttl: Duration,
    },
    /// Renew a lease until interrupted, and print its time to live in seconds each time
    KeepAlive {
        /// The lease, in hexadecimal digits
        #[arg(value_parser = lease_id)]
        id: LeaseId,

        /// Renew it once
        #[arg(long)]
        once: bool,
    },
    /// Print the leases that live
    List,
    /// End a lease, and so delete its keys
    Revoke {
        /// The lease, in hexadecimal digits
        #[arg(value_parser = lease_id)]
        id: LeaseId,
    },
    /// Print what is left of a lease, and its keys; exit status 1 if there is none
    Status {
        /// The lease, in hexadecimal digits
        #[arg(value_parser = lease_id)]
        id: LeaseId,
    },
}

#[derive(Group)]
pub(crate) struct List {
    /// How the keys begin
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,

    /// Print no values
    #[arg(long)]
    pub(crate) keys_only: bool,
}

#[derive(Group)]
pub(crate) struct Set {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// The value; - reads all of standard input
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,

    /// Let the key vanish after this time, by a lease of its own
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,

    #[command(flatten)]
    pub(crate) condition: Condition,
}

/// If it does not hold, what is there is told on standard error, and the exit status is 1.
#[derive(Group)]
#[group(multiple = false)]
pub(crate) struct Condition {
    /// Only if the key has this value; else tell what is there and exit with status 1
    #[arg(short = 'p', long, value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) if_value: Option<OsString>,

    /// Only if the key was last written at this revision; 0 if it does not exist
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) if_revision: Option<i64>,

    /// Only if the key does not exist
    #[arg(long)]
    pub(crate) if_absent: bool,
}

#[derive(Group)]
pub(crate) struct Status {
    /// Ask every member; one that does not answer is told on standard error, and in the exit status
    #[arg(long)]
    pub(crate) all: bool,
}

const TXN: &str = "\
Standard input has up to three parts with an empty line between them: the conditions, the operations
if all of them hold, the operations if not. A part may be empty. The exit status is 1 if a condition
did not hold.

  value(\"stock\") > \"0\"
  mod(\"stock\") = 17

  put stock \"sold out\"
  put --lease=694d71ddacfda227 buyer me
  del reserved/ --prefix

  get stock

Conditions compare value, version, create (revision), mod (revision) or lease (hexadecimal) of a key by
= != < or >; value(\"k/\" --prefix) is about every key that begins with k/. Operations are put, get and
del. A word is written as it is, or in double quotes with \\\" \\\\ \\n \\r \\t and \\xHH in them. A line that begins
with # is skipped.";

const WATCH: &str = "--timeout bounds requests, not how long the watch goes on.";

#[derive(Group)]
pub(crate) struct Watch {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// Every key that begins with KEY
    #[arg(long)]
    pub(crate) prefix: bool,

    /// Begin with the changes of this revision, rather than with the next
    #[arg(long, value_name = "REV", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) from: Option<i64>,

    /// Exit after the first change; what a transaction changed is one
    #[arg(long)]
    pub(crate) once: bool,
}

/// A lease as etcd's tools write it.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, quorate::Error> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let id = match digits.starts_with('+') {
        true => None,
        false => i64::from_str_radix(digits, 16).ok(),
    };
    id.and_then(LeaseId::from_wire).ok_or_else(|| {
        invalid("a lease is written in hexadecimal digits, such as 694d71ddacfda227")
    })
}

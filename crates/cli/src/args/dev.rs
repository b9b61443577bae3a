//! The verb that starts a server.

use std::{path::PathBuf, time::Duration};

use clap::Args as Group;
use quorate::duration::parse_duration;

#[derive(Group)]
#[command(after_help = HELP)]
pub(crate) struct Dev {
    /// Where to listen: HOST:PORT, where port 0 is any free one, or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    pub(crate) listen: String,

    /// Let other machines reach it
    #[arg(long)]
    pub(crate) allow_remote: bool,

    /// Speak TLS, with the certificate of this PEM file
    #[arg(long = "tls-cert", value_name = "FILE", requires = "server_key")]
    pub(crate) server_cert: Option<PathBuf>,

    /// The PEM file with the private key of --tls-cert
    #[arg(long = "tls-key", value_name = "FILE", requires = "server_cert")]
    pub(crate) server_key: Option<PathBuf>,

    /// Let in only clients with a certificate of the authorities of this PEM file
    #[arg(long = "tls-client-ca", value_name = "FILE", requires = "server_cert")]
    pub(crate) client_ca: Option<PathBuf>,

    /// The URL that clients are told to reach it by, if it is not the one it listens on
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,

    /// Keep the data in this directory, rather than in memory; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Exit after this time without a connection and without a lease
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) exit_when_idle: Option<Duration>,

    /// Return when it serves, and leave it to itself
    #[arg(long)]
    pub(crate) detach: bool,

    /// With --detach, the file for the messages of the server, in place of what is in it
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// This is the server that --detach leaves to itself.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) detached: bool,
}

const DEFAULT_ADDRESS: &str = "127.0.0.1:2379";

const HELP: &str = "\
Prints its URL on one line of standard output when it serves, and nothing else. SIGTERM and SIGINT
end it, a second one at once.

  quorate dev                              serves where quorate and etcdctl look
  url=$(quorate dev --detach --exit-when-idle 1m --listen 127.0.0.1:0)
                                           one for a script, which need not end it

Options of connections are for clients: this verb takes none of them. local: as the URL of a client
starts a server by itself.

Exit status 75: another server has the data directory.";

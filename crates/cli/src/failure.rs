//! What ends a verb early, and the exit statuses.

use std::{
    io::{self, ErrorKind as IoKind, Write},
    process::ExitCode,
};

use clap::error::ErrorKind as UsageKind;
use quorate::ErrorKind;

/// The exit status of a verb that found nothing, whose condition did not hold, or that found the
/// cluster degraded.
pub(crate) const NO: u8 = 1;

/// The exit status for a hold that was not obtained: it is taken, or did not come in time.
pub(crate) const NOT_OBTAINED: u8 = 75;

/// The exit status for a data directory that another server has. The library relies on it.
pub(crate) const TAKEN: u8 = 75;

/// The exit status for a hold that was lost while it was needed.
pub(crate) const LOST: u8 = 76;

/// The exit status of a command that was ended at the longest hold; `timeout` has the same.
pub(crate) const HELD_TOO_LONG: u8 = 124;

/// The exit status if a file, a port, standard input or standard output fails.
pub(crate) const SYSTEM: u8 = 74;

/// Every exit status, for people; [`ErrorKind::code`] has the numbers of errors.
pub(crate) const STATUSES: &str = "\
Exit status:
   0  it is done
   1  there is no such key, lease or leader; a condition did not hold; or the cluster is degraded
   2  the command line or a request is wrong: correct it
   3  not found: a lease, a user
   4  it exists already
   5  conflict: another writer was first
   6  the revision asked for is compacted away
   7  the hold is lost
   8  no answer came in time; the message tells if a write may have happened
   9  no server can be reached or serve the request; or the cluster is down
  10  user or password are wrong
  11  the user lacks the permission
  12  the client is closed
  13  the cluster is another one than before
  14  the server cannot do this
  15  a bug
  16  what is stored cannot be decoded
  74  standard input, standard output, a file or a port failed";

/// What the command is told, and every exit status: those of the verb, then those of errors.
pub(crate) fn long_help(told: &str, statuses: &str) -> String {
    let errors = STATUSES.lines().skip(1);
    let errors: Vec<_> = errors.filter(|line| !line.starts_with("   0 ")).collect();
    format!("{told}\n\n{statuses}:\n{}", errors.join("\n"))
}

/// What ends a verb early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Standard output.
    Output(io::Error),
    Store(quorate::Error),
    /// Any other thing of this machine.
    System(io::Error),
}

impl Failure {
    /// Tells people, and returns the exit status. `endpoints` are those of the client.
    pub(crate) fn report(&self, endpoints: &[String]) -> ExitCode {
        match self {
            // Who read has read enough.
            Self::Output(error) if error.kind() == IoKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(error) => {
                complain(&format!("standard output: {error}"));
                ExitCode::from(SYSTEM)
            }
            Self::Store(error) => {
                complain(&explained(error, endpoints));
                ExitCode::from(error.kind().code())
            }
            Self::System(error) => {
                complain(&error.to_string());
                ExitCode::from(SYSTEM)
            }
        }
    }
}

impl From<quorate::Error> for Failure {
    fn from(error: quorate::Error) -> Self {
        Self::Store(error)
    }
}

/// An error of the user's making.
pub(crate) fn invalid(message: impl Into<String>) -> quorate::Error {
    quorate::Error::new(ErrorKind::InvalidArgument, message)
}

/// Says one line on standard error.
pub(crate) fn complain(message: &str) {
    let mut line = String::new();
    for c in message.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    // There is nobody left to tell if it fails.
    let _ = writeln!(io::stderr(), "quorate: {line}");
}

/// Tells what is wrong with the command line, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        UsageKind::DisplayHelp
        | UsageKind::DisplayVersion
        | UsageKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody reads it if it fails.
            let _ = error.print();
        }
        _ => complain(&one_line(&error.render().to_string())),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ErrorKind::InvalidArgument.code()))
}

/// The first paragraphs of clap's message, without its marks.
fn one_line(message: &str) -> String {
    let message = message.split("\nUsage: ").next().unwrap_or(message);
    let mut line = String::new();
    for paragraph in message.split("\n\n") {
        let words: Vec<_> = paragraph.split_whitespace().collect();
        let text = words.join(" ");
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let text = text.strip_prefix("tip: ").unwrap_or(text);
        if !text.is_empty() && !text.starts_with("For more information") {
            line.push_str(if line.is_empty() { "" } else { "; " });
            line.push_str(text);
        }
    }
    line.push_str("; see --help");
    line
}

/// The message of an error, with what helps: the servers that were asked, how to come by one, what is
/// left of the history.
fn explained(error: &quorate::Error, endpoints: &[String]) -> String {
    let mut message = error.to_string();
    match error.kind() {
        ErrorKind::Timeout | ErrorKind::Unavailable => {
            if !endpoints.iter().any(|endpoint| message.contains(endpoint)) {
                message.push_str("; asked ");
                message.push_str(&endpoints.join(", "));
            }
            // Who names a socket knows which server is meant.
            if message.contains(NOBODY) && !message.contains("unix://") {
                message.push_str(
                    "; start a server with `quorate dev` (or etcd, of the package etcd or \
                     etcd-server), or write --url local: for one on this machine that needs no start",
                );
            }
        }
        ErrorKind::Compacted => {
            if let Some(oldest) = error.oldest_revision() {
                message.push_str(&format!("; the oldest revision kept is {oldest}"));
            }
        }
        // What servers with users say to nobody.
        ErrorKind::Unauthenticated if message.ends_with("user name is empty") => {
            message.push_str("; the server wants a user: write --user NAME:PASSWORD");
        }
        _ => {}
    }
    message
}

/// What the library says when all members failed.
const NOBODY: &str = "no etcd server answered";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_of_an_error_is_in_the_table() {
        for kind in [
            ErrorKind::AlreadyExists,
            ErrorKind::Closed,
            ErrorKind::ClusterChanged,
            ErrorKind::Compacted,
            ErrorKind::Conflict,
            ErrorKind::Internal,
            ErrorKind::InvalidArgument,
            ErrorKind::Lost,
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::Timeout,
            ErrorKind::Unauthenticated,
            ErrorKind::Unavailable,
            ErrorKind::Unsupported,
        ] {
            assert!(
                STATUSES.contains(&format!("\n  {:2}  ", kind.code())),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_usage_error_becomes_one_line() {
        let message = "error: unexpected argument '--tll' found\n\n  tip: a similar argument exists: \
                       '--ttl'\n\nUsage: quorate set\n\nFor more information, try '--help'.\n";
        let line =
            "unexpected argument '--tll' found; a similar argument exists: '--ttl'; see --help";
        assert_eq!(one_line(message), line);
    }
}

//! The verbs that hold, and those that show who does.

use std::{ffi::OsString, time::Duration};

use clap::{Args as Group, Subcommand};
use quorate::duration::parse_duration;

use crate::failure::long_help;

#[derive(Group)]
#[command(after_help = LOCK_STATUSES, after_long_help = long_help(UNDER_A_LOCK, LOCK_STATUSES))]
pub(crate) struct Lock {
    /// The lock
    pub(crate) name: OsString,

    #[command(flatten)]
    pub(crate) ttl: Ttl,

    /// How long to wait for the lock; requests take 5s at most, or as the URL says
    // The same id as the option of all verbs, which this one has instead.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Do not wait if the lock is taken
    #[arg(long = "try", conflicts_with = "timeout")]
    pub(crate) try_once: bool,

    /// Hold for this long at most: a CMD is ended by then, and the lock released
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_hold: Option<Duration>,

    /// What others are told of who holds [default: the URL's, or the name of the program]
    #[arg(long, value_name = "TEXT")]
    pub(crate) holder: Option<String>,

    /// The command to run while the lock is held; without one it is held until interrupted
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Group)]
#[command(after_help = ELECT_STATUSES, after_long_help = long_help(WHILE_LEADING, ELECT_STATUSES))]
pub(crate) struct Elect {
    /// The election
    pub(crate) name: OsString,

    /// What others are told of this candidate, such as an address [default: HOST:PID]
    #[arg(long)]
    pub(crate) value: Option<OsString>,

    #[command(flatten)]
    pub(crate) ttl: Ttl,

    /// Campaign again when the leadership is lost, rather than exit
    #[arg(long)]
    pub(crate) again: bool,

    /// The command to run while leading; without one the leadership is held until interrupted
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Group)]
pub(crate) struct Ttl {
    /// How long the hold outlives a holder that died, and how long a holder that is cut off may go
    /// on; whole seconds, rounded up [default: 10s, or the URL's]
    ///
    /// What is held survives the loss of etcd's leader only if this is longer than the election of
    /// the next and the retries take. The default does. 3s often does not: with its default timers
    /// etcd needs 1 to 2 seconds to elect, and the hold ends at nine tenths of this time.
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Subcommand)]
pub(crate) enum Locks {
    /// Print every lock and election that is held
    ///
    /// NAME, TOKEN, how many wait, HOLDER, HOST, PID and since when it has stood in the queue, with
    /// tabs between. Of a leader, or a holder that another tool made, HOLDER is the value of its key
    /// and the rest is empty.
    Ls {
        /// Only those whose names begin with this
        #[arg(default_value = "")]
        prefix: OsString,
    },
    /// Print who holds a lock or leads, and who waits, in the order of the queue
    ///
    /// KEY, TOKEN, HOLDER, HOST, PID and since when it has stood in the queue, with tabs between.
    /// Exits with status 1 if nobody does.
    Show {
        /// The lock or the election
        name: OsString,
    },
    /// Break a hold: delete its key
    ///
    /// The next in the queue holds at once. The broken holder goes on until it sees that its key is
    /// gone, within moments if it is connected and by the end of its time to live if it is not; until
    /// then only its token and its fence keep it from harm. A CMD that runs under it is ended.
    Break {
        /// The lock or the election
        name: OsString,

        /// Break the hold only if it has this token
        #[arg(long, value_name = "N")]
        token: Option<i64>,
    },
}

const UNDER_A_LOCK: &str = "\
CMD runs while the lock is held, in a process group of its own. Its environment has
  QUORATE_KEY    the key of the hold, within the namespace
  QUORATE_TOKEN  its fencing token: later holders have higher ones. It is the key's create
                 revision: a transaction on that condition succeeds only during this hold
  ETCD_LOCK_KEY, ETCD_LOCK_REV
                 the same two under the names that etcdctl lock has for them. There
                 ETCD_LOCK_REV is the store's revision when the lock was obtained, which is
                 a later one than the key's if it had to wait; here it is always the token

CMD is asked to end (SIGTERM) when the servers have not answered for so long that less than
a fifth of the time to live is left, 2s at most, and killed before anybody else can hold. A
guardian process does it by its own clock, even if quorate is stopped or killed. If the hold
is broken or its lease revoked, others may hold at once: CMD has half a second to end, or a
fifth of the time to live. What CMD leaves behind in its process group is killed before the
lock is released; what it left behind outside of the group runs on. Signals are passed on to
CMD.

Killed are CMD, every process that descends from it and its process group. On Linux /proc
tells who descends from CMD, so those that moved to another process group or session are
killed too, as timeout, setsid and interactive shells do. Out of reach is a process that
detached itself from CMD entirely, a daemon whose parent has exited, before its parentage
could be seen. Against it only the fence protects.

Without CMD it prints KEY and TOKEN, with a tab between, once the lock is held.";

const WHILE_LEADING: &str = "\
CMD runs while we lead, in a process group of its own, with QUORATE_KEY and QUORATE_TOKEN in
its environment, and is ended in time when the leadership is lost, as under `quorate lock`.
When CMD ends by itself, so does the leadership. --timeout bounds requests, not the campaign.

Without CMD it prints KEY and TOKEN, with a tab between, whenever it leads.";

const LOCK_STATUSES: &str = "\
Exit status: that of CMD, 128 and the signal if one ended it; or
   0  without CMD: interrupted while it held, or --max-hold is over
  75  the lock was not obtained: it is taken (--try), or did not come in time (--timeout)
  76  the hold was lost; a CMD has been ended
 124  CMD was ended at --max-hold
 126  CMD cannot be executed
 127  CMD was not found
 128 and the signal, if one came while it waited
and those that quorate --help tells";

const ELECT_STATUSES: &str = "\
Exit status: that of CMD, 128 and the signal if one ended it; or
   0  without CMD: interrupted while it led
  76  the leadership was lost; a CMD has been ended
 126  CMD cannot be executed
 127  CMD was not found
 128 and the signal, if one came while it campaigned
and those that quorate --help tells";

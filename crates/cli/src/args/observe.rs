//! The verb that follows keys for ever.

use std::ffi::OsString;

use clap::Args as Group;

#[derive(Group)]
#[command(after_help = SHORT, after_long_help = LONG)]
pub(crate) struct Observe {
    /// How the keys begin
    #[arg(value_name = "PREFIX")]
    pub(crate) name: OsString,

    /// Only the key that is PREFIX
    #[arg(long)]
    pub(crate) exact: bool,

    #[command(flatten)]
    pub(crate) start: Start,

    /// Tell of each change what was there before
    #[arg(long)]
    pub(crate) prev: bool,

    /// Of the changes, only what was put
    #[arg(long)]
    pub(crate) puts: bool,

    /// Of the changes, only what was deleted
    #[arg(long, conflicts_with = "puts")]
    pub(crate) deletes: bool,

    /// Exit when the key is deleted; needs --exact
    #[arg(long, requires = "exact")]
    pub(crate) until_deleted: bool,

    /// Rather than print, run this shell command for each event, one at a time
    #[arg(long, value_name = "CMD", conflicts_with = "command")]
    pub(crate) exec: Option<OsString>,

    /// Exit when a CMD fails, with its status, rather than go on
    #[arg(long)]
    pub(crate) stop_on_failure: bool,

    /// As --exec, a program with its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Where to begin, if not with the keys as they are.
#[derive(Group)]
#[group(multiple = false)]
pub(crate) struct Start {
    /// Begin with the changes of this revision, rather than with the keys as they are
    #[arg(long, value_name = "REV", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) from: Option<i64>,

    /// Begin with the next change
    #[arg(long)]
    pub(crate) from_now: bool,

    /// Begin with the oldest change that is kept
    #[arg(long)]
    pub(crate) from_oldest: bool,
}

const SHORT: &str = "--timeout bounds requests, not how long this goes on.";

const LONG: &str = "\
Every change is told once and in order, whatever becomes of connections and servers. The lines are

  reset<tab>REVISION         forget what was told: these are the keys now
  key<tab>KEY<tab>VALUE      one of them
  put<tab>KEY<tab>VALUE      a change; with --prev a tab and the value before, if there was one
  delete<tab>KEY             a change; likewise

It begins with a reset unless a --from option is given. A later one means that changes were lost
for good: compacted away while there was no connection, or undone by a backup. With -o json a
reset is one object with all keys in \"kvs\".

A CMD gets the event as such an object, one line, on its standard input, and in its environment
  QUORATE_EVENT        put, delete or reset
  QUORATE_REVISION     of the change
  QUORATE_KEY, QUORATE_VALUE, QUORATE_PREV_VALUE
                       what there is of it. One with a zero byte, or above 64 KiB, is left out,
                       and the same name with _OMITTED is \"nul\" or \"large\"

One CMD runs at a time; events wait for it, on the server if they are many. If it fails that is
told and the next event follows, unless --stop-on-failure is given. A signal that asks to end is
passed on to CMD, and when that has ended no other is run.

--timeout bounds requests, not how long this goes on.

Exit status: 0 when the key of --until-deleted is gone; 128 and the signal that ended it; with
--stop-on-failure that of CMD; and those that quorate --help tells";

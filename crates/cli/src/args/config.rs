//! The verbs that bring configuration to programs that know nothing of the store.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as Group, Subcommand};
use nix::sys::signal::Signal;
use quorate::duration::parse_duration;

use super::document::{Document, FormattedDocument, GetDocument, RollBack, SetDocument};
use crate::failure::invalid;

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Edit a document in $VISUAL, $EDITOR or vi, and write it if nobody else did meanwhile
    ///
    /// Prints the revision of the write; nothing if the document was not changed. What cannot be
    /// written stays in a file, and a message tells where.
    Edit(FormattedDocument),
    /// Run a command with keys as its environment, and restart it when they change
    #[command(after_help = EXEC)]
    Exec(Exec),
    /// Print a document; nothing, with exit status 1, if there is none
    Get(GetDocument),
    /// Print the versions of a key that are kept, the newest first: REVISION, VERSION, size in bytes
    ///
    /// A deletion has - for its version, and so has the line `compacted` at the end: what was before its
    /// revision is compacted away. With -o json there are the values. Exit status 1 if there is nothing.
    History(Document),
    /// Write a former version of a key again if it is of its format, and print the revision of the write
    Rollback(RollBack),
    /// Write a document if it is one of its format, and print the revision of the write
    Set(SetDocument),
    /// Print a document, and each new version of it; those of another format are told on standard error
    Watch(FormattedDocument),
    /// Write a file from a template, and again whenever a key that it uses changes
    #[command(after_help = RENDER_STATUSES, after_long_help = RENDER)]
    Render(Render),
}

#[derive(Group)]
pub(crate) struct Render {
    /// The template; SIGHUP reads it again
    pub(crate) template: PathBuf,

    /// The file to write; it is replaced as a whole, and keeps its mode and owner
    #[arg(value_name = "DEST")]
    pub(crate) destination: PathBuf,

    /// What every name in key, keys and tree begins with; not those in service
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,

    /// A shell command that judges the new file before it replaces the old; {}, quoted, is its path, as
    /// is $QUORATE_FILE. If it fails the old file stays
    #[arg(long, value_name = "CMD")]
    pub(crate) check: Option<OsString>,

    /// A shell command to run when the file has changed; {} and $QUORATE_FILE as in --check
    #[arg(long, value_name = "CMD")]
    pub(crate) reload: Option<OsString>,

    /// How long --check and --reload may take before they are killed, and so have failed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) cmd_timeout: Duration,

    /// The mode of the file, such as 0640 [default: as it has; of a new one, as the umask says]
    #[arg(long, value_parser = mode)]
    pub(crate) mode: Option<u32>,

    /// Render once and exit, rather than on every change
    #[arg(long)]
    pub(crate) once: bool,

    /// Print how the file would change, write nothing and run no CMD; exit status 1 if it would change
    #[arg(long, conflicts_with = "once")]
    pub(crate) dry_run: bool,

    /// How long the keys must be quiet before they are rendered; ten times this at most
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = parse_duration)]
    pub(crate) debounce: Duration,
}

#[derive(Group)]
pub(crate) struct Exec {
    /// How the keys begin; the rest of each is the name of a variable [default: all keys]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,

    /// Send CMD this signal when the keys change, rather than restart it; its environment stays
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub(crate) signal: Option<Signal>,

    /// How long the keys must be quiet before they count as changed; ten times this at most
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_duration)]
    pub(crate) debounce: Duration,

    /// Wait at random for up to this long more, so that not all machines restart at once
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    pub(crate) splay: Duration,

    /// How long CMD may take to end for a restart before it is killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) kill_after: Duration,

    /// Leave the case of names as it is
    #[arg(long)]
    pub(crate) no_upper: bool,

    /// Give CMD these variables alone, none of quorate's own
    #[arg(long)]
    pub(crate) pristine: bool,

    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

const RENDER: &str = "\
Templates are in the language of Jinja; see https://docs.rs/minijinja. What is undefined is an
error. They have these functions beside the usual ones:

  key(NAME, default=..)    the value of a key; a missing one is an error unless there is a default
  keys(PREFIX)             what begins so, as a list: each has key, name (the rest of it), value
  tree(PREFIX)             the same as maps of maps: of PREFIX + a/b it is tree(PREFIX).a.b
  service(NAME)            the instances at services/NAME/ID as a list: each has id, address,
                           metadata, weight, draining; all but those that drain, or with
                           draining=true these too
  env(NAME, default=..)    a variable of quorate's environment
  json(TEXT), TEXT | json  what a JSON text holds

  {% for api in service(\"api\") %}
  server {{ api.address }} weight={{ api.weight }};
  {% endfor %}

Exactly the keys that a rendering used are followed. All of them are read at one revision: no
part of a transaction is seen without the rest. A line with nothing but {% .. %} on it leaves no
line behind. {% include %} looks beside the template.

DEST is replaced as a whole, after its new content is safe on the disk. Nothing is done if it has
that content already. An error of the template or of --check is told, and DEST stays as it is
until the keys change. A --reload that failed is run again after the next change. Without --once
it waits while no server answers. SIGHUP reads the template again; if it is no good the one before
is kept. INT, QUIT and TERM are passed on to a running CMD, and are the end.

Exit status, of --once and --dry-run:
   0  DEST is as it should be
   1  --check or --reload failed; or --dry-run would change DEST
   2  the template is wrong, or a key that it needs is missing
  74  a file failed
and those that quorate --help tells";

const RENDER_STATUSES: &str = "\
--help tells what templates can ask for, and what --once exits with.";

const EXEC: &str = "\
The name of a variable is the rest of its key in upper case, with _ for each of / - and . in it:
with --prefix cfg/ the key cfg/db/max-conns is DB_MAX_CONNS. What makes no name, or has a zero
byte in its value, is left out, and that is told. If two keys make the same name it ends at the
start with status 2; later it is told, and CMD runs on with what it has until that is mended.

The variables are the keys as they all stood at one revision: no part of a transaction is seen
without the rest. CMD is asked to end with TERM, and killed after --kill-after, before it is
started anew. It is not if no variable has changed. At the start quorate waits while no server
answers; later CMD runs on.

CMD runs in a process group of its own, and what it leaves behind in that is killed when it ends.
Signals are passed on to it. After INT, QUIT or TERM it is not started again. It does not outlive
quorate, whatever ends that.

Exit status: that of CMD when it ends by itself, 128 and the signal if one ended it; or
 126  CMD cannot be executed
 127  CMD was not found
 128 and the signal, if one came before CMD was started
and those that quorate --help tells";

/// The mode of a file, in octal digits.
fn mode(text: &str) -> Result<u32, quorate::Error> {
    let is_octal = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|&mode| is_octal && mode <= 0o7777)
        .ok_or_else(|| invalid("a mode is written in octal digits, such as 0640"))
}

/// A signal by its name, with or without SIG, or its number.
fn signal(text: &str) -> Result<Signal, quorate::Error> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = text
        .parse()
        .ok()
        .and_then(|number: i32| Signal::try_from(number).ok());
    number
        .or_else(|| format!("SIG{name}").parse().ok())
        .ok_or_else(|| invalid("a signal is written as HUP, SIGHUP or 1"))
}

//! The command line of `etcd-test`, the program of the C library etcd-api, for scripts that call it: as
//! a link of that name to this program, or behind its name.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use nix::sys::signal::Signal;
use quorate::{
    Client, Holder, Key, Revision,
    etcd_api::{self, Change, Changes},
};

use self::words::{Verb, Words};
use crate::{
    args::Connect,
    connection,
    hold::{signalled, unless_ended},
    signals::Signals,
};

pub(crate) mod words;

/// The verb by which it is called.
pub(crate) const SUBCOMMAND: &str = "etcd-test";

/// A call of this command line.
pub(crate) struct Call {
    /// The program's name, as it was called.
    program: OsString,
    arguments: Vec<OsString>,
}

/// What ends it without success.
enum Unable {
    /// One of the library's calls failed, by its name.
    Failed(&'static str),
    /// Standard output.
    Output(io::Error),
    /// It was ended by this signal.
    Signalled(Signal),
}

impl Call {
    /// Whether the words of the command line, the first of which is the program, are such a call.
    pub(crate) fn find(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let mut program = words.next()?;
        if Path::new(&program).file_name() != Some(OsStr::new(SUBCOMMAND)) {
            words.next().filter(|word| word == SUBCOMMAND)?;
            program.push(" ");
            program.push(SUBCOMMAND);
        }
        Some(Self {
            program,
            arguments: words.collect(),
        })
    }

    pub(crate) fn run(self) -> ExitCode {
        let posix = std::env::var_os("POSIXLY_CORRECT").is_some();
        let words = match Words::parse(self.arguments.clone(), posix) {
            Ok(words) => words,
            Err(message) => return self.usage(&message),
        };
        let Some(servers) = words
            .servers
            .clone()
            .or_else(|| std::env::var_os("ETCD_SERVERS"))
        else {
            return self.usage("no servers are named");
        };
        if words.operands.is_empty() {
            return self.usage("the command is missing");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else {
            return fail("etcd_open");
        };
        runtime.block_on(async {
            let Some(client) = open(&servers).await else {
                return fail("etcd_open");
            };
            match words.verb() {
                Err(message) => self.usage(&message),
                Ok(verb) => end(perform(&client, verb).await),
            }
        })
    }

    /// Tells what is wrong and how it is called.
    fn usage(&self, message: &str) -> ExitCode {
        let program = self.program.to_string_lossy();
        // Nobody is left to tell if it fails.
        let _ = write!(
            io::stderr(),
            "{program}: {message}\nUsage: {program} [-s SERVERS] COMMAND ...\n{COMMANDS}"
        );
        ExitCode::FAILURE
    }
}

const COMMANDS: &str = "\
Commands:
  get     KEY
  set     [-p PRECOND] [-t TTL] KEY VALUE
  delete  KEY
  watch   [-i INDEX] KEY
  leader
  lock    -t TTL [-i INDEX] KEY
  unlock  -i INDEX KEY
SERVERS are host:port with commas, semicolons or white space between them; the
variable ETCD_SERVERS names them if -s does not. TTL is in seconds. The options
are --index, --precond, --servers and --ttl as well.
";

async fn open(servers: &OsStr) -> Option<Client> {
    let connect = Connect {
        servers: vec![servers.to_str()?.to_owned()],
        ..Connect::default()
    };
    let options = connection::options(&connect, connection::environment).ok()?;
    Client::connect(options).await.ok()
}

fn end(outcome: Result<(), Unable>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Unable::Failed(call)) => fail(call),
        // Who read has read enough.
        Err(Unable::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Unable::Output(_)) => ExitCode::FAILURE,
        Err(Unable::Signalled(signal)) => signalled(signal),
    }
}

fn fail(call: &str) -> ExitCode {
    // Nobody is left to tell if it fails.
    let _ = writeln!(io::stderr(), "{call} failed");
    ExitCode::FAILURE
}

async fn perform(client: &Client, verb: Verb) -> Result<(), Unable> {
    match verb {
        Verb::Delete { key } => {
            let done = etcd_api::delete(client, key.as_bytes()).await;
            done.map_err(|_| Unable::Failed("etcd_delete"))
        }
        Verb::Get { key } => {
            let value = etcd_api::get(client, key.as_bytes()).await;
            let value = value.map_err(|_| Unable::Failed("etcd_get"))?;
            print(&[b"got value: ", &value])
        }
        Verb::Leader => {
            let leader = etcd_api::leader(client).await;
            let leader = leader.map_err(|_| Unable::Failed("etcd_leader"))?;
            print(&[b"leader is ", leader.as_bytes()])
        }
        Verb::Lock { key, ttl, index } => lock(client, &key, ttl, index).await,
        Verb::Set {
            key,
            value,
            precond,
            ttl,
        } => {
            let precond = precond.as_deref().map(OsStr::as_bytes);
            let ttl = (!ttl.is_zero()).then_some(ttl);
            let (key, value) = (key.as_bytes(), value.as_bytes());
            let done = etcd_api::set(client, key, value, precond, ttl).await;
            done.map_err(|_| Unable::Failed("etcd_set"))
        }
        Verb::Unlock { key, index } => {
            let failed = Unable::Failed("etcd_unlock");
            let Some(index) = token(&index) else {
                return Err(failed);
            };
            let done = etcd_api::unlock(client, key.as_bytes(), index).await;
            done.map_err(|_| failed)
        }
        Verb::Watch { key, index } => watch(client, &key, index).await,
    }
}

/// The signals that end it while it waits.
const ENDING: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Acquires or renews. A signal that asks to end while it waits leaves no key behind.
async fn lock(
    client: &Client,
    key: &OsStr,
    ttl: Duration,
    index: Option<OsString>,
) -> Result<(), Unable> {
    let failed = || Unable::Failed("etcd_lock");
    let index = match index {
        Some(index) => Some(token(&index).ok_or_else(failed)?),
        None => None,
    };
    let mut signals = Signals::of(ENDING).map_err(|_| failed())?;
    let key = key.as_bytes();
    let locked = unless_ended(&mut signals, etcd_api::lock(client, key, ttl, index)).await;
    let token = match locked {
        Ok(locked) => locked.map_err(|_| failed())?,
        Err(signal) => {
            let left = until_left(client, key);
            let _ = tokio::time::timeout(Duration::from_secs(1), left).await;
            return Err(Unable::Signalled(signal));
        }
    };
    let told = print(&[b"got back index number ", token.to_string().as_bytes()]);
    if told.is_err() && index.is_none() {
        // Nobody knows by what to release it.
        let _ = etcd_api::unlock(client, key, token).await;
    }
    told
}

/// Waits until no key of this process is in the queue.
async fn until_left(client: &Client, key: &[u8]) {
    let slashes = key.iter().take_while(|byte| **byte == b'/').count();
    let lock = client.lock(Key::from(&key[slashes..]));
    loop {
        let Ok(contenders) = lock.contenders().await else {
            return;
        };
        let is_ours = |value: &[u8]| {
            Holder::from_value(value)
                .is_some_and(|holder| holder.detached && holder.pid == std::process::id())
        };
        if !contenders.iter().any(|contender| is_ours(&contender.value)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Tells every change, for ever.
async fn watch(client: &Client, key: &OsStr, index: Option<Revision>) -> Result<(), Unable> {
    let failed = |_| Unable::Failed("etcd_watch");
    let mut changes = Changes::open(client, key.as_bytes(), index)
        .await
        .map_err(failed)?;
    loop {
        let Change { key, value, index } = changes.next().await.map_err(failed)?;
        print(&[b"index is ", index.to_string().as_bytes()])?;
        match value {
            Some(value) => print(&[b"key ", &key, b" was set to ", &value])?,
            None => print(&[b"key ", &key, b" was deleted"])?,
        }
    }
}

/// The index of a lock.
fn token(index: &OsStr) -> Option<Revision> {
    index.to_str()?.parse().ok().map(Revision)
}

/// Prints a line. A reader should see it at once.
fn print(parts: &[&[u8]]) -> Result<(), Unable> {
    let mut line = parts.concat();
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(Unable::Output)
}

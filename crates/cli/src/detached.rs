//! A server that goes on when who started it is gone.
//!
//! `--detach` starts this program once more, with `--detached`, and waits for its first line. Then it
//! returns, and so leaves the server without a parent: nobody has to wait for it, and no tree of
//! processes that somebody ends has it in it.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::unistd::{close, dup2_stderr, dup2_stdout, setsid};

use crate::{
    cmd::dev::announce,
    failure::{Failure, SYSTEM},
};

/// Starts the server that the command line asks for, and returns when it serves or has failed.
pub(crate) fn start() -> Result<ExitCode, Failure> {
    // The link still leads to the program when its file has been replaced.
    #[cfg(target_os = "linux")]
    let program = "/proc/self/exe";
    #[cfg(not(target_os = "linux"))]
    let program = env::current_exe().map_err(Failure::System)?;
    let arguments = env::args_os().skip(1).map(|argument| {
        if argument == "--detach" {
            "--detached".into()
        } else {
            argument
        }
    });
    let mut server = Command::new(program)
        .arg0("quorate")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::System)?;
    let mut url = String::new();
    let told = server.stdout.take().expect("its stdout is piped");
    BufReader::new(told)
        .read_line(&mut url)
        .map_err(Failure::System)?;
    if !url.is_empty() {
        announce(url.trim_end()).map_err(Failure::Output)?;
        return Ok(ExitCode::SUCCESS);
    }
    // It has complained on the standard error that both share.
    let status = server.wait().map_err(Failure::System)?;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(SYSTEM))),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            let message = format!("the server was ended by signal {signal}");
            Err(Failure::System(io::Error::other(message)))
        }
    }
}

/// A server that has been left to itself.
#[derive(Debug)]
pub(crate) struct Detached(());

impl Detached {
    /// Parts from the terminal, and from what else this process has inherited. It comes before any
    /// file is opened.
    pub(crate) fn enter() -> Self {
        // It fails for who leads a group, and so is apart already.
        let _ = setsid();
        // Somebody may wait for the end of a pipe, or hold a lock on a file, of which it knows nothing.
        for descriptor in descriptors() {
            let _ = close(descriptor);
        }
        Self(())
    }

    /// Tells who waits that the server serves. From then on messages go to the file, if there is one.
    pub(crate) fn ready(self, url: &str, log: Option<&Path>) -> io::Result<()> {
        let nowhere = File::options().write(true).open("/dev/null")?;
        let log = match log {
            Some(path) => File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?,
            None => nowhere.try_clone()?,
        };
        env::set_current_dir("/")?;
        dup2_stderr(log)?;
        announce(url)?;
        dup2_stdout(nowhere)?;
        Ok(())
    }
}

/// The open file descriptors beyond the standard ones.
fn descriptors() -> Vec<i32> {
    let Ok(open) = fs::read_dir("/dev/fd") else {
        return Vec::new();
    };
    let numbers = open.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse().ok()
    });
    numbers.filter(|&number| number > 2).collect()
}

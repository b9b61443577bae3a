//! `dev`: serve etcd's protocol from this process.

use std::{
    future::pending,
    io::{self, ErrorKind as IoKind, Write},
    process::ExitCode,
    time::Duration,
};

use nix::sys::signal::Signal;
use quorate_server::{Builder, Error, Server, Tls};

use crate::{
    args::Dev,
    connection::file,
    detached::{self, Detached},
    failure::{Failure, TAKEN, complain, invalid},
    owned::{Owned, Refused},
    signals::Signals,
};

/// How long calls that are being served may take when the server is asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until it is asked to end. It has a runtime of its own.
pub(crate) fn run(args: Dev) -> ExitCode {
    let done = match args.detach {
        true => detached::start(),
        false => serve(args),
    };
    done.unwrap_or_else(|failure| failure.report(&[]))
}

fn serve(mut args: Dev) -> Result<ExitCode, Failure> {
    let detached = args.detached.then(Detached::enter);
    if let Some(directory) = &mut args.data_dir {
        *directory = std::path::absolute(&*directory).map_err(Failure::System)?;
    }
    // Before anything else in the directory is touched, and until this process is gone.
    let owned = match &args.data_dir {
        Some(directory) => match Owned::take(directory) {
            Ok(owned) => Some(owned),
            Err(Refused::Taken) => {
                let directory = directory.display();
                complain(&format!("another server has the data in {directory}"));
                return Ok(ExitCode::from(TAKEN));
            }
            Err(Refused::Failed(error)) => {
                let message = format!("{}: {error}", directory.display());
                return Err(Failure::System(io::Error::new(error.kind(), message)));
            }
        },
        None => None,
    };
    // One thread: between the look that finds the server idle and its stop nobody connects.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::System)?;
    runtime.block_on(attend(args, detached, owned))
}

/// Starts the server, tells of it, and stops it when it is time.
async fn attend(
    args: Dev,
    detached: Option<Detached>,
    owned: Option<Owned>,
) -> Result<ExitCode, Failure> {
    let mut signals = Ending::new(detached.is_some()).map_err(Failure::System)?;
    let starting = builder(&args)?.start();
    let server = tokio::select! {
        server = starting => match server {
            Err(error @ Error::DataDirInUse { .. }) => {
                complain(&error.to_string());
                return Ok(ExitCode::from(TAKEN));
            }
            server => server.map_err(explained)?,
        },
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let url = typed(server.url());
    match detached {
        Some(detached) => detached
            .ready(&url, args.log.as_deref())
            .map_err(Failure::System)?,
        None => {
            announce(&url).map_err(Failure::Output)?;
            help(&server, &url, &args);
        }
    }
    let idle = async {
        match args.exit_when_idle {
            Some(after) => server.idle(after).await,
            None => pending().await,
        }
    };
    let displaced = async {
        match &owned {
            Some(owned) => owned.displaced().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = idle => {}
        _ = signals.next() => {}
        () = displaced => {
            let directory = args.data_dir.unwrap_or_default();
            let message = format!("the data directory {} was removed", directory.display());
            return Err(Failure::System(io::Error::new(IoKind::NotFound, message)));
        }
    }
    tokio::select! {
        () = server.shutdown(GRACE) => Ok(ExitCode::SUCCESS),
        signal = signals.next() => Ok(ExitCode::from(128 + signal as u8)),
    }
}

fn builder(args: &Dev) -> Result<Builder, Failure> {
    let mut builder = Server::builder().listen(&args.listen);
    if args.allow_remote {
        builder = builder.allow_remote();
    }
    if let Some(url) = &args.advertise {
        builder = builder.advertise(url);
    }
    if let Some(directory) = &args.data_dir {
        builder = builder.data_dir(directory);
    }
    if let (Some(certificate), Some(key)) = (&args.server_cert, &args.server_key) {
        let tls = Tls::from_pem(file(certificate)?, file(key)?).map_err(explained)?;
        builder = builder.tls(match &args.client_ca {
            Some(authorities) => tls.client_ca(file(authorities)?),
            None => tls,
        });
    }
    Ok(builder)
}

/// What the server's refusals mean on the command line.
fn explained(error: Error) -> Failure {
    match error {
        Error::Listen { address, cause }
            if cause.kind() == IoKind::AddrInUse && !address.starts_with("unix:") =>
        {
            let message = format!(
                "{address} is in use: another server listens there; \
                 write --listen 127.0.0.1:0 for a port that is free"
            );
            Failure::System(io::Error::new(IoKind::AddrInUse, message))
        }
        Error::Remote { address } => Failure::Store(invalid(format!(
            "{address} can be reached by other machines, and the server lets everybody in: \
             write --allow-remote if that is meant, or --listen 127.0.0.1:{}",
            address.port()
        ))),
        Error::Address { .. } | Error::Advertise { .. } | Error::Tls { .. } => {
            Failure::Store(invalid(error.to_string()))
        }
        error => Failure::System(io::Error::other(error.to_string())),
    }
}

/// The URL as clients of this library take it: a path may hold what means something in an address.
fn typed(url: &str) -> String {
    let mut typed = String::new();
    for c in url.chars() {
        let is_special = "%?#,;".contains(c) || c.is_whitespace() || c.is_control();
        if url.starts_with("unix:") && is_special {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                typed.push_str(&format!("%{byte:02X}"));
            }
        } else {
            typed.push(c);
        }
    }
    typed
}

/// Prints the one line that scripts wait for. A reader that has gone is no reason to end.
pub(crate) fn announce(url: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{url}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Tells people how to use it, and what becomes of their data.
fn help(server: &Server, url: &str, args: &Dev) {
    complain(&match &args.data_dir {
        Some(directory) => format!("the data is in {}", directory.display()),
        None => {
            "the data is in memory, and gone when this ends; --data-dir DIR keeps it".to_owned()
        }
    });
    let server = server.url();
    complain(&format!(
        "use it with: export QUORATE_URL={url}; or: etcdctl --endpoints {server}"
    ));
}

/// The signals that end the server.
struct Ending(Signals);

impl Ending {
    /// One that is detached outlives the terminal.
    fn new(detached: bool) -> io::Result<Self> {
        let mut signals = vec![Signal::SIGINT, Signal::SIGTERM];
        if detached {
            signals.push(Signal::SIGHUP);
        }
        Signals::of(&signals).map(Self)
    }

    async fn next(&mut self) -> Signal {
        loop {
            match self.0.next().await {
                Signal::SIGHUP => {}
                signal => return signal,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_printed_as_it_can_be_typed() {
        let url = "http://127.0.0.1:2379";
        assert_eq!(typed(url), url);
        assert_eq!(typed("unix:///run/a"), "unix:///run/a");
        assert_eq!(typed("unix:///a b%?"), "unix:///a%20b%25%3F");
    }
}

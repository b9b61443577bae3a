//! Clients.

use std::mem::MaybeUninit;

use quorate::{Client, ConnectOptions};

use crate::{
    bytes::quorate_bytes,
    cancel::quorate_cancel,
    error::{Failure, QUORATE_FORKED, guarded, infallible, quorate_code, quorate_error},
    handle::{self, Kind},
    output::required,
    process::Process,
    wait::Limit,
};

/// A connection to a store, and the way to every recipe.
///
/// To free the last handle of a client, and of all that was made from it, revokes the lease that its
/// recipes share, in the background; quorate_client_close does so and waits.
pub struct quorate_client {
    pub(crate) client: Client,
}

impl Kind for quorate_client {
    const NAME: &'static str = "quorate_client";
}

/// Opens a client by its URL:
///
/// - `mem:` is a store in this process for this client alone, `mem:NAME` one for all that name it
/// - `etcd://h1:2379,h2:2379/NAMESPACE?OPTIONS` is a cluster; so is `h1:2379, h2:2379`
/// - `unix:PATH` is a server at a Unix socket; `local:` or `local:NAME` one of this user on this machine,
///   which the first client starts: a process that runs the program `quorate`
/// - `https://...`, or one of the options `tls=system`, `ca=FILE`, `cert=FILE` with `key=FILE` and
///   `server_name=NAME`, turns TLS on
/// - other options are `timeout` (of a call, 5s), `ttl` (of sessions, 10s), `user` and `password`,
///   `holder` (the name by which it holds locks), `attempt_timeout`, `connect_timeout`,
///   `keepalive_interval` and `keepalive_timeout`
///
/// It does not block, and does not fail while the cluster is down: it connects when it is first used.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_client_open(
    url: quorate_bytes,
    client: Option<&mut MaybeUninit<*mut quorate_client>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(client, "client")?;
        let client = connect(url.text("url")?)?;
        *out = handle::open(quorate_client { client });
        Ok(())
    })
}

/// Connects to what a URL names.
pub(crate) fn connect(url: &str) -> Result<Client, Failure> {
    let process = Process::current();
    if process.is_forked() && is_named_memory(url) {
        let message = "a store in memory with a name may be the parent's: use `mem:` here";
        return Err(Failure::new(QUORATE_FORKED, message));
    }
    let options = ConnectOptions::parse(url)?;
    Ok(process.runtime()?.block_on(Client::connect(options))?)
}

/// Whether a URL names a store in memory that others may share.
fn is_named_memory(url: &str) -> bool {
    let place = url.trim().split('?').next().unwrap_or_default();
    let name = place.split_at_checked("mem:".len());
    name.is_some_and(|(scheme, name)| scheme.eq_ignore_ascii_case("mem:") && !name.is_empty())
}

/// Makes a client of the same store and session whose keys all lie under `namespace` and a slash.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_client_namespace(
    client: *const quorate_client,
    namespace: quorate_bytes,
    inner: Option<&mut MaybeUninit<*mut quorate_client>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(inner, "inner")?;
        let namespace = namespace.key("namespace")?;
        let client = handle::used(client)?.client.namespace(namespace);
        *out = handle::open(quorate_client { client });
        Ok(())
    })
}

/// Ends the session that the client's recipes share, and so everything that they hold, and waits until
/// its lease is revoked. Sessions of their own, as of locks with a ttl, are not ended.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_client_close(
    client: *mut quorate_client,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(client)?;
        Limit::of_end(timeout_ms, cancel)?.run(&used.freed, used.client.close())
    })
}

/// Frees a client; NULL is accepted. What was made from it goes on.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_client_free(client: *mut quorate_client) {
    infallible((), || {
        handle::free(client);
        Ok(())
    });
}

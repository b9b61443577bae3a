//! Where a client connects to, and how: the grammar of URLs, and [`ConnectOptions`].
//!
//! # Addresses
//!
//! | address | store |
//! | --- | --- |
//! | `mem:` | in memory, for this client and its clones alone |
//! | `mem:NAME` | in memory, shared by all clients of this process that name it |
//! | `etcd://h1:2379,h2:2379/NAMESPACE?OPTIONS` | the etcd cluster with these members |
//! | `http://...`, `https://...` | the same, without and with TLS |
//! | `h1:2379, h2:2379` | the same as with `etcd://` before it |
//! | `unix:PATH`, `unix:///PATH` | the etcd server that listens on this Unix socket |
//! | `local:`, `local:NAME` | a server of this user on this machine, started by its first client |
//!
//! Hosts are separated by comma, semicolon or white space. Each may repeat the scheme of the first
//! (`http://h1:2379,http://h2:2379`); namespace and options stand once, after the last. A port that is
//! missing is 2379, an IPv6 address stands in brackets, a host that is named twice counts once. `user:password@` stands before the
//! first host. Whatever is one of `% @ / ? # , ;` or white space in a user, password, namespace,
//! name, path of a socket or option is written as `%` and two hexadecimal digits, and so is `:` in a user, `&` in
//! an option. In the path of a socket `/` stands as it is.
//!
//! # Local servers
//!
//! `local:` needs no set-up. The first client starts `quorate dev`, the server of the program `quorate`,
//! and whoever of the same user names it then meets there; without a name it is `default`. The server
//! ends once it has had neither connection nor lease for 10 s, the next client starts it again, and a
//! client whose server was killed does so too. What it keeps, and its revisions, outlive it and the
//! machine's restarts: leases and locks are there again, with their whole time to live.
//!
//! The program is the one that `QUORATE_BIN` names, else the client's own if that is called `quorate`,
//! else `quorate` on the path. Socket and store lie in `/var/tmp/quorate-UID/NAME`, in directories for
//! the user alone; others are refused. Users have servers of their own, so that `sudo` leads to
//! another, and so have containers, unless they share `/var/tmp`. The server holds a lock (`flock`) on
//! the directory as long as it lives; where there are no such locks it does not start. Cleaners of
//! `/var/tmp` heed the lock, and may delete what no server has used for some thirty days. Nobody else
//! may delete or move the directory while somebody relies on what is in it.
//!
//! # Namespaces
//!
//! A namespace is put before every key of the client. It ends with a slash, which is added if it is
//! missing; the slash after the hosts is not part of it. So `/prod` and `/prod/` stand for the keys that
//! begin with `prod/`, and `//prod` for those that begin with `/prod/`. `/` alone is no namespace.
//!
//! # Options
//!
//! | option | value | without it |
//! | --- | --- | --- |
//! | `attempt_timeout` | how long one member may take to answer before another is asked | 1.5 s |
//! | `ca` | file with the PEM of the authorities to trust; turns TLS on | the system's |
//! | `cert` | file with the PEM of the certificate to present; turns TLS on, needs `key` | none |
//! | `connect_timeout` | how long a connection may take to be made | 1 s; with `local:` 4 s, the start included |
//! | `holder` | the name under which this client holds locks, for people to read | host and process |
//! | `keepalive_interval` | how long a connection may be idle before it is probed; at least 5 s | 10 s |
//! | `keepalive_timeout` | how long such a probe may stay unanswered | 3 s |
//! | `key` | file with the PEM of the private key of `cert` | none |
//! | `namespace` | the namespace, if it is not in the path; its first byte counts even if a slash | none |
//! | `password` | the password of `user` | none |
//! | `server_name` | the name in the members' certificates; turns TLS on | the host |
//! | `timeout` | how long a call may take in all | 5 s |
//! | `tls` | `system` turns TLS on and trusts the system's authorities, `off` turns it off | by scheme; `etcd` is off |
//! | `ttl` | the time to live of sessions that ask for no other | 10 s |
//! | `user` | who to authenticate as, if it is not before the hosts; needs `password` | nobody |
//!
//! A duration is a number with `ms`, `s`, `m` or `h` after it; a number alone is seconds. With `mem:`
//! there are `holder`, `namespace`, `timeout` and `ttl`; with `unix:` and `local:` all but those of TLS.
//! Files are read when the address is.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use quorate_engine::Key;

#[cfg(feature = "etcd")]
use crate::backend::etcd::{EtcdOptions, Tls, User};
use crate::{Error, ErrorKind, Result, Runtime, duration};

#[cfg_attr(not(feature = "etcd"), path = "connect/no_cluster.rs")]
mod cluster;
#[cfg_attr(not(feature = "etcd"), path = "connect/no_socket.rs")]
mod socket;
mod url;

/// Where a client connects to, and how.
///
/// From an [address](ConnectOptions::parse), or from [hosts and a port](ConnectOptions::hosts); the
/// methods then change what the address said. What concerns connections does nothing where the store is
/// in memory, so that a test differs from production by its address alone.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(crate) target: Target,
    /// Put before every key; empty, or it ends with a slash.
    pub(crate) namespace: Key,
    /// How long a call may take in all.
    pub(crate) timeout: Duration,
    /// The time to live of sessions that ask for no other.
    pub(crate) session_ttl: Duration,
    /// How far clock rates may differ, as a fraction.
    pub(crate) drift: f64,
    /// How long before the reckoned end of a lease it counts as lost.
    pub(crate) margin: Option<Duration>,
    /// Who holds what this client holds, for people.
    pub(crate) holder: Option<String>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
}

/// Which store.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a client has one
pub(crate) enum Target {
    #[cfg(feature = "etcd")]
    Etcd(EtcdOptions),
    /// In memory, shared under a name if it has one.
    Memory(Option<String>),
}

impl ConnectOptions {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is none, or a file that it names cannot be
    /// read; the message says what to write instead. [`Unsupported`](ErrorKind::Unsupported) for a
    /// cluster without feature `etcd`.
    pub fn parse(address: &str) -> Result<Self> {
        url::parse(address)
    }

    /// A store in memory, for this client and its clones alone: `mem:`.
    pub fn memory() -> Self {
        Self::with_target(Target::Memory(None))
    }

    /// The cluster with members at `hosts`, on `port` where a host names no other.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) without hosts, or if one of them is none.
    /// [`Unsupported`](ErrorKind::Unsupported) without feature `etcd`.
    pub fn hosts<H: AsRef<str>>(hosts: impl IntoIterator<Item = H>, port: u16) -> Result<Self> {
        cluster::hosts(hosts, port)
    }

    /// Keeps all keys under `name`, inside the namespace that was given before, if one was. A slash is
    /// added at its end if there is none.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<Key>) -> Self {
        let inner = namespace_prefix(name);
        self.namespace = [&*self.namespace, &*inner].concat().into();
        self
    }

    /// How long a call may take in all.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        #[cfg(feature = "etcd")]
        if let Target::Etcd(etcd) = &mut self.target {
            etcd.call_timeout = timeout;
        }
        self
    }

    /// The time to live of sessions that ask for no other. A server counts whole seconds and rounds up.
    #[must_use]
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = ttl;
        self
    }

    /// How far the clock rates of this machine and the servers may differ, as a fraction of one: 0.05
    /// is five per cent. A session counts as lost this much, twice, before its lease can end.
    #[must_use]
    pub fn drift(mut self, drift: f64) -> Self {
        self.drift = drift;
        self
    }

    /// How long before the reckoned end of its lease a session counts as lost, on top of the
    /// [drift](ConnectOptions::drift). By default a fiftieth of its time to live, and at least 50 ms.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// The name under which this client holds locks, for people to read.
    #[must_use]
    pub fn holder(mut self, name: impl Into<String>) -> Self {
        self.holder = Some(name.into());
        self
    }

    /// Where the client takes time, randomness and tasks from.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Refuses numbers that no client can work with.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        if self.timeout.is_zero() {
            return refuse("a timeout of zero lets no call succeed: write 5s, or leave it out");
        }
        if self.session_ttl.is_zero() || self.session_ttl > duration::LONGEST {
            return refuse("the time to live of a session lies above 0 and up to 9000000000s");
        }
        if !(0.0..0.5).contains(&self.drift) {
            return refuse("the drift is a fraction from 0 to below 0.5, such as 0.05");
        }
        // Servers count whole seconds.
        let granted = self.session_ttl.as_secs_f64().ceil();
        let margin = self.margin.map(|margin| margin.as_secs_f64());
        let margin = margin.unwrap_or_else(|| (granted / 50.0).max(0.05));
        if granted * (1.0 - 2.0 * self.drift) <= margin {
            return refuse("drift and margin leave nothing of a session's time to live");
        }
        Ok(())
    }

    fn with_target(target: Target) -> Self {
        Self {
            target,
            namespace: Key::default(),
            timeout: Duration::from_secs(5),
            session_ttl: Duration::from_secs(10),
            drift: 0.05,
            margin: None,
            holder: None,
            runtime: None,
        }
    }
}

/// What concerns clusters alone.
#[cfg(feature = "etcd")]
impl ConnectOptions {
    /// Authenticates as this user of etcd's own authentication.
    #[must_use]
    pub fn user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.etcd(|etcd| {
            etcd.user = Some(User {
                name: name.into(),
                password: password.into(),
            });
        })
    }

    /// Speaks TLS with every member, whatever the scheme of the address.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        self.etcd(|etcd| {
            for endpoint in &mut etcd.endpoints {
                if let Some(host) = endpoint.strip_prefix("http://") {
                    *endpoint = format!("https://{host}");
                }
            }
            etcd.tls = Some(tls);
        })
    }

    /// How long one member may take to answer before another is asked.
    #[must_use]
    pub fn attempt_timeout(self, timeout: Duration) -> Self {
        self.etcd(|etcd| etcd.attempt_timeout = timeout)
    }

    /// How long a connection may take to be made.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.etcd(|etcd| etcd.connect_timeout = timeout)
    }

    /// How long a connection may be idle before it is probed, and how long the probe may stay
    /// unanswered. Servers close connections that are probed more often than every 5 s.
    #[must_use]
    pub fn keepalive(self, interval: Duration, timeout: Duration) -> Self {
        self.etcd(|etcd| {
            etcd.keepalive_interval = interval;
            etcd.keepalive_timeout = timeout;
        })
    }

    fn etcd(mut self, change: impl FnOnce(&mut EtcdOptions)) -> Self {
        if let Target::Etcd(etcd) = &mut self.target {
            change(etcd);
        }
        self
    }
}

#[cfg(feature = "etcd")]
impl From<EtcdOptions> for ConnectOptions {
    fn from(etcd: EtcdOptions) -> Self {
        Self {
            timeout: etcd.call_timeout,
            ..Self::with_target(Target::Etcd(etcd))
        }
    }
}

impl FromStr for ConnectOptions {
    type Err = Error;

    fn from_str(address: &str) -> Result<Self> {
        Self::parse(address)
    }
}

impl TryFrom<&str> for ConnectOptions {
    type Error = Error;

    fn try_from(address: &str) -> Result<Self> {
        Self::parse(address)
    }
}

impl TryFrom<&String> for ConnectOptions {
    type Error = Error;

    fn try_from(address: &String) -> Result<Self> {
        Self::parse(address)
    }
}

impl TryFrom<String> for ConnectOptions {
    type Error = Error;

    fn try_from(address: String) -> Result<Self> {
        Self::parse(&address)
    }
}

/// The prefix that stands for a namespace: its name, and a slash unless it ends with one. An empty name
/// is no namespace.
pub(crate) fn namespace_prefix(name: impl Into<Key>) -> Key {
    let name = name.into();
    if name.is_empty() || name.ends_with(b"/") {
        name
    } else {
        [&*name, b"/"].concat().into()
    }
}

fn invalid(message: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the address: {message}"),
    )
}

#[cfg(test)]
mod tests;

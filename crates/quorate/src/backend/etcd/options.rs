//! How to reach a cluster.

use std::{fmt, time::Duration};

/// How to reach an etcd cluster, and how patient to be with it.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members, as `http://host:port` or `https://host:port`; without a port it is 2379. A server
    /// on this machine is `unix:///path/to/socket`, and one of this user that is started when it is
    /// needed `local:NAME`.
    pub endpoints: Vec<String>,
    /// How to verify the members and prove oneself, for `https` alone; without it the system's
    /// authorities are trusted.
    pub tls: Option<Tls>,
    /// Who to authenticate as.
    pub user: Option<User>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one member may take to answer, the whole answer included, before another is asked. With
    /// a single endpoint a member may take the whole call.
    pub attempt_timeout: Duration,
    /// How long a call may take in all.
    pub call_timeout: Duration,
    /// How long a connection may be idle before it is probed; etcd refuses less than 5 s.
    pub keepalive_interval: Duration,
    /// How long such a probe may stay unanswered.
    pub keepalive_timeout: Duration,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            tls: None,
            user: None,
            connect_timeout: Duration::from_millis(1000),
            attempt_timeout: Duration::from_millis(1500),
            call_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(3),
        }
    }
}

/// How members are verified over TLS, and how the client proves itself.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM of the authorities to trust; the system's if none are given.
    pub ca: Option<Vec<u8>>,
    /// The certificate to present, if the members ask for one.
    pub identity: Option<Identity>,
    /// The name that the members' certificates must bear, if it is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// PEM of the certificate chain.
    pub certificate: Vec<u8>,
    /// PEM of the private key.
    pub key: Vec<u8>,
}

/// A user of etcd's own authentication.
#[derive(Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("system_roots", &self.ca.is_none())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// Shows no key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Shows no password.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

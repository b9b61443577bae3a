//! What a channel can be told.

use std::time::Duration;

use tonic::transport::{self, ClientTlsConfig, Endpoint};

use crate::Strategy;

/// How a [`Channel`](super::Channel) picks, connects and waits.
#[derive(Clone, Debug)]
#[must_use = "options do nothing by themselves"]
pub struct Options {
    pub(super) strategy: Strategy,
    pub(super) wait: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    keep_alive: Option<Duration>,
    tls: Option<ClientTlsConfig>,
}

impl Options {
    /// In turn, without a wait for instances, without TLS, and with a second to connect.
    pub fn new() -> Self {
        Self {
            strategy: Strategy::RoundRobin,
            wait: Duration::ZERO,
            connect_timeout: Duration::from_secs(1),
            timeout: None,
            keep_alive: None,
            tls: None,
        }
    }

    /// How calls are spread.
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// How long a call waits for an instance if there is none that it could go to.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How long it may take to connect to an instance. A call that cannot be sent for so long goes to
    /// another.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// How long it may take from a call to the beginning of its answer, with all that it waits for, if
    /// the call does not say (`Request::set_timeout`).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Pings an instance this often while calls run on it, and gives it up if it does not answer. The
    /// servers have to allow it: Go's refuse more than one ping in five minutes if nothing else is
    /// said.
    pub fn keep_alive(self, interval: Duration) -> Self {
        Self {
            keep_alive: Some(interval),
            ..self
        }
    }

    /// Connects with TLS. The name in an instance's certificate is the host of its address, unless the
    /// configuration has another.
    pub fn tls(self, tls: ClientTlsConfig) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// How to connect to an address.
    pub(super) fn endpoint(&self, address: &str) -> Result<Endpoint, transport::Error> {
        let address = match address.contains("://") {
            true => address.to_owned(),
            false if self.tls.is_some() => format!("https://{address}"),
            false => format!("http://{address}"),
        };
        let mut endpoint = Endpoint::from_shared(address)?.connect_timeout(self.connect_timeout);
        if let Some(interval) = self.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(interval);
        }
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()),
            None => Ok(endpoint),
        }
    }
}

//! Connects to one member.

use std::time::Duration;

use quorate_wire::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient};
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    classify::{Failure, root_cause},
    line::Line,
    local::Local,
    options::EtcdOptions,
    socket, tls,
};
use crate::{Error, ErrorKind, Result};

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 2379;

/// How one member is connected to.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) url: String,
    endpoint: Endpoint,
    patience: Duration,
    /// TLS, without a certificate of the client's.
    anonymous: bool,
    /// What to start if nobody listens.
    local: Option<Local>,
    #[cfg(feature = "testing")]
    pipes: Option<super::Pipes>,
}

impl Dial {
    /// Checks a URL and settles how its member is connected to.
    pub(super) fn new(url: &str, options: &EtcdOptions) -> Result<Self> {
        let local = Local::of(url).transpose()?;
        let url = match &local {
            Some(local) => local.url(),
            None => normalized(url)?,
        };
        let bad =
            |why: String| Error::new(ErrorKind::InvalidArgument, format!("endpoint {url}: {why}"));
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad(root_cause(&error)))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(options.keepalive_interval))
            .tcp_keepalive_interval(Some(options.keepalive_timeout))
            // Only while a call or a stream is open: etcd closes idle connections that are probed.
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(false);
        let secure = url.starts_with("https:");
        if secure {
            let config = tls::config(&options.tls.clone().unwrap_or_default())?;
            endpoint = endpoint
                .tls_config(config.timeout(options.connect_timeout))
                .map_err(|error| bad(root_cause(&error)))?;
        } else if options.tls.is_some() {
            let scheme = url.split_once("//").map_or("", |(scheme, _)| scheme);
            return Err(bad(format!(
                "TLS is configured, and {scheme}// would not use it"
            )));
        }
        Ok(Self {
            endpoint,
            patience: match local {
                Some(_) => options.connect_timeout,
                None => options.connect_timeout.min(options.attempt_timeout),
            },
            anonymous: secure
                && options
                    .tls
                    .as_ref()
                    .is_none_or(|tls| tls.identity.is_none()),
            local,
            #[cfg(feature = "testing")]
            pipes: None,
            url,
        })
    }

    /// Goes over these pipes, if there are any.
    #[cfg(feature = "testing")]
    pub(super) fn through(self, pipes: Option<super::Pipes>) -> Self {
        Self { pipes, ..self }
    }

    /// Connects, and waits until the member has answered on the connection.
    ///
    /// A member that hangs still accepts connections, and one that wants a certificate closes them only
    /// afterwards. Were a write the first to find out, nobody could tell what became of it.
    pub(super) async fn connect(&self) -> Result<Line, Failure> {
        let mut last = None;
        let connect = async {
            match &self.local {
                Some(local) => local.connect(|| self.attempt(), &mut last).await,
                None => self.attempt().await,
            }
        };
        if let Ok(connected) = tokio::time::timeout(self.patience, connect).await {
            return connected;
        }
        let mut message = format!("no connection within {:?}", self.patience);
        if let Some(last) = last {
            message = format!("{message}: {}", last.message);
        }
        Err(Failure::unreachable(message))
    }

    async fn attempt(&self) -> Result<Line, Failure> {
        let channel = self.channel().await.map_err(|error| {
            let reason = match self.url.starts_with("unix:") {
                true => socket::explained(&error),
                false => root_cause(&error),
            };
            Failure::unreachable(reason)
        })?;
        let line = Line::new(channel);
        // Any answer will do; this one needs neither a token nor a leader.
        let asked = MaintenanceClient::new(line.clone())
            .status(StatusRequest {})
            .await;
        match asked.map_err(|status| Failure::of(&status)) {
            Err(failure) if failure.is_of_connection => Err(self.explained(failure)),
            Ok(_) | Err(_) => Ok(line),
        }
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        #[cfg(feature = "testing")]
        if let Some(pipes) = &self.pipes {
            return self.endpoint.connect_with_connector(pipes.clone()).await;
        }
        self.endpoint.connect().await
    }

    /// The failure of a connection that had come about, with the likely reason.
    fn explained(&self, failure: Failure) -> Failure {
        let hint = match self.anonymous {
            true => "; does the server want a client certificate?",
            false => "",
        };
        Failure::unreachable(failure.message + hint)
    }

    /// A connection that is made when it is used.
    #[cfg(test)]
    pub(super) fn lazily(&self) -> Line {
        Line::new(self.endpoint.connect_lazy())
    }
}

/// A URL as `scheme://host:port`, or `unix:///path`.
pub(super) fn normalized(url: &str) -> Result<String> {
    let bad = |why: &str| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("endpoint {url:?}: {why}"),
        )
    };
    if let Some(path) = socket::path_of(url) {
        return path.and_then(socket::url_of).map_err(bad);
    }
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| ["http", "https"].contains(scheme));
    let scheme = scheme.ok_or_else(|| bad("it must begin with http://, https:// or unix:"))?;
    let authority = uri
        .authority()
        .filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| bad("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("user and password belong elsewhere"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("it must end after the port"));
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str() != authority.host() => return Err(bad("its port is no port")),
        None => DEFAULT_PORT,
    };
    Ok(format!("{scheme}://{}:{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::etcd::Tls;

    #[test]
    fn an_endpoint_that_cannot_be_meant_is_refused_with_the_reason() {
        for (url, why) in [
            (
                "127.0.0.1:2379",
                "must begin with http://, https:// or unix:",
            ),
            ("ftp://h:1", "must begin with http://, https:// or unix:"),
            ("http://", "not a URL"),
            ("http://h:1/path", "must end after the port"),
            ("http://u:p@h:1", "belong elsewhere"),
            ("http://h:99999", "port"),
            ("http://h:", "port"),
            ("unix:", "names no socket"),
            ("unix://h/path", "a host has no place in it"),
            ("local:a/b", "letters, digits"),
        ] {
            let error = Dial::new(url, &EtcdOptions::default())
                .map(drop)
                .expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn credentials_are_never_sent_in_the_clear_by_mistake() {
        let options = EtcdOptions {
            tls: Some(Tls::default()),
            ..EtcdOptions::default()
        };
        let error = Dial::new("http://h:1", &options)
            .map(drop)
            .expect_err("http with TLS settings");
        assert!(
            error.to_string().contains("http:// would not use it"),
            "{error}"
        );
    }
}

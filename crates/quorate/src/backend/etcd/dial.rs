//! Connects to one member.

use std::{io, path::PathBuf, time::Duration};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use quorate_wire::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    carrier::Probing,
    classify::{Failure, root_cause},
    line::Line,
    local::Local,
    options::EtcdOptions,
    socket,
    tcp::{self, CutOff},
    tls::Secure,
};
use crate::{Error, ErrorKind, Result};

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 2379;

/// How one member is connected to.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) url: String,
    place: Place,
    /// What the member is called in requests.
    origin: (Scheme, Authority),
    secure: Option<Secure>,
    probing: Probing,
    patience: Duration,
    /// TLS, without a certificate of the client's.
    anonymous: bool,
    /// What to start if nobody listens.
    local: Option<Local>,
    #[cfg(feature = "testing")]
    pipes: Option<super::Pipes>,
}

/// Where a member listens.
#[derive(Debug)]
enum Place {
    Host(String, u16),
    #[cfg_attr(not(unix), allow(dead_code))] // there it cannot be reached
    Socket(PathBuf),
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
            |why: &str| Error::new(ErrorKind::InvalidArgument, format!("endpoint {url}: {why}"));
        let (place, origin) = match socket::path_of(&url) {
            // What a socket is called matters to nobody, but has to be a name.
            Some(path) => (
                Place::Socket(path.map_err(bad)?.into()),
                (Scheme::HTTP, Authority::from_static("localhost")),
            ),
            None => host_of(&url).map_err(|_| bad("not a URL"))?,
        };
        let secure = match (&place, &options.tls) {
            (Place::Host(host, _), tls) if origin.0 == Scheme::HTTPS => {
                Some(Secure::new(&tls.clone().unwrap_or_default(), host)?)
            }
            (_, Some(_)) => {
                let scheme = url.split_once("//").map_or("", |(scheme, _)| scheme);
                let why = format!("TLS is configured, and {scheme}// would not use it");
                return Err(bad(&why));
            }
            (_, None) => None,
        };
        let has_identity = |tls: &super::Tls| tls.identity.is_some();
        Ok(Self {
            place,
            origin,
            anonymous: secure.is_some() && !options.tls.as_ref().is_some_and(has_identity),
            secure,
            probing: Probing {
                interval: options.keepalive_interval,
                patience: options.keepalive_timeout,
            },
            patience: match local {
                Some(_) => options.connect_timeout,
                None => options.connect_timeout.min(options.attempt_timeout),
            },
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
        let line = self.line().await.map_err(|error| {
            Failure::unreachable(match self.place {
                Place::Host(..) => root_cause(&error),
                Place::Socket(_) => socket::explained(&error),
            })
        })?;
        // Any answer will do; this one needs neither a token nor a leader.
        let asked = MaintenanceClient::new(line.clone())
            .status(StatusRequest {})
            .await;
        match asked.map_err(|status| Failure::of(&status)) {
            Err(failure) if failure.is_of_connection => Err(self.explained(failure)),
            Ok(_) | Err(_) => Ok(line),
        }
    }

    /// Makes a connection, whoever is at its other end.
    async fn line(&self) -> io::Result<Line> {
        let cut_off = CutOff::default();
        #[cfg(feature = "testing")]
        if let Some(pipes) = &self.pipes {
            return self.speak(pipes.open(&self.url)?, cut_off).await;
        }
        match &self.place {
            Place::Host(host, port) => {
                let stream = tcp::connect(host, *port, self.probing, cut_off.clone()).await?;
                match &self.secure {
                    None => self.speak(stream, cut_off).await,
                    Some(secure) => self.speak(secure.secure(stream).await?, cut_off).await,
                }
            }
            #[cfg(unix)]
            Place::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                self.speak(stream, cut_off).await
            }
            #[cfg(not(unix))]
            Place::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Speaks HTTP/2 on a connection.
    pub(super) async fn speak(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        cut_off: CutOff,
    ) -> io::Result<Line> {
        let line = Line::new(io, self.origin.clone(), self.probing, cut_off).await;
        line.map_err(io::Error::other)
    }

    /// The failure of a connection that had come about, with the likely reason.
    fn explained(&self, failure: Failure) -> Failure {
        let hint = match self.anonymous {
            true => "; does the server want a client certificate?",
            false => "",
        };
        Failure::unreachable(failure.message + hint)
    }
}

/// The place of a URL, and what its member is called.
fn host_of(url: &str) -> Result<(Place, (Scheme, Authority)), http::Error> {
    let uri = url.parse::<Uri>()?.into_parts();
    let scheme = uri.scheme.unwrap_or(Scheme::HTTP);
    let authority = match uri.authority {
        Some(authority) => authority,
        None => Authority::try_from("")?,
    };
    let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
    let place = Place::Host(authority.host().to_owned(), port);
    Ok((place, (scheme, authority)))
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

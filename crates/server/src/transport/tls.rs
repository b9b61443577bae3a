//! TLS: how a server proves itself, and who its clients are.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, ServerConnection,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};
use x509_parser::parse_x509_certificate;

use crate::{Error, Result, transport::listener::Io};

/// The protocols that are offered, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How many clients may be at their greeting at once. Others wait, within the time that they have
/// for their own.
const MAX_HANDSHAKES: usize = 1024;

/// How a [`Server`](crate::Server) proves itself, and what it asks of its clients.
///
/// ```
/// use quorate_server::{Error, Tls};
///
/// let refused = Tls::from_pem("no certificate", "no key");
/// assert!(matches!(refused, Err(Error::Tls { .. })));
/// ```
#[derive(Clone)]
pub struct Tls {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// The server's certificate, with those between it and the authority that clients know, and its
    /// private key, all in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`].
    pub fn from_pem(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(key.as_ref());
        let tls = Self {
            certificates: certificates(certificate.as_ref(), "the certificate")?,
            key: Arc::new(key.map_err(|error| unusable("the key", &unreadable(&error)))?),
            client_ca: None,
        };
        tls.config()?;
        Ok(tls)
    }

    /// Lets in only clients that prove themselves by a certificate of one of these authorities, in
    /// PEM.
    #[must_use]
    pub fn client_ca(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.client_ca = Some(pem.as_ref().to_vec());
        self
    }

    pub(crate) fn acceptor(&self) -> Result<Acceptor> {
        Ok(Acceptor {
            tls: TlsAcceptor::from(Arc::new(self.config()?)),
            turns: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        })
    }

    fn config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("the protocol", &error))?;
        let builder = match &self.client_ca {
            Some(pem) => {
                let what = "the authority of the clients";
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, what)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| unusable(what, &error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build().map_err(|error| unusable(what, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(self.certificates.clone(), self.key.clone_key());
        let mut config =
            config.map_err(|error| unusable("the certificate with its key", &error))?;
        config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
        Ok(config)
    }
}

/// Without the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unusable(what, &unreadable(&error)))?;
    if found.is_empty() {
        return Err(unusable(what, &"it holds no PEM block of kind CERTIFICATE"));
    }
    Ok(found)
}

fn unreadable(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds no PEM block of kind PRIVATE KEY".to_owned(),
        error => error.to_string(),
    }
}

fn unusable(what: &'static str, reason: &dyn fmt::Display) -> Error {
    let reason = reason.to_string();
    Error::Tls { what, reason }
}

/// The common name in the certificate of the client that sends a request: an extension of each that
/// came over a connection whose certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommonName(pub(crate) String);

/// Who is at the other end of a connection. It is known when requests come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer(Arc<OnceLock<CommonName>>);

impl Peer {
    pub(crate) fn common_name(&self) -> Option<&CommonName> {
        self.0.get()
    }

    /// Notes whose certificate was verified. Of several names the last counts, as in Go.
    fn note(&self, connection: &ServerConnection) {
        let certificates = connection.peer_certificates();
        let Some(certificate) = certificates.and_then(<[_]>::first) else {
            return;
        };
        if let Ok((_, certificate)) = parse_x509_certificate(certificate)
            && let Some(name) = certificate.subject().iter_common_name().last()
            && let Ok(name) = name.as_str()
        {
            let _ = self.0.set(CommonName(name.to_owned()));
        }
    }
}

/// What secures connections.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
    turns: Arc<Semaphore>,
}

impl Acceptor {
    /// A connection over that socket. It is secured by who reads it, which holds nobody else up.
    pub(crate) fn accept(&self, socket: Box<dyn Io>, peer: Peer) -> Secured {
        let Self { tls, turns } = self.clone();
        Secured::Greeting(Box::pin(async move {
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            let greeted = tls.accept(socket).await;
            let stream = greeted.inspect_err(|error| match error.kind() {
                // Somebody looked whether the port is open.
                io::ErrorKind::UnexpectedEof => tracing::debug!("a client hung up before TLS"),
                _ => tracing::warn!(%error, "closed a connection that does not speak TLS well"),
            })?;
            peer.note(stream.get_ref().1);
            Ok(stream)
        }))
    }
}

type Stream = TlsStream<Box<dyn Io>>;

/// A socket whose bytes are encrypted.
pub(crate) enum Secured {
    Greeting(Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>),
    Open(Box<Stream>),
    Failed,
}

impl Secured {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Stream>>> {
        if let Self::Greeting(greeting) = self {
            match ready!(greeting.as_mut().poll(cx)) {
                Ok(stream) => *self = Self::Open(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match self {
            Self::Open(stream) => Ok(Pin::new(&mut **stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

//! How the members are verified and the client proves itself.

use std::{fmt, io, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{options::Tls, tcp::Stream};
use crate::{Error, ErrorKind, Result};

/// HTTP/2, as TLS calls it.
const HTTP2: &[u8] = b"h2";

/// How one member is verified, and what the client shows it.
#[derive(Clone)]
pub(super) struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Secure {
    /// Settles how the member of a host is verified.
    pub(super) fn new(tls: &Tls, host: &str) -> Result<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| invalid(format!("{name:?} is no name of a server: {error}")))?;
        let config = Arc::new(config(tls)?);
        Ok(Self { config, name })
    }

    /// Secures a connection, on which HTTP/2 is spoken then.
    pub(super) async fn secure(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(io::Error::other("the server does not speak HTTP/2"));
        }
        Ok(stream)
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Builds the settings of every connection.
fn config(tls: &Tls) -> Result<ClientConfig> {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(authorities(tls)?);
    let mut config = match &tls.identity {
        Some(identity) => {
            let what = "the client's certificate file";
            let certificates = certificates(&identity.certificate, what)?;
            let what = "the client's key file";
            expect("PRIVATE KEY", &identity.key, what)?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| invalid(format!("{what}: {error}")))?;
            config
                .with_client_auth_cert(certificates, key)
                .map_err(|error| invalid(format!("the client's certificate: {error}")))?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

/// Who is trusted: those in a file, else those that the system trusts.
fn authorities(tls: &Tls) -> Result<RootCertStore> {
    let certificates = match &tls.ca {
        Some(pem) => certificates(pem, "the file of authorities")?,
        None => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let message = "the system trusts no authority: name a file of authorities";
                return Err(invalid(message));
            }
            found.certs
        }
    };
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(certificates);
    Ok(authorities)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    expect("CERTIFICATE", pem, what)?;
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(format!("{what}: {error}")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Refuses a file without any block of a kind: nothing would be trusted, or nothing proved, without a word.
fn expect(kind: &str, pem: &[u8], what: &str) -> Result<()> {
    let text = String::from_utf8_lossy(pem);
    let has = |line: &str| line.starts_with("-----BEGIN ") && line.contains(kind);
    if text.lines().any(has) {
        return Ok(());
    }
    Err(invalid(format!("{what} holds no PEM block of kind {kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::etcd::Identity;

    #[test]
    fn a_file_without_the_right_block_is_refused_by_name() {
        let refusal = |tls: &Tls| config(tls).map(drop).map_err(|error| error.to_string());
        let mut tls = Tls {
            ca: Some(b"not pem".to_vec()),
            ..Tls::default()
        };
        let message = "the file of authorities holds no PEM block of kind CERTIFICATE";
        assert_eq!(refusal(&tls), Err(message.to_owned()));
        tls.ca = Some(b"-----BEGIN CERTIFICATE-----".to_vec());
        let unreadable = refusal(&tls).expect_err("it has no end");
        assert!(
            unreadable.starts_with("the file of authorities: "),
            "{unreadable}"
        );
        let pem = rcgen::generate_simple_self_signed([]).expect("a certificate");
        let pem = pem.cert.pem().into_bytes();
        tls.ca = Some(pem.clone());
        assert_eq!(refusal(&tls), Ok(()));
        tls.identity = Some(Identity {
            certificate: pem.clone(),
            key: pem,
        });
        let message = "the client's key file holds no PEM block of kind PRIVATE KEY";
        assert_eq!(refusal(&tls), Err(message.to_owned()));
    }
}

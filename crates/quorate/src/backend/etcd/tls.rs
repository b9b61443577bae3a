//! How the members are verified and the client proves itself.

use tonic::transport::{Certificate, ClientTlsConfig, Identity as TonicIdentity};

use super::options::Tls;
use crate::{Error, ErrorKind, Result};

/// Builds the settings of every connection.
pub(super) fn config(tls: &Tls) -> Result<ClientTlsConfig> {
    let mut config = ClientTlsConfig::new();
    match &tls.ca {
        Some(pem) => {
            expect("CERTIFICATE", pem, "the file of authorities")?;
            config = config.ca_certificate(Certificate::from_pem(pem));
        }
        None => config = config.with_native_roots(),
    }
    if let Some(identity) = &tls.identity {
        expect(
            "CERTIFICATE",
            &identity.certificate,
            "the client's certificate file",
        )?;
        expect("PRIVATE KEY", &identity.key, "the client's key file")?;
        config = config.identity(TonicIdentity::from_pem(
            &identity.certificate,
            &identity.key,
        ));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

/// Refuses a file without any block of a kind. An unreadable block is found later, an absent one never:
/// then nothing is trusted, or nothing proved, without a word.
fn expect(kind: &str, pem: &[u8], what: &str) -> Result<()> {
    let text = String::from_utf8_lossy(pem);
    let has = |line: &str| line.starts_with("-----BEGIN ") && line.contains(kind);
    if text.lines().any(has) {
        return Ok(());
    }
    let message = format!("{what} holds no PEM block of kind {kind}");
    Err(Error::new(ErrorKind::InvalidArgument, message))
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
        assert_eq!(refusal(&tls), Ok(()));
        tls.identity = Some(Identity {
            certificate: b"-----BEGIN CERTIFICATE-----".to_vec(),
            key: b"-----BEGIN CERTIFICATE-----".to_vec(),
        });
        let message = "the client's key file holds no PEM block of kind PRIVATE KEY";
        assert_eq!(refusal(&tls), Err(message.to_owned()));
    }
}

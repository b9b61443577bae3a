//! An authority of its own for each test, with certificates for a server and a client.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// PEM files in memory.
#[derive(Clone)]
pub struct Certificates {
    pub ca: String,
    pub server: Pair,
    pub client: Pair,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    /// Makes an authority, a certificate for `127.0.0.1` and `localhost`, and one for a client whose
    /// common name is `client`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str, hosts: &[&str], purposes: &[ExtendedKeyUsagePurpose]| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = purposes.to_vec();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            Pair {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            }
        };
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        Self {
            ca: ca.pem(),
            // etcd also presents its certificate as a client, to itself.
            server: issue(
                "server",
                &["127.0.0.1", "localhost"],
                &[ServerAuth, ClientAuth],
            ),
            client: issue("client", &[], &[ClientAuth]),
        }
    }

    /// Writes what a server and etcdctl read: `ca.pem`, `server.pem`, `server.key`, `client.pem` and
    /// `client.key`.
    pub fn write(&self, directory: &Path) {
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("ca.pem", &self.ca);
        for (name, pair) in [("server", &self.server), ("client", &self.client)] {
            write(&format!("{name}.pem"), &pair.certificate);
            write(&format!("{name}.key"), &pair.key);
        }
    }
}

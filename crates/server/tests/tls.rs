//! A server can serve over TLS, and know its clients by their certificates.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{env, path::Path, process::Output, sync::Arc, time::Duration};

use certificates::Certificates;
use quorate_server::{Error, Server, Tls};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

#[path = "../../quorate/tests/support/certificates.rs"]
#[allow(unreachable_pub)] // it is a module of other tests too
mod certificates;

const PATIENCE: Duration = Duration::from_secs(20);

async fn etcdctl(endpoint: &str, directory: &Path, args: &[&str]) -> Output {
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    let mut command = Command::new(program);
    command
        .env("ETCDCTL_API", "3")
        .env_remove("ETCDCTL_BIN") // it complains of what it does not know
        .env("ETCDCTL_ENDPOINTS", endpoint)
        .current_dir(directory)
        .args(args)
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    output.expect("etcdctl hangs").unwrap()
}

fn written() -> (Certificates, TempDir) {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    certificates.write(directory.path());
    (certificates, directory)
}

fn tls(certificates: &Certificates) -> Tls {
    let server = &certificates.server;
    Tls::from_pem(&server.certificate, &server.key).unwrap()
}

const PROOF: [&str; 2] = ["--cert=client.pem", "--key=client.key"];

#[tokio::test]
async fn etcdctl_is_served_over_tls() {
    let (certificates, directory) = written();
    let server = Server::builder().tls(tls(&certificates)).start().await;
    let server = server.unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));
    for (args, expected) in [
        (&["put", "k", "v"][..], "OK"),
        (&["get", "k"], "k\nv\n"),
        (&["endpoint", "status"], "3.5.0"),
        (&["member", "list"], server.url()),
    ] {
        let args = [&["--cacert=ca.pem", "--command-timeout=10s"], args].concat();
        let output = etcdctl(server.url(), directory.path(), &args).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected), "{args:?}: {text} {errors}");
    }
    // Who does not trust the authority is not let in by himself.
    let args = ["put", "k", "v", "--command-timeout=1s"];
    let output = etcdctl(server.url(), directory.path(), &args).await;
    assert!(!output.status.success());
}

#[tokio::test]
async fn clients_have_to_prove_themselves_if_that_is_asked() {
    let (certificates, directory) = written();
    let tls = tls(&certificates).client_ca(&certificates.ca);
    let server = Server::builder().tls(tls).start().await.unwrap();
    let put = ["--cacert=ca.pem", "put", "k", "v"];
    let args = [&PROOF[..], &put].concat();
    let output = etcdctl(server.url(), directory.path(), &args).await;
    assert!(output.status.success(), "{output:?}");
    let args = [&["--command-timeout=1s"][..], &put].concat();
    let output = etcdctl(server.url(), directory.path(), &args).await;
    assert!(!output.status.success(), "a stranger was let in");

    // A certificate of another authority proves nothing.
    let (others, _) = written();
    std::fs::write(
        directory.path().join("client.pem"),
        others.client.certificate,
    )
    .unwrap();
    std::fs::write(directory.path().join("client.key"), others.client.key).unwrap();
    let args = [&PROOF[..], &["--command-timeout=1s"], &put].concat();
    let output = etcdctl(server.url(), directory.path(), &args).await;
    assert!(!output.status.success(), "a stranger was let in");
}

/// Reads until the connection ends.
async fn end_of(mut socket: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    let _ = end.expect("the connection stays");
    answer
}

#[tokio::test]
async fn who_speaks_otherwise_than_the_server_is_not_kept_waiting() {
    let (certificates, directory) = written();
    let secure = Server::builder().tls(tls(&certificates)).start().await;
    let secure = secure.unwrap();
    let mut plain = TcpStream::connect(secure.addr().unwrap()).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert!(!end_of(plain).await.starts_with(b"HTTP"));

    let server = Server::start().await.unwrap();
    let mut hello = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    hello
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc])
        .await
        .unwrap();
    assert_eq!(end_of(hello).await, b"");
    let url = server.url().replace("http://", "https://");
    let args = ["--cacert=ca.pem", "--command-timeout=1s", "get", "k"];
    assert!(
        !etcdctl(&url, directory.path(), &args)
            .await
            .status
            .success()
    );
}

#[tokio::test]
async fn clients_that_do_not_go_on_hold_nobody_up() {
    let (certificates, directory) = written();
    let server = Server::builder().tls(tls(&certificates)).start().await;
    let server = server.unwrap();
    let mut mute = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
        socket.write_all(&[0x16, 3, 1]).await.unwrap();
        mute.push(socket);
    }
    let args = ["--cacert=ca.pem", "put", "k", "v"];
    let output = etcdctl(server.url(), directory.path(), &args).await;
    assert!(output.status.success(), "{output:?}");
    let stopped = timeout(PATIENCE, server.stop()).await;
    stopped.expect("it waits for them");
}

/// A client that trusts the authority, and says nothing yet.
async fn secured(server: &Server, certificates: &Certificates) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(certificates.ca.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, socket).await.unwrap()
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_keep_the_server_from_stopping() {
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    let (certificates, _directory) = written();
    let server = Server::builder().tls(tls(&certificates)).start().await;
    let server = server.unwrap();
    let mut deaf = secured(&server, &certificates).await;
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    deaf.write_all(greeting).await.unwrap();
    // Until the server has no room for its answers, and so reads no more.
    let pings = PING.repeat(1000);
    while let Ok(sent) = timeout(Duration::from_secs(1), deaf.write_all(&pings)).await {
        sent.unwrap();
    }
    let stopped = timeout(PATIENCE, server.stop()).await;
    stopped.expect("it waits for them");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_can_be_secured_too() {
    let (certificates, directory) = written();
    let path = directory.path().join("store");
    let server = Server::builder().listen(format!("unix:{}", path.display()));
    let server = server.tls(tls(&certificates)).start().await.unwrap();
    assert_eq!(server.url(), format!("unixs://{}", path.display()));
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let Certificates { server, client, ca } = Certificates::new();
    let refusal = |certificate: &str, key: &str| {
        let error = Tls::from_pem(certificate, key).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }));
        error.to_string()
    };
    let told = refusal("", &server.key);
    assert!(
        told.contains("the certificate") && told.contains("no PEM block"),
        "{told}"
    );
    let told = refusal(&server.certificate, &server.certificate);
    assert!(
        told.contains("the key") && told.contains("PRIVATE KEY"),
        "{told}"
    );
    let told = refusal(&server.certificate, &client.key);
    assert!(told.contains("the certificate with its key"), "{told}");
    let told = refusal(&server.certificate[..100], &server.key);
    assert!(told.contains("the certificate"), "{told}");
    assert!(Tls::from_pem(&server.certificate, &server.key).is_ok());
    drop(ca);
}

#[tokio::test]
async fn an_authority_without_certificates_is_refused() {
    let certificates = Certificates::new();
    let tls = tls(&certificates).client_ca("no PEM");
    let refused = Server::builder().tls(tls).start().await.unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("the authority of the clients"), "{told}");
}

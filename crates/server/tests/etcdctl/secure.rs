//! etcdctl reaches servers by TLS and by Unix sockets, and is who its certificate says.

use std::path::Path;

use quorate_server::{Server, Tls};

use crate::support::{
    certificates::Certificates,
    etcd,
    etcdctl::{Etcdctl, Told, programs},
    subject::newest,
};

/// What is served to whom the certificate names `client`.
const SCRIPT: &[&str] = &[
    "user add root:secret",
    "user grant-role root root",
    "role add reader",
    "role grant-permission reader read --prefix a/",
    "user add client --no-password",
    "user grant-role client reader",
    "put a/1 one",
    "put b bee",
    "auth enable",
    "get a/1",
    "get b",
    "put a/1 two",
    "user get client",
    "user list",
    "user get root",
    "--user=root:secret put a/1 two",
    "--user=root:wrong put a/1 two",
    "get a/1",
    "watch --rev=2 b",
    "lease list",
    "lease grant 600",
    "endpoint health",
    "--user=root:secret user delete client",
    "get a/1",
    "user get client",
    "user list",
    "auth disable",
    "--user=root:secret auth disable",
    "get a/1",
];

fn secured(certificates: &Certificates) -> Tls {
    let Certificates { server, ca, .. } = certificates;
    let tls = Tls::from_pem(&server.certificate, &server.key).unwrap();
    tls.client_ca(ca)
}

/// Runs the script as who has the client's certificate.
async fn told(program: &Path, url: &str, certificates: &Certificates) -> Vec<Told> {
    let mut etcdctl = Etcdctl::new(program.to_owned(), url);
    certificates.write(etcdctl.directory());
    let proof = "--cacert=ca.pem --cert=client.pem --key=client.key";
    let mut told = Vec::new();
    for line in SCRIPT {
        told.push(etcdctl.told(&format!("{proof} {line}")).await);
    }
    told
}

#[tokio::test]
async fn a_certificate_tells_who_the_user_is() {
    for program in programs() {
        let certificates = Certificates::new();
        let server = Server::builder().tls(secured(&certificates));
        let server = server.start().await.unwrap();
        let ours = told(&program, server.url(), &certificates).await;

        let start = || {
            let cluster = etcd::Cluster::builder().program(newest()).fast();
            let certificates = Certificates::new();
            (
                cluster.tls(certificates.clone(), true).start(),
                certificates,
            )
        };
        let (cluster, certificates) = tokio::task::spawn_blocking(start).await.unwrap();
        let etcd = told(&program, &cluster.endpoint(0), &certificates).await;
        for (ours, etcd) in ours.iter().zip(&etcd) {
            assert_eq!(ours, etcd);
        }
        let code = |line: &str| {
            let told = ours.iter().find(|told| told.line.ends_with(line));
            told.expect("it is in the script").code
        };
        assert_eq!(code(" get b"), Some(1), "it may not");
        assert_eq!(code(" get a/1"), Some(0), "it may");
    }
}

/// A script of what each service has.
const ROUND: &[&str] = &[
    "put a/1 one",
    "get --prefix a/ -w json",
    "lease grant 600",
    "put --lease=$lease a/2 two",
    "lease keep-alive --once $lease",
    "lease revoke $lease",
    "txn <<< ver(\"a/1\") = \"1\"\n\nput a/1 uno\n\n\n",
    "lock jobs echo mine",
    "del --prefix a/",
    "role add reader",
    "role list",
    "compaction 3",
    "~ endpoint status",
    "endpoint health",
    "endpoint hashkv",
    "snapshot save saved",
    "defrag",
];

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_serves_all_that_a_port_does() {
    for program in programs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let server = Server::builder().listen(format!("unix:{}", path.display()));
        let server = server.start().await.unwrap();
        let mut etcdctl = Etcdctl::new(program, server.url());
        for line in ROUND {
            let told = etcdctl.told(line).await;
            assert_eq!(told.code, Some(0), "{told:?}");
        }
        etcdctl.told("put b bee").await;
        let mut watch = etcdctl.start("watch --rev=4 b");
        assert_eq!(watch.lines(3).await, "PUT\nb\nbee\n");
        watch.kill().await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_can_be_secured() {
    for program in programs() {
        let certificates = Certificates::new();
        // By its name alone: the whole path is no name of a host, but etcdctl 3.4 would give it as one.
        let mut etcdctl = Etcdctl::new(program, "unixs://store");
        certificates.write(etcdctl.directory());
        let path = etcdctl.directory().join("store");
        let server = Server::builder().listen(format!("unix:{}", path.display()));
        let server = server.tls(secured(&certificates)).start().await.unwrap();
        assert!(server.url().starts_with("unixs://"), "{server}");
        // etcdctl looks for the name of the file in the certificate, and takes the flag in addition to
        // the scheme.
        let trusting = ["--insecure-transport=false", "--insecure-skip-tls-verify"];
        let proof = format!("{} --cert=client.pem --key=client.key", trusting.join(" "));
        for line in ROUND.iter().map(|line| line.trim_start_matches("~ ")) {
            let told = etcdctl.told(&format!("{proof} {line}")).await;
            assert_eq!(told.code, Some(0), "{told:?}");
        }
        let get = ["--command-timeout=1s", "get", "a/1"];
        let stranger = etcdctl.run(&[&trusting[..], &get].concat(), "").await;
        assert!(!stranger.status.success(), "a stranger was let in");
    }
}

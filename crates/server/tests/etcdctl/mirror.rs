//! A store is mirrored, and its scale checked.

use quorate_server::Server;

use crate::support::etcdctl::{Etcdctl, programs, same};

#[tokio::test]
async fn a_store_is_mirrored_into_another() {
    same(async |subject, etcdctl| {
        let copy = subject.another().await;
        let destination = copy.address();
        for line in ["put a/1 one", "put a/2 two", "put b bee"] {
            etcdctl.told(line).await;
        }
        let mirror = etcdctl.start(&format!(
            "make-mirror --prefix=a/ --dest-prefix=copy/ {destination}"
        ));
        let seen = format!("--endpoints={destination} get --prefix '' ");
        let mut told = Vec::new();
        for (change, count) in [("put a/3 three", 6), ("del a/1", 4), ("put a/2 zwei", 4)] {
            etcdctl.told(change).await;
            let found = loop {
                let found = etcdctl.told(&seen).await.stdout;
                let is_done = change != "put a/2 zwei" || found.contains("zwei");
                if found.lines().count() == count && is_done {
                    break found;
                }
            };
            told.push(found);
        }
        mirror.kill().await;
        told
    })
    .await;
}

#[tokio::test]
async fn the_check_of_the_scale_passes() {
    for program in programs() {
        let server = Server::start().await.unwrap();
        let etcdctl = Etcdctl::new(program, server.url());
        let checked = etcdctl
            .run(
                &[
                    "check",
                    "datascale",
                    "--load=s",
                    "--auto-compact",
                    "--auto-defrag",
                ],
                "",
            )
            .await;
        let told = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{checked:?}");
        assert!(
            told.contains("PASS: Approximate system memory used"),
            "{told}"
        );
    }
}

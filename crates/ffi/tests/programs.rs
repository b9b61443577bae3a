//! The programs in C of `tests/c`, as C99 and as C++17, on the store in memory and on a real etcd.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use support::{
    Language, Workshop, certificates::Certificates, cluster, crate_file, etcd::Cluster, memory,
    succeed, watched,
};

/// Compiles a program in both languages and runs it on both stores, watched for errors and leaks.
fn run(name: &str) {
    let workshop = Workshop::open();
    let source = crate_file(&format!("tests/c/{name}.c"));
    for language in [Language::C99, Language::Cpp17] {
        let program = workshop.compile(&source, language);
        succeed(watched(&program).arg(memory()));
        succeed(watched(&program).arg(cluster(&format!("{name}-{language:?}"))));
    }
}

#[test]
fn keys_transactions_and_leases() {
    run("kv");
}

#[test]
fn sessions_locks_elections_and_ephemeral_keys() {
    run("holds");
}

#[test]
fn discovery_observers_configuration_and_health() {
    run("discovery");
}

#[test]
fn calls_are_cut_off_and_handles_outlive_nothing() {
    run("waiting");
}

#[test]
fn eight_threads_share_a_client() {
    run("threads");
}

/// TLS with certificates on both sides, by the options of the URL.
#[test]
fn a_url_turns_tls_on() {
    let workshop = Workshop::open();
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    certificates.write(directory.path());
    let cluster = Cluster::builder().tls(certificates, true).start();
    let program = workshop.compile(&crate_file("tests/c/kv.c"), Language::C99);
    let place = directory.path().display();
    let url = format!(
        "{}/tls?ca={place}/ca.pem&cert={place}/client.pem&key={place}/client.key",
        cluster.endpoint(0)
    );
    succeed(watched(&program).arg(&url));
}

//! What a program sees of a server that stops, goes on, and is killed.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use support::{Language, Workshop, crate_file, etcd::Cluster, watched};

#[test]
fn calls_end_without_a_server() {
    let workshop = Workshop::open();
    let program = workshop.compile(&crate_file("tests/c/outage.c"), Language::C99);
    let cluster = Cluster::builder().fast().start();
    let url = format!("{}?timeout=1s", cluster.endpoint(0));
    let mut child = watched(&program)
        .arg(&url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match &*line.unwrap() {
            "stop" => cluster.stop(0),
            "go on" => cluster.cont(0),
            "kill" => cluster.kill(0),
            other => panic!("it says {other:?}"),
        }
        writeln!(answers, "done").unwrap();
    }
    assert!(child.wait().unwrap().success());
}

//! The verbs on keys, through the real program on a real etcd.
#![allow(clippy::unwrap_used)] // in what the tests share

mod support;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, pipe},
    os::unix::ffi::OsStrExt,
    process::{Child, Command, Stdio},
};

use serde_json::{Value as Json, json};
use support::{Place, Ran, quorate};

#[test]
fn a_key_reads_back_as_it_was_set() {
    let place = Place::new("reads-back");
    let revision: i64 = place.ok(&["set", "k", "v"]).trim().parse().unwrap();
    assert_eq!(place.ok(&["get", "k"]), "v\n");
    let expected = json!({
        "key": "k",
        "value": "v",
        "create_revision": revision,
        "mod_revision": revision,
        "version": 1,
        "lease": null,
    });
    assert_eq!(place.json(&["get", "k"])[0], expected);
    let done = place.json(&["set", "k", "-7"]);
    assert_eq!(done[0]["prev"], expected);
    assert_eq!(place.ok(&["get", "k"]), "-7\n");
    assert_eq!(
        place.ok(&["get", "k", "--rev", &revision.to_string()]),
        "v\n"
    );
}

#[test]
fn an_absent_key_prints_nothing_and_exits_with_1() {
    let place = Place::new("absent");
    for arguments in [
        &["get", "k"][..],
        &["get", "k", "-o", "json"],
        &["get", "k", "--prefix"],
    ] {
        let ran = place.run(arguments);
        assert_eq!(
            (ran.code, ran.stdout, ran.stderr),
            (Some(1), vec![], String::new())
        );
    }
    assert_eq!(place.ok(&["list"]), "");
    assert_eq!(place.ok(&["delete", "k"]), "0\n");
}

#[test]
fn bytes_that_are_no_text_pass_unchanged_and_are_base64_in_json() {
    let place = Place::new("bytes");
    let set = Ran::of(place.command(&["set", "stdin", "-"]), b"\xff\x00\n");
    assert_eq!(set.code, Some(0));
    assert_eq!(place.run(&["get", "stdin"]).stdout, b"\xff\x00\n\n");
    assert_eq!(
        place.json(&["get", "stdin"])[0]["value"],
        json!({ "base64": "/wAK" })
    );
    let mut command = place.command(&["set"]);
    command.args([OsStr::from_bytes(b"key\xfe"), OsStr::from_bytes(b"\xfd")]);
    Ran::of(command, b"").ok();
    let listed = place.json(&["list", "key"]);
    assert_eq!(listed[0]["key"], json!({ "base64": "a2V5/g==" }));
    assert_eq!(listed[0]["value"], json!({ "base64": "/Q==" }));
}

#[test]
fn a_refused_write_tells_what_is_there_and_exits_with_1() {
    let place = Place::new("conditions");
    let refused = |arguments: &[&str]| place.run(arguments).failure(1);
    let absent = "quorate: not set: k does not exist\n";
    assert_eq!(refused(&["set", "k", "v", "--if-value", ""]), absent);
    assert_eq!(refused(&["set", "k", "v", "--if-revision", "1"]), absent);
    let revision = place.ok(&["set", "k", "one\n", "--if-absent"]);
    let revision = revision.trim();
    let present = format!("quorate: not set: k is \"one\\n\" since revision {revision}\n");
    assert_eq!(refused(&["set", "k", "v", "--if-absent"]), present);
    assert_eq!(refused(&["set", "k", "v", "--if-revision", "0"]), present);
    assert_eq!(refused(&["set", "k", "v", "-p", "two"]), present);
    place.ok(&["set", "k", "two", "--if-revision", revision]);
    place.ok(&["set", "k", "three", "-p", "two"]);
    assert_eq!(place.ok(&["get", "k"]), "three\n");
}

#[test]
fn a_set_with_a_ttl_takes_a_new_lease_and_leaves_the_old_one_to_its_owner() {
    let place = Place::new("ttl");
    let lease = |arguments: &[&str]| {
        let done = place.json(arguments);
        done[0]["lease"]
            .as_str()
            .expect("it has a lease")
            .to_owned()
    };
    let first = lease(&["set", "k", "v", "-t", "100s"]);
    let status = &place.json(&["lease", "status", &first])[0];
    assert_eq!(
        (&status["granted"], &status["keys"]),
        (&json!(100), &json!(["k"]))
    );
    let second = lease(&["set", "k", "v", "--ttl", "99500ms"]);
    assert_ne!(first, second);
    let status = &place.json(&["lease", "status", &first])[0];
    assert_eq!(
        (&status["granted"], &status["keys"]),
        (&json!(100), &json!([]))
    );
    assert_eq!(place.json(&["lease", "status", &second])[0]["granted"], 100);
    let leases = place.ok(&["lease", "list"]);
    place
        .run(&["set", "k", "v", "-t", "100", "--if-absent"])
        .failure(1);
    assert_eq!(place.ok(&["lease", "list"]), leases);
}

#[test]
fn a_prefix_lists_and_deletes_what_begins_with_it() {
    let place = Place::new("prefix");
    for key in ["a/1", "a/2", "b"] {
        place.ok(&["set", key, "v"]);
    }
    assert_eq!(place.ok(&["get", "a/", "--prefix"]), "a/1\tv\na/2\tv\n");
    assert_eq!(place.ok(&["list"]), "a/1\tv\na/2\tv\nb\tv\n");
    assert_eq!(place.ok(&["list", "a/", "--keys-only"]), "a/1\na/2\n");
    let listed = place.json(&["list", "--keys-only"]);
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|key| key.get("value").is_none()));
    assert_eq!(place.json(&["delete", "a/", "--prefix"])[0]["deleted"], 2);
    assert_eq!(place.ok(&["delete", "b"]), "1\n");
    assert_eq!(place.ok(&["list"]), "");
}

#[test]
fn a_namespace_nests_in_that_of_the_url() {
    let place = Place::new("nest");
    place.ok(&["set", "k", "v", "--namespace", "inner"]);
    assert_eq!(place.ok(&["get", "inner/k"]), "v\n");
}

#[test]
fn a_watch_tells_every_change_until_it_is_ended() {
    let place = Place::new("watch");
    let revision = place.ok(&["set", "k/1", "one"]);
    place.ok(&["delete", "k/1"]);
    let from = ["watch", "k/", "--prefix", "--from", revision.trim()];
    let mut watch = Watching::new(place.command(&from));
    assert_eq!(watch.line(), "put\tk/1\tone\n");
    assert_eq!(watch.line(), "delete\tk/1\n");
    place.ok(&["set", "k/2", "two"]);
    assert_eq!(watch.line(), "put\tk/2\ttwo\n");

    let mut watch = Watching::new(place.command(&[&from[..], &["-o", "json"]].concat()));
    let put: Json = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(
        (&put["type"], &put["key"], &put["value"]),
        (&json!("put"), &json!("k/1"), &json!("one"))
    );
    assert_eq!(put["mod_revision"].to_string(), revision.trim());
    let delete: Json = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(
        (&delete["type"], &delete["key"]),
        (&json!("delete"), &json!("k/1"))
    );
    // Other tests write too.
    assert!(delete["mod_revision"].as_i64() > put["mod_revision"].as_i64());
}

#[test]
fn a_watch_once_ends_after_one_change_with_all_of_its_transaction() {
    let place = Place::new("watch-once");
    let txn = Ran::of(
        place.command(&["txn", "-o", "json"]),
        b"\nput a 1\nput b 2\n",
    )
    .ok();
    let txn: Json = serde_json::from_str(&txn).unwrap();
    place.ok(&["set", "c", "3"]);
    let revision = txn["revision"].to_string();
    let seen = place.ok(&["watch", "", "--prefix", "--once", "--from", &revision]);
    assert_eq!(seen, "put\ta\t1\nput\tb\t2\n");
}

#[test]
fn a_watch_from_now_tells_only_what_comes() {
    let place = Place::new("watch-now");
    place.ok(&["set", "k", "before"]);
    let mut watch = Watching::new(place.command(&["watch", "k"]));
    // Whoever waits cannot tell when the watch has begun, so the key is written until it tells.
    let writer = std::thread::spawn(move || {
        while place.run(&["get", "stop"]).code == Some(1) {
            place.ok(&["set", "k", "after"]);
        }
    });
    let line = watch.line();
    Place::new("watch-now").ok(&["set", "stop", "now"]);
    writer.join().unwrap();
    assert_eq!(line, "put\tk\tafter\n");
}

#[test]
fn a_transaction_applies_what_its_conditions_choose() {
    let place = Place::new("txn");
    let txn = |arguments: &[&str], text: &str| {
        Ran::of(
            place.command(&[&["txn"], arguments].concat()),
            text.as_bytes(),
        )
    };
    let text = "version(k) = 0\n\nput k \"a b\"\nget k\n\nget k\ndel k\n";
    assert_eq!(txn(&[], text).ok(), "succeeded\nput\nget\tk\ta b\n");
    let refused = txn(&[], text);
    assert_eq!(refused.code, Some(1));
    assert_eq!(refused.stdout, b"refused\nget\tk\ta b\ndelete\t1\n");
    let done = txn(&["-o", "json"], text).ok();
    let done: Json = serde_json::from_str(&done).unwrap();
    assert_eq!(done["succeeded"], true);
    assert_eq!(done["results"][0], json!({ "type": "put" }));
    assert_eq!(done["results"][1]["kvs"][0]["value"], "a b");
    let refusal = txn(&[], "# take it\nvalue(k) = v\n\ntake k\n").failure(2);
    assert!(
        refusal.contains("line 4: an operation begins with"),
        "{refusal}"
    );
    txn(&[], "\nput k 1\nput k 2\n").failure(2);
}

#[test]
fn a_store_in_memory_serves_verbs_without_any_server() {
    let mut command = quorate();
    command.args(["--url", "mem:", "txn"]);
    let done = Ran::of(command, b"\nput k v\nget k\n").ok();
    assert_eq!(done, "succeeded\nput\nget\tk\tv\n");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let place = Place::new("pipe");
    place.ok(&["set", "k", "v"]);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = place.command(&["get", "k"]);
    let output = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn a_disk_that_is_full_is_a_failure() {
    let place = Place::new("full");
    place.ok(&["set", "k", "v"]);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = place.command(&["get", "k"]);
    let status = command.stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(74));
}

/// A watch that runs until this is dropped.
struct Watching {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watching {
    fn new(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

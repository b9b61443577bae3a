//! The verbs on leases and the cluster, and how the store is found, through the real program.
#![allow(clippy::unwrap_used)] // in what the tests share

mod support;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Stdio,
};

use serde_json::json;
use support::{
    Place, Ran,
    certificates::Certificates,
    etcd::{self, Cluster},
    quorate,
};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = quorate();
    command.args(arguments).envs(variables.iter().copied());
    Ran::of(command, b"")
}

/// A server where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_lease_is_granted_renewed_and_revoked() {
    let place = Place::new("lease");
    let granted = &place.json(&["lease", "grant", "1m"])[0];
    assert_eq!(granted["ttl"], 60);
    let id = granted["lease"].as_str().unwrap();
    assert!(place.ok(&["lease", "list"]).lines().any(|line| line == id));
    assert_eq!(place.ok(&["lease", "keep-alive", id, "--once"]), "60\n");
    let renewed = place.json(&["lease", "keep-alive", &format!("0x{id}"), "--once"]);
    assert_eq!(renewed, [json!({ "lease": id, "ttl": 60 })]);
    let status = place.ok(&["lease", "status", id]);
    assert!(status.starts_with("granted\t60\nremaining\t"), "{status}");
    assert_eq!(place.ok(&["lease", "revoke", id]), "");
    place.run(&["lease", "revoke", id]).failure(3);
    place.run(&["lease", "keep-alive", id]).failure(3);
    let status = place.run(&["lease", "status", id]);
    assert_eq!((status.code, status.stdout), (Some(1), vec![]));
    assert!(!place.ok(&["lease", "grant", "10"]).trim().is_empty());
}

#[test]
fn what_is_compacted_away_is_told_with_the_oldest_revision_kept() {
    let cluster = Cluster::builder().start();
    let server = cluster.endpoint(0);
    let at = |arguments: &[&str]| run(&[&["-s", &server], arguments].concat(), &[]);
    let first = at(&["set", "k", "1"]).ok();
    let second = at(&["set", "k", "2"]).ok();
    assert_eq!(at(&["compact", second.trim(), "--physical"]).ok(), "");
    at(&["compact", second.trim()]).failure(6);
    let future = at(&["compact", "1000000"]).failure(2);
    assert!(future.contains("future revision"), "{future}");
    at(&["get", "k", "--rev", first.trim()]).failure(6);
    let watch = at(&["watch", "k", "--from", first.trim()]).failure(6);
    let oldest = format!("the oldest revision kept is {}", second.trim());
    assert!(watch.contains(&oldest), "{watch}");
}

#[test]
fn the_cluster_tells_its_members_status_and_leader() {
    let cluster = Cluster::builder().members(3).fast().start();
    let server = cluster.endpoint(0);
    let at = |arguments: &[&str]| run(&[&["-s", &server], arguments].concat(), &[]);
    let members = at(&["members"]).ok();
    assert_eq!(members.lines().count(), 3);
    for endpoint in cluster.endpoints() {
        assert!(members.contains(&format!("\t{endpoint}\t")), "{members}");
    }
    let leader = at(&["leader"]).ok();
    let (name, url) = leader.trim().split_once('\t').unwrap();
    let index: usize = name.strip_prefix('m').unwrap().parse().unwrap();
    assert_eq!(url, cluster.endpoint(index));
    let status = at(&["status"]).ok();
    assert!(
        status.lines().any(|line| line.starts_with("version\t3.")),
        "{status}"
    );
    let follower = (0..3).find(|other| *other != index).unwrap();
    cluster.kill(follower);
    let server = cluster.endpoint(index);
    let all = run(&["-s", &server, "status", "--all", "-o", "json"], &[]);
    assert_eq!(all.code, Some(9));
    assert!(all.stderr.contains(&cluster.endpoint(follower)), "{all:?}");
    let all = String::from_utf8(all.stdout).unwrap();
    let all: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(all.len(), 2);
    let leaders: Vec<_> = all
        .iter()
        .filter(|status| status["is_leader"] == true)
        .collect();
    assert!(
        matches!(leaders[..], [leader] if leader["endpoint"] == url),
        "{all:?}"
    );
}

#[test]
fn the_leader_of_an_election_is_told_and_followed() {
    let place = Place::new("leader");
    let nobody = place.run(&["leader", "svc"]);
    assert_eq!((nobody.code, nobody.stdout), (Some(1), vec![]));
    place.ok(&["set", "svc/2a", "first"]);
    place.ok(&["set", "svc/2b", "second"]);
    assert_eq!(place.ok(&["leader", "svc"]), "first\n");
    assert_eq!(place.json(&["leader", "svc"])[0]["key"], "svc/2a");
    let mut watch = place
        .command(&["leader", "svc", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    place.ok(&["delete", "svc/2a"]);
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    place.ok(&["delete", "svc/2b"]);
    assert_eq!(lines.next().unwrap().unwrap(), "");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn the_memory_store_has_a_member_too() {
    let at = |arguments: &[&str]| run(&[&["--url", "mem:"], arguments].concat(), &[]).ok();
    assert!(at(&["members"]).contains("\tmem\tmem:\t"));
    assert!(at(&["status", "--all"]).starts_with("endpoint\tmem:\n"));
    assert_eq!(at(&["leader"]), "mem\tmem:\n");
}

#[test]
fn the_first_that_is_given_names_the_servers() {
    let (server, dead) = (etcd::shared(), nobody());
    Place::new("precedence").ok(&["set", "k", "v"]);
    let get = ["get", "precedence/k"];
    for (typed, variables) in [
        (&["--url", &server][..], [&dead, &dead, &dead]),
        (&["-s", &server], [&dead, &dead, &dead]),
        (&[], [&server, &dead, &dead]),
        (&[], [&String::new(), &server, &dead]),
        (&[], [&String::new(), &String::new(), &server]),
    ] {
        let names = ["QUORATE_URL", "ETCD_SERVERS", "ETCDCTL_ENDPOINTS"];
        let variables = names.into_iter().zip(variables.map(String::as_str));
        let variables: Vec<_> = variables.collect();
        assert_eq!(run(&[typed, &get].concat(), &variables).ok(), "v\n");
    }
    // The living one of several serves.
    let both = format!("{dead},{}", server.strip_prefix("http://").unwrap());
    assert_eq!(run(&["-s", &both, get[0], get[1]], &[]).ok(), "v\n");
}

#[test]
fn no_server_is_told_with_each_address_and_what_to_do() {
    let (one, other) = (nobody(), nobody());
    let told = run(&["-s", &format!("{one} {other}"), "get", "k"], &[]).failure(9);
    for part in [
        &format!("http://{one} (connection refused)"),
        &format!("http://{other} (connection refused)"),
        "`quorate dev`",
        "--url local:",
    ] {
        assert!(told.contains(part), "{told}");
    }
    for verb in [
        &["watch", "k"][..],
        &["leader", "n", "--watch"],
        &["set", "k", "v"],
    ] {
        run(&[&["-s", &one], verb].concat(), &[]).failure(9);
    }
}

#[test]
fn a_server_that_hangs_is_told_with_its_address_in_time() {
    let cluster = Cluster::builder().start();
    cluster.stop(0);
    let server = cluster.endpoint(0);
    let told = run(&["-s", &server, "--timeout", "500ms", "get", "k"], &[]);
    assert!(matches!(told.code, Some(8 | 9)), "{told:?}");
    assert!(told.stderr.contains(&server), "{told:?}");
}

#[test]
fn bad_input_is_refused_in_one_line_with_status_2() {
    for (arguments, why) in [
        (&["--url", "mem:", "-s", "h", "get", "k"][..], "drop one"),
        (
            &["get", "k", "--url", "ftp://h"],
            "--url: the address: the schemes are",
        ),
        (&["get", "k", "-s", "h:x"], "--servers: the address: "),
        (&["get"], "<KEY>"),
        (&["fetch", "k"], "unrecognized subcommand 'fetch'"),
        (&["--url", "mem:", "get", ""], "key is not provided"),
        (&["get", "k", "--rev", "0"], "--rev"),
        (
            &["set", "k", "v", "-t", "soon"],
            "write a duration as a number",
        ),
        (
            &["set", "k", "v", "--if-absent", "-p", "x"],
            "cannot be used with",
        ),
        (&["set", "k", "v", "--tll", "3"], "--ttl"),
        (&["lease", "revoke", "wood"], "hexadecimal digits"),
        (&["lease", "status", "0"], "hexadecimal digits"),
        (&["get", "k", "--timeout", "0"], "timeout of zero"),
        (&["get", "k", "-o", "xml"], "json, text"),
        (&["get", "k", "--user", "root"], "needs a password"),
    ] {
        let told = run(arguments, &[]).failure(2);
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
}

#[test]
fn help_tells_addresses_variables_and_every_exit_status() {
    let help = run(&["--help"], &[]).ok();
    for part in [
        "ETCDCTL_ENDPOINTS",
        "QUORATE_URL",
        "Exit status:",
        "compacted",
        "watch",
    ] {
        assert!(help.contains(part), "{part}");
    }
    assert!(!help.contains("guardian"));
    assert!(
        run(&["txn", "--help"], &[])
            .ok()
            .contains("value(\"stock\") > \"0\"")
    );
}

#[test]
fn certificates_come_from_flags_or_the_environment() {
    let certificates = Certificates::new();
    let files = tempfile::tempdir().unwrap();
    certificates.write(files.path());
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let cluster = Cluster::builder().tls(certificates, true).start();
    let server = cluster.endpoint(0).replace("https://", "");
    let typed = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    run(
        &[&["-s", &server, "set", "k", "v"][..], &typed].concat(),
        &[],
    )
    .ok();
    let variables = [
        ("ETCDCTL_ENDPOINTS", server.as_str()),
        ("ETCDCTL_CACERT", &ca),
        ("ETCDCTL_CERT", &cert),
        ("ETCDCTL_KEY", &key),
    ];
    assert_eq!(run(&["get", "k"], &variables).ok(), "v\n");
    let named = ["--server-name", "localhost", "get", "k"];
    assert_eq!(run(&named, &variables).ok(), "v\n");
    let stranger = ["--server-name", "elsewhere", "get", "k"];
    run(&stranger, &variables).failure(9);
}

#[test]
fn a_user_authenticates_and_no_message_shows_the_password() {
    let cluster = Cluster::builder().start();
    let server = cluster.endpoint(0);
    for arguments in [
        &["user", "add", "root:hunter2"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl(arguments);
    }
    let at = |arguments: &[&str], variables: &[(&str, &str)]| {
        run(&[&["-s", &server], arguments].concat(), variables)
    };
    at(&["set", "k", "v", "--user", "root:hunter2"], &[]).ok();
    let environment = [("ETCDCTL_USER", "root"), ("ETCDCTL_PASSWORD", "hunter2")];
    assert_eq!(at(&["get", "k"], &environment).ok(), "v\n");
    let nobody = at(&["get", "k"], &[]).failure(10);
    assert!(nobody.contains("--user"), "{nobody}");
    let wrong = at(
        &["get", "k", "--user", "root", "--password", "hunter3"],
        &[],
    )
    .failure(10);
    assert!(!wrong.contains("hunter3"), "{wrong}");
    let url = "etcd://root:hunter2@h:0/";
    let wrong = run(&["get", "k", "--url", url], &[]).failure(2);
    assert!(!wrong.contains("hunter2"), "{wrong}");
}

//! etcdctl can use the server as it uses an etcd.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{
    env,
    process::{Output, Stdio},
    time::Duration,
};

use quorate_server::Server;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How long etcdctl may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn etcdctl(server: &Server, args: &[&str]) -> Command {
    let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    let mut command = Command::new(program);
    command
        .env("ETCDCTL_API", "3")
        .env_remove("ETCDCTL_BIN") // it complains of what it does not know
        .env("ETCDCTL_ENDPOINTS", server.url())
        .args(args)
        .kill_on_drop(true);
    command
}

async fn finished(mut command: Command) -> Output {
    let finished = tokio::time::timeout(PATIENCE, command.output()).await;
    finished.expect("etcdctl hangs").unwrap()
}

/// What a command that succeeds prints.
async fn run(server: &Server, args: &[&str]) -> String {
    let output = finished(etcdctl(server, args)).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that fails complains of.
async fn complaint(server: &Server, args: &[&str]) -> String {
    let output = finished(etcdctl(server, args)).await;
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A command that goes on, and the lines that it prints.
fn start(server: &Server, args: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = etcdctl(server, args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    line.expect("etcdctl is silent").unwrap()
}

#[tokio::test]
async fn keys_are_put_read_and_deleted() {
    let server = Server::start().await.unwrap();
    assert_eq!(run(&server, &["put", "a/1", "one"]).await, "OK\n");
    assert_eq!(run(&server, &["put", "a/2", "two"]).await, "OK\n");
    assert_eq!(
        run(&server, &["put", "--prev-kv", "a/2", "zwei"]).await,
        "OK\na/2\ntwo\n"
    );
    assert_eq!(
        run(&server, &["get", "--prefix", "a/"]).await,
        "a/1\none\na/2\nzwei\n"
    );
    let order = ["get", "--prefix", "a/", "--order=DESCEND", "--keys-only"];
    assert_eq!(run(&server, &order).await, "a/2\n\na/1\n\n");
    assert_eq!(run(&server, &["get", "--rev=3", "a/2"]).await, "a/2\ntwo\n");
    assert_eq!(run(&server, &["del", "--prefix", "a/"]).await, "2\n");
    assert_eq!(run(&server, &["get", "--prefix", "a/"]).await, "");
}

#[tokio::test]
async fn a_transaction_is_applied() {
    let server = Server::start().await.unwrap();
    let mut command = etcdctl(&server, &["txn"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let txn = "create(\"k\") = \"0\"\n\nput k made\nget k\n\nget k\n\n";
    stdin.write_all(txn.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = String::from_utf8(output.unwrap().unwrap().stdout).unwrap();
    assert_eq!(output, "SUCCESS\n\nOK\n\nk\nmade\n");
}

#[tokio::test]
async fn a_watch_tells_of_the_past_and_goes_on_until_the_server_ends() {
    let server = Server::start().await.unwrap();
    run(&server, &["put", "k", "first"]).await;
    let (mut child, mut lines) = start(&server, &["watch", "--rev=2", "--prefix", ""]);
    for expected in ["PUT", "k", "first"] {
        assert_eq!(line(&mut lines).await.as_deref(), Some(expected));
    }
    run(&server, &["del", "k"]).await;
    for expected in ["DELETE", "k", ""] {
        assert_eq!(line(&mut lines).await.as_deref(), Some(expected));
    }
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_told_so() {
    let server = Server::start().await.unwrap();
    for value in ["1", "2", "3"] {
        run(&server, &["put", "k", value]).await;
    }
    assert_eq!(
        run(&server, &["compaction", "4"]).await,
        "compacted revision 4\n"
    );
    let refused = complaint(&server, &["watch", "--rev=2", "k"]).await;
    assert!(refused.contains("revision has been compacted"), "{refused}");
    let refused = complaint(&server, &["get", "--rev=2", "k"]).await;
    assert!(refused.contains("revision has been compacted"), "{refused}");
    let refused = complaint(&server, &["compaction", "4"]).await;
    assert!(refused.contains("revision has been compacted"), "{refused}");
}

#[tokio::test]
async fn a_lease_is_granted_kept_alive_listed_and_revoked() {
    let server = Server::start().await.unwrap();
    let granted = run(&server, &["lease", "grant", "60"]).await;
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    run(&server, &["put", &format!("--lease={id}"), "k", "v"]).await;

    let kept = run(&server, &["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(kept, format!("lease {id} keepalived with TTL(60)\n"));
    let left = run(&server, &["lease", "timetolive", "--keys", &id]).await;
    assert!(left.contains("granted with TTL(60s), remaining("), "{left}");
    assert!(left.contains("attached keys([k])"), "{left}");
    let listed = run(&server, &["lease", "list"]).await;
    assert_eq!(listed, format!("found 1 leases\n{id}\n"));

    let revoked = run(&server, &["lease", "revoke", &id]).await;
    assert_eq!(revoked, format!("lease {id} revoked\n"));
    assert_eq!(run(&server, &["get", "k"]).await, "");
    let left = run(&server, &["lease", "timetolive", &id]).await;
    assert!(left.contains("already expired"), "{left}");
    let refused = complaint(&server, &["lease", "revoke", &id]).await;
    assert!(refused.contains("requested lease not found"), "{refused}");
}

#[tokio::test]
async fn the_member_tells_of_itself() {
    let server = Server::start().await.unwrap();
    let members = run(&server, &["member", "list"]).await;
    assert!(members.contains(server.url()), "{members}");
    assert_eq!(run(&server, &["alarm", "list"]).await, "");

    // To ask a single member etcdctl 3.4 needs it without a scheme: it sends what it is given as the
    // authority.
    for (args, expected) in [
        (&["endpoint", "status"][..], "3.5.0"),
        (&["endpoint", "health"], ""),
        (&["endpoint", "hashkv"], &server.addr().unwrap().to_string()),
        (&["defrag"], "Finished defragmenting"),
    ] {
        let mut command = etcdctl(&server, args);
        command.env("ETCDCTL_ENDPOINTS", server.addr().unwrap().to_string());
        let output = finished(command).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn users_and_roles_are_kept() {
    let server = Server::start().await.unwrap();
    run(&server, &["role", "add", "reader"]).await;
    let grant = [
        "role",
        "grant-permission",
        "reader",
        "read",
        "--prefix",
        "a/",
    ];
    run(&server, &grant).await;
    run(&server, &["user", "add", "ada:secret"]).await;
    run(&server, &["user", "grant-role", "ada", "reader"]).await;
    assert_eq!(run(&server, &["user", "list"]).await, "ada\n");
    let user = run(&server, &["user", "get", "ada"]).await;
    assert_eq!(user, "User: ada\nRoles: reader\n");
    let role = run(&server, &["role", "get", "reader"]).await;
    assert!(role.contains("[a/, a0) (prefix a/)"), "{role}");
    let refused = complaint(&server, &["auth", "enable"]).await;
    assert!(refused.contains("cannot be enabled"), "{refused}");
}

#[tokio::test]
async fn etcdctl_s_own_locks_take_turns() {
    let server = Server::start().await.unwrap();
    let (mut holder, mut held) = start(&server, &["lock", "jobs"]);
    let key = line(&mut held).await.unwrap();
    assert!(key.starts_with("jobs/"), "{key}");
    let (mut waiter, mut waiting) = start(&server, &["lock", "jobs"]);
    // Killed, so that its lease has to run out or the key to be deleted by hand.
    holder.kill().await.unwrap();
    run(&server, &["del", &key]).await;
    let next = line(&mut waiting).await.unwrap();
    assert!(next.starts_with("jobs/") && next != key, "{next}");
    waiter.kill().await.unwrap();
}

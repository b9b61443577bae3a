//! `etcd-test` on a real etcd: each call with what it prints, where, and its exit status.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    net::TcpListener,
    os::unix::fs::symlink,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use quorate::Client;
use quorate_server::Server;
use running::{Running, etcd, etcdctl, until, until_queue_is};
use support::{
    Ran,
    proxy::{Network, Proxy},
};
use tokio::runtime::Runtime;

mod running;
mod support;

/// The address as etcd-test was given it.
fn servers() -> String {
    etcd::shared().strip_prefix("http://").unwrap().to_owned()
}

fn command(servers: &str, args: &[&str]) -> Command {
    let mut command = support::quorate();
    command
        .arg("etcd-test")
        .env("ETCD_SERVERS", servers)
        .args(args);
    command
}

/// Runs a call to its end: exit status, standard output, standard error.
fn call(args: &[&str]) -> (i32, String, String) {
    ended(command(&servers(), args))
}

fn ended(command: Command) -> (i32, String, String) {
    let ran = Ran::of(command, b"");
    (
        ran.code.unwrap(),
        String::from_utf8(ran.stdout).unwrap(),
        ran.stderr,
    )
}

#[track_caller]
fn says(args: &[&str], code: i32, stdout: &str, stderr: &str) {
    let expected = (code, stdout.to_owned(), stderr.to_owned());
    assert_eq!(call(args), expected, "{args:?}");
}

/// Acquires a lock and returns its index.
fn locked(args: &[&str]) -> String {
    let (code, stdout, stderr) = call(args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    let index = stdout.strip_prefix("got back index number ").unwrap();
    index.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn each_verb_prints_what_it_always_did() {
    verbs(&etcd::shared());
}

#[test]
fn each_verb_prints_the_same_on_dev() {
    let mut dev = support::quorate();
    dev.args(["dev", "--listen", "127.0.0.1:0", "--exit-when-idle", "1m"]);
    let dev = Running::start(dev);
    verbs(&dev.line());
}

fn verbs(url: &str) {
    let servers = url.strip_prefix("http://").unwrap();
    let says = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        let expected = (code, stdout.to_owned(), stderr.to_owned());
        assert_eq!(ended(command(servers, args)), expected, "{args:?}");
    };
    says(&["get", "verbs/a"], 1, "", "etcd_get failed\n");
    says(&["set", "verbs/a", "one"], 0, "", "");
    says(&["get", "verbs/a"], 0, "got value: one\n", "");
    // Slashes at the beginning do not count.
    says(&["get", "/verbs/a"], 0, "got value: one\n", "");
    says(&["set", "//verbs/b", "two words"], 0, "", "");
    let raw = etcdctl(url, &["get", "verbs/b", "--print-value-only"]).ended();
    assert_eq!(raw.stdout, "two words");
    says(&["get", "verbs"], 0, "got value: one\ntwo words\n", "");
    says(&["get", "/verbs/"], 0, "got value: one\ntwo words\n", "");
    says(&["get", "verb"], 1, "", "etcd_get failed\n");
    says(&["set", "-p", "one", "verbs/a", "three"], 0, "", "");
    says(
        &["set", "-p", "one", "verbs/a", "four"],
        1,
        "",
        "etcd_set failed\n",
    );
    says(
        &["set", "-p", "", "verbs/c", "x"],
        1,
        "",
        "etcd_set failed\n",
    );
    says(&["get", "verbs/a"], 0, "got value: three\n", "");
    says(&["set", "verbs/a", ""], 0, "", "");
    says(&["get", "verbs/a"], 0, "got value: \n", "");
    says(&["delete", "verbs/a"], 0, "", "");
    says(&["delete", "/verbs/a"], 1, "", "etcd_delete failed\n");
    says(&["delete", "verbs"], 1, "", "etcd_delete failed\n");
    says(&["get", ""], 1, "", "etcd_get failed\n");
    says(&["set", "/", "x"], 1, "", "etcd_set failed\n");
    says(&["delete", ""], 1, "", "etcd_delete failed\n");
    let leader = format!("leader is {url}\n");
    says(&["leader"], 0, &leader, "");
    says(&["LEADER"], 0, &leader, "");

    let (code, index, complaints) = ended(command(servers, &["lock", "--ttl", "60", "/verbs/l"]));
    assert_eq!((code, &*complaints), (0, ""));
    let number = index.strip_prefix("got back index number ").unwrap();
    let number = number.strip_suffix('\n').unwrap();
    let renewal = ["lock", "--ttl=30", "--index", number, "verbs/l"];
    says(&renewal, 0, &index, "");
    says(&["unlock", "--index", number, "verbs/l"], 0, "", "");
    says(&renewal, 1, "", "etcd_lock failed\n");
    says(
        &["unlock", "-i", number, "verbs/l"],
        1,
        "",
        "etcd_unlock failed\n",
    );
    // The lock's key is no change of another name's.
    let mut watch = Running::start(command(servers, &["watch", "-i", "1", "/verbs/a"]));
    assert!(index_of(&watch.line()) > 1);
    assert_eq!(watch.line(), "key verbs/a was set to one");
    assert!(index_of(&watch.line()) > 1);
    assert_eq!(watch.line(), "key verbs/a was set to three");
    assert!(index_of(&watch.line()) > 1);
    assert_eq!(watch.line(), "key verbs/a was set to ");
    assert!(index_of(&watch.line()) > 1);
    assert_eq!(watch.line(), "key verbs/a was deleted");
    assert!(watch.is_running());
}

#[test]
fn servers_come_from_the_option_or_the_environment_and_the_next_one_is_tried() {
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let real = servers();
    says(&["set", "servers", "v"], 0, "", "");
    for separator in [",", ";", " ", "\t", "\n", " , "] {
        let list = format!("{dead}{separator}{real}");
        let mut with_option = support::quorate();
        with_option.args(["etcd-test", "get", "servers", "-s", &list]);
        assert_eq!(
            ended(with_option),
            (0, "got value: v\n".into(), String::new())
        );
        let from_environment = command(&list, &["get", "servers"]);
        assert_eq!(
            ended(from_environment),
            (0, "got value: v\n".into(), String::new())
        );
    }
    let option_wins = command(&dead, &["-s", &real, "get", "servers"]);
    assert_eq!(ended(option_wins).0, 0);
    for (verb, name) in [
        (&["get", "k"][..], "get"),
        (&["set", "k", "v"], "set"),
        (&["delete", "k"], "delete"),
        (&["watch", "k"], "watch"),
        (&["watch", "-i", "3", "k"], "watch"),
        (&["leader"], "leader"),
        (&["lock", "-t", "5", "k"], "lock"),
        (&["lock", "-t", "5", "-i", "3", "k"], "lock"),
        (&["unlock", "-i", "3", "k"], "unlock"),
    ] {
        let message = format!("etcd_{name} failed\n");
        assert_eq!(ended(command(&dead, verb)), (1, String::new(), message));
    }
    for bad in ["", " ; ,", "host:port", "etcd://h?x=1"] {
        let message = "etcd_open failed\n".to_owned();
        assert_eq!(
            ended(command(bad, &["get", "k"])),
            (1, String::new(), message),
            "{bad}"
        );
    }
    let memory = command("mem:", &["leader"]);
    assert_eq!(ended(memory).0, 0);
}

#[test]
fn a_wrong_call_is_told_the_usage() {
    for args in [
        &[][..],
        &["get"],
        &["get", "a", "b"],
        &["get", "-t", "1", "a"],
        &["lock", "a"],
        &["unlock", "a"],
        &["set", "a"],
        &["set", "-i", "1", "a", "b"],
        &["watch", "-i", "x", "a"],
        &["-x"],
        &["-i"],
        &["list"],
    ] {
        let (code, stdout, stderr) = call(args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}");
        let usage = stderr.lines().nth(1).unwrap();
        assert!(usage.starts_with("Usage: "), "{stderr}");
        assert!(
            usage.ends_with(" etcd-test [-s SERVERS] COMMAND ..."),
            "{stderr}"
        );
    }
    let mut nowhere = support::quorate();
    nowhere.args(["etcd-test", "get", "k"]);
    let (code, stdout, stderr) = ended(nowhere);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("\nUsage: "), "{stderr}");
}

#[test]
fn a_link_of_its_name_is_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("etcd-test");
    symlink(env!("CARGO_BIN_EXE_quorate"), &link).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&link);
        command.env("ETCD_SERVERS", servers()).args(args);
        ended(command)
    };
    assert_eq!(
        run(&["set", "link", "v"]),
        (0, String::new(), String::new())
    );
    assert_eq!(
        run(&["get", "link"]),
        (0, "got value: v\n".into(), String::new())
    );
    let (code, _, stderr) = run(&["get"]);
    assert_eq!(code, 1);
    let usage = format!("Usage: {} [-s SERVERS] COMMAND ...", link.display());
    assert!(stderr.lines().any(|line| line == usage), "{stderr}");
}

#[test]
fn a_key_with_a_ttl_vanishes_and_without_stays() {
    says(&["set", "-t", "2", "ttl/a", "v"], 0, "", "");
    says(&["set", "--ttl=2", "ttl/b", "v"], 0, "", "");
    says(
        &["set", "-t", "2", "-p", "v", "ttl/c", "v"],
        1,
        "",
        "etcd_set failed\n",
    );
    says(&["set", "ttl/b", "v"], 0, "", "");
    says(&["get", "ttl/a"], 0, "got value: v\n", "");
    until("it vanishes", || call(&["get", "ttl/a"]).0 == 1);
    says(&["get", "ttl/b"], 0, "got value: v\n", "");
}

/// Watches, from the present on once this returns.
fn watching(endpoint: &str, watched: &str, key: &str) -> Running {
    let servers = endpoint.strip_prefix("http://").unwrap();
    let running = Running::start(command(servers, &["watch", watched]));
    // It tells nothing until there is something to tell.
    let probe = format!("{key}/probe");
    let put = |value: &str| etcdctl(endpoint, &["put", &probe, value]).ended();
    until("it watches", || {
        put("x");
        thread::sleep(Duration::from_millis(20));
        !running.is_silent()
    });
    put("end");
    while running.line() != format!("key {probe} was set to end") {}
    running
}

fn index_of(line: &str) -> i64 {
    line.strip_prefix("index is ").unwrap().parse().unwrap()
}

#[test]
fn a_watch_tells_one_change_after_another() {
    let cluster = etcd::Cluster::builder().start();
    let endpoint = cluster.endpoint(0);
    let servers = endpoint.strip_prefix("http://").unwrap();
    let ctl = |args: &[&str]| etcdctl(&endpoint, args).ended();
    let mut watch = watching(&endpoint, "/seen", "seen");
    ctl(&["put", "seen", "1"]);
    ctl(&["put", "seen-not", "1"]);
    ctl(&["put", "seen/below", "2 words"]);
    ctl(&["del", "seen"]);
    let first = index_of(&watch.line());
    assert_eq!(watch.line(), "key seen was set to 1");
    assert_eq!(index_of(&watch.line()), first + 2);
    assert_eq!(watch.line(), "key seen/below was set to 2 words");
    assert_eq!(index_of(&watch.line()), first + 3);
    assert_eq!(watch.line(), "key seen was deleted");
    assert!(watch.is_running());

    // From an index on, that included.
    let from = first.to_string();
    let mut again = Running::start(command(servers, &["watch", "seen", "-i", &from]));
    assert_eq!(index_of(&again.line()), first);
    assert_eq!(again.line(), "key seen was set to 1");
    assert_eq!(index_of(&again.line()), first + 2);
    again.signal(Signal::SIGTERM);
    assert_eq!(again.ended().code, None);

    // The changes of one transaction have one index.
    let mut txn = etcdctl(&endpoint, &["txn"]);
    txn.say("\nput seen/x 1\nput seen/y 2\n\n");
    txn.ended();
    let index = index_of(&watch.line());
    assert_eq!(watch.line(), "key seen/x was set to 1");
    assert_eq!(index_of(&watch.line()), index);
    assert_eq!(watch.line(), "key seen/y was set to 2");
}

#[test]
fn a_watch_goes_on_after_the_server_was_away_and_its_history_compacted() {
    let cluster = etcd::Cluster::builder().start();
    let endpoint = cluster.endpoint(0);
    let servers = endpoint.strip_prefix("http://").unwrap().to_owned();
    let put = |key: &str, value: &str| etcdctl(&endpoint, &["put", key, value]).ended();
    put("k", "0");
    let mut watch = Running::start(command(&servers, &["watch", "-i", "2", "k"]));
    assert_eq!(watch.line(), "index is 2");
    assert_eq!(watch.line(), "key k was set to 0");
    cluster.kill(0);
    thread::sleep(Duration::from_secs(1));
    cluster.restart(0);
    put("k", "1");
    assert_eq!(watch.line(), "index is 3");
    assert_eq!(watch.line(), "key k was set to 1");
    // Nothing of it is missing, though what was not its own is compacted away.
    for _ in 0..5 {
        put("other", "x");
    }
    cluster.kill(0);
    cluster.restart(0);
    put("k", "2");
    etcdctl(&endpoint, &["compaction", "9"]).ended();
    assert_eq!(watch.line(), "index is 9");
    assert_eq!(watch.line(), "key k was set to 2");
    assert!(watch.is_running());
    // To begin with what is gone is an error.
    let gone = command(&servers, &["watch", "-i", "3", "k"]);
    assert_eq!(
        ended(gone),
        (1, String::new(), "etcd_watch failed\n".into())
    );
}

#[test]
fn a_lock_lives_for_its_ttl_and_excludes_every_other_hold() {
    let began = Instant::now();
    let index = locked(&["lock", "-t", "4", "/excludes"]);
    let url = etcd::shared();
    let rival = running::run(&url, &["lock", "excludes", "--try", "--", "true"]);
    assert_eq!(rival.code, Some(75));
    let shown = running::run(&url, &["locks", "show", "excludes"]).stdout;
    assert_eq!(shown.split('\t').nth(1), Some(&*index));
    let next = locked(&["lock", "-t", "30", "excludes"]);
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(index.parse::<i64>().unwrap() < next.parse::<i64>().unwrap());
    says(
        &["unlock", "-i", &index, "excludes"],
        1,
        "",
        "etcd_unlock failed\n",
    );
    says(
        &["lock", "-t", "4", "-i", &index, "excludes"],
        1,
        "",
        "etcd_lock failed\n",
    );
    says(
        &["unlock", "-i", &next, "other"],
        1,
        "",
        "etcd_unlock failed\n",
    );
    says(&["unlock", "--index", &next, "/excludes"], 0, "", "");
    says(
        &["unlock", "-i", &next, "excludes"],
        1,
        "",
        "etcd_unlock failed\n",
    );
    assert_eq!(
        running::run(&url, &["locks", "show", "excludes"]).stdout,
        ""
    );
    for bad in ["", "x", "-1", "0", "99999999999999999999"] {
        says(
            &["unlock", "-i", bad, "excludes"],
            1,
            "",
            "etcd_unlock failed\n",
        );
    }
    says(
        &["lock", "-t", "0", "excludes"],
        1,
        "",
        "etcd_lock failed\n",
    );
}

#[test]
fn a_renewed_lock_lives_on() {
    let index = locked(&["lock", "-t", "3", "renewed"]);
    let told = format!("got back index number {index}\n");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1500));
        says(&["lock", "-t", "3", "-i", &index, "renewed"], 0, &told, "");
    }
    says(
        &["lock", "-t", "600", &format!("-i{index}"), "renewed"],
        0,
        &told,
        "",
    );
    thread::sleep(Duration::from_secs(5));
    says(&["unlock", "-i", &index, "renewed"], 0, "", "");
}

#[test]
fn a_lock_that_is_interrupted_while_it_waits_leaves_no_key() {
    let url = etcd::shared();
    let index = locked(&["lock", "-t", "60", "interrupted"]);
    let mut waiting = Running::start(command(&servers(), &["lock", "-t", "600", "interrupted"]));
    until_queue_is(&url, "interrupted", 2);
    assert_eq!(waiting.interrupt(), Some(130));
    until_queue_is(&url, "interrupted", 1);
    // Who waits for longer than its ttl holds all the same.
    let mut waiting = Running::start(command(&servers(), &["lock", "-t", "2", "interrupted"]));
    thread::sleep(Duration::from_secs(4));
    assert!(waiting.is_running());
    says(&["unlock", "-i", &index, "interrupted"], 0, "", "");
    assert!(waiting.line().starts_with("got back index number "));
    assert_eq!(waiting.ended().code, Some(0));
}

/// The connection breaks once the write is done, before its answer is back. Another way to the store is
/// known.
#[test]
fn a_write_without_an_answer_fails_and_is_not_sent_again() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start()).unwrap();
    let proxy = runtime.block_on(Proxy::before(server.url()));
    let client = runtime.block_on(Client::connect(server.url())).unwrap();
    let list = [&*proxy.url(), server.url()].map(|url| url["http://".len()..].to_owned());
    let list = list.join(";");
    // It may go the other way, and succeed.
    let is_lost = (0..20).any(|number| {
        let name = format!("fate/{number}");
        let get = || runtime.block_on(client.get(name.as_str())).unwrap();
        proxy.set(Network::Delay(Duration::from_millis(200)));
        let ended = thread::scope(|scope| {
            let process = scope.spawn(|| ended(command(&list, &["set", &name, "v"])));
            until("it is done", || get().is_some());
            proxy.set(Network::Reset);
            process.join().unwrap()
        });
        assert_eq!(get().map(|kv| kv.version), Some(1), "{ended:?}");
        let is_lost = ended.0 == 1;
        let complaint = if is_lost { "etcd_set failed\n" } else { "" };
        assert_eq!(
            ended,
            (i32::from(is_lost), String::new(), complaint.to_owned())
        );
        is_lost
    });
    assert!(is_lost);
}

#[test]
fn a_server_that_never_answers_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let list = format!("{} {}", silent.local_addr().unwrap(), servers());
    for (args, stdout) in [
        (&["set", "passed", "v"][..], ""),
        (&["get", "passed"], "got value: v\n"),
        (&["delete", "passed"], ""),
    ] {
        let began = Instant::now();
        let expected = (0, stdout.to_owned(), String::new());
        assert_eq!(ended(command(&list, args)), expected, "{args:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{args:?}");
    }
}

/// One queue for both command lines, in the order of coming, whoever dies in the middle of it.
#[test]
fn a_lock_takes_its_turn_among_those_of_quorate() {
    let url = etcd::shared();
    let mut holder = running::quorate(&url, &["lock", "turns", "--", "cat"]);
    until_queue_is(&url, "turns", 1);
    let killed = Running::start(command(&servers(), &["lock", "-t", "2", "turns"]));
    until_queue_is(&url, "turns", 2);
    let mut first = Running::start(command(&servers(), &["lock", "-t", "60", "turns"]));
    until_queue_is(&url, "turns", 3);
    let second = running::quorate(&url, &["lock", "turns", "--", "echo", "second"]);
    until_queue_is(&url, "turns", 4);
    killed.signal(Signal::SIGKILL);
    until_queue_is(&url, "turns", 3);
    assert!(first.is_running() && first.is_silent());
    holder.ended();
    let line = first.line();
    let index = line.strip_prefix("got back index number ").unwrap();
    assert_eq!(first.ended().code, Some(0));
    thread::sleep(Duration::from_millis(300));
    assert!(second.is_silent());
    says(&["unlock", "-i", index, "turns"], 0, "", "");
    assert_eq!(second.line(), "second");
}

#[test]
fn a_time_beyond_all_bounds_is_refused() {
    for ttl in ["18446744073709551615", "9000000001"] {
        says(&["lock", "-t", ttl, "bounds"], 1, "", "etcd_lock failed\n");
        says(
            &["set", "-t", ttl, "bounds", "v"],
            1,
            "",
            "etcd_set failed\n",
        );
    }
    let index = locked(&["lock", "-t", "4294967295", "bounds"]);
    says(
        &["lock", "-t", "18446744073709551615", "-i", &index, "bounds"],
        1,
        "",
        "etcd_lock failed\n",
    );
    says(&["unlock", "-i", &index, "bounds"], 0, "", "");
}

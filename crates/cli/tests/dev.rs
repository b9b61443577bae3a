//! The server that `quorate dev` is.
#![allow(clippy::unwrap_used)] // here a panic is a failed test

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::getsid,
};

mod running;
mod support;

use crate::{
    running::{Running, is_dead, pid, run, until},
    support::{Ran, certificates::Certificates},
};

/// A server that serves, and the URL that it printed.
fn dev(arguments: &[&str]) -> (Running, String) {
    let server = Running::start(command(arguments));
    let url = server.line();
    (server, url)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = support::quorate();
    command.arg("dev").args(arguments);
    command
}

/// Starts what does not start, and returns its complaint.
#[track_caller]
fn refusal(arguments: &[&str], code: i32) -> String {
    Ran::of(command(arguments), b"").failure(code)
}

#[test]
fn it_prints_one_line_with_a_url_that_can_be_used() {
    let (mut server, url) = dev(&["--listen", "127.0.0.1:0"]);
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(run(&url, &["set", "a", "b"]).code, Some(0));
    assert_eq!(run(&url, &["get", "a"]).stdout, "b");
    let hosts = url.strip_prefix("http://").unwrap();
    assert_eq!(
        running::etcdctl(hosts, &["get", "a"]).ended().stdout,
        "a\nb"
    );
    server.signal(Signal::SIGTERM);
    let ended = server.ended();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
    for hint in [
        "in memory, and gone when this ends",
        &format!("export QUORATE_URL={url};"),
        "etcdctl --endpoints http://127.0.0.1:",
    ] {
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
}

#[test]
fn a_call_that_is_being_served_is_answered_before_the_server_ends() {
    let (mut server, url) = dev(&["--listen", "127.0.0.1:0"]);
    let address = url.strip_prefix("http://").unwrap();
    let mut call = TcpStream::connect(address).unwrap();
    call.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let body = r#"{"key":"Zm9v"}"#;
    let (first, rest) = body.split_at(5);
    let length = body.len();
    let head = format!("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n");
    // The server says "continue" once somebody reads the body: then it is being served.
    write!(call, "{head}Expect: 100-continue\r\n\r\n").unwrap();
    let mut told = [0; 25];
    call.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    call.write_all(first.as_bytes()).unwrap();

    server.signal(Signal::SIGTERM);
    until("it takes nobody any more", || {
        TcpStream::connect(address).is_err()
    });
    call.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    call.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.ended().code, Some(0));
}

#[test]
fn it_listens_on_a_unix_socket_that_only_its_owner_uses() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a socket");
    let listen = format!("unix:{}", socket.display());
    let (mut server, url) = dev(&["--listen", &listen]);
    assert_eq!(
        url,
        format!("unix://{}/a%20socket", folder.path().display())
    );
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(run(&url, &["set", "a", "b"]).code, Some(0));
    assert!(run(&url, &["health"]).stdout.contains("cluster\tup"));
    assert_eq!(server.interrupt(), Some(0));
    assert!(!socket.exists());
    let complaint = run(&url, &["get", "a"]);
    assert_eq!(complaint.code, Some(9));
    assert!(
        complaint.stderr.contains("there is no such socket"),
        "{complaint:?}"
    );
}

#[test]
fn a_port_that_is_taken_is_told_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let complaint = refusal(&["--listen", &address], 74);
    assert!(
        complaint.contains(&format!("{address} is in use")),
        "{complaint}"
    );
    assert!(complaint.contains("--listen 127.0.0.1:0"), "{complaint}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let complaint = refusal(&["--listen", "0.0.0.0:0"], 2);
    assert!(complaint.contains("--allow-remote"), "{complaint}");
    for (arguments, hint) in [
        (&["--listen", "nonsense"][..], "127.0.0.1:2379"),
        (
            &["--listen", "127.0.0.1:0", "--advertise", "x"],
            "http://host",
        ),
        (
            &["--listen", "127.0.0.1:0", "--url", "mem:"],
            "no option of a connection",
        ),
        (&["-o", "json"], "no --output"),
        (
            &["--listen", "127.0.0.1:0", "--user", "u:p"],
            "no option of a connection",
        ),
    ] {
        let complaint = refusal(arguments, 2);
        assert!(complaint.contains(hint), "{complaint}");
    }
    let (mut server, url) = dev(&["--listen", "0.0.0.0:0", "--allow-remote"]);
    assert_eq!(run(&url, &["set", "a", "b"]).code, Some(0));
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn it_speaks_tls_with_whom_it_shall() {
    let folder = tempfile::tempdir().unwrap();
    Certificates::new().write(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(file);
    let [client_cert, client_key] = ["client.pem", "client.key"].map(file);
    let listen = ["--listen", "127.0.0.1:0"];
    let tls = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    let (mut server, url) = dev(&[&listen[..], &tls[..]].concat());
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let trusting = format!("{url}?ca={ca}");
    let known = format!("{trusting}&cert={client_cert}&key={client_key}");
    assert_eq!(run(&known, &["set", "a", "b"]).code, Some(0));
    assert_eq!(run(&trusting, &["set", "a", "c"]).code, Some(9));
    assert_eq!(server.interrupt(), Some(0));
    let complaint = refusal(&["--listen", "127.0.0.1:0", "--tls-cert", &cert], 2);
    assert!(complaint.contains("--tls-key"), "{complaint}");
    let swapped = ["--tls-cert", &key, "--tls-key", &cert];
    let complaint = refusal(&[&listen[..], &swapped[..]].concat(), 2);
    assert!(complaint.contains("certificate"), "{complaint}");
}

#[test]
fn it_tells_the_url_that_it_is_to_advertise() {
    let advertised = "http://store.example:2379";
    let (mut server, url) = dev(&["--listen", "127.0.0.1:0", "--advertise", advertised]);
    assert!(run(&url, &["members"]).stdout.contains(advertised));
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn data_survive_its_kill_and_belong_to_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let (mut server, url) = dev(&arguments);
    assert_eq!(mode(&data), 0o700);
    let first: i64 = run(&url, &["set", "a", "b"]).stdout.parse().unwrap();
    let complaint = refusal(&arguments, 75);
    assert!(
        complaint.contains("another server has the data"),
        "{complaint}"
    );
    server.signal(Signal::SIGKILL);
    let ended = server.ended();
    assert!(ended.stderr.contains("the data is in "), "{ended:?}");

    let (mut server, url) = dev(&arguments);
    assert_eq!(run(&url, &["get", "a"]).stdout, "b");
    let second: i64 = run(&url, &["set", "a", "c"]).stdout.parse().unwrap();
    assert!(second > first);
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn it_ends_if_its_data_directory_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let (mut server, _) = dev(&arguments);
    fs::remove_dir_all(&data).unwrap();
    let ended = server.ended();
    assert_eq!(ended.code, Some(74));
    assert!(ended.stderr.contains("was removed"), "{ended:?}");
}

#[test]
fn it_ends_when_it_is_idle_and_not_before() {
    let (mut server, url) = dev(&["--listen", "127.0.0.1:0", "--exit-when-idle", "300ms"]);
    let watch = running::quorate(&url, &["observe", "a"]);
    let granted = run(&url, &["lease", "grant", "2s"]);
    assert_eq!(granted.code, Some(0), "{granted:?}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert!(server.is_running());
        std::thread::yield_now();
    }
    drop(watch);
    assert_eq!(server.ended().code, Some(0));
    // The lease kept it.
    assert!(
        begun.elapsed() > Duration::from_millis(1800),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn it_ends_when_it_is_asked_though_clients_are_there() {
    let (mut server, url) = dev(&["--listen", "127.0.0.1:0"]);
    let holder = running::quorate(&url, &["lock", "a"]);
    holder.line();
    let _watch = running::quorate(&url, &["observe", "a"]);
    let begun = Instant::now();
    assert_eq!(server.interrupt(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn one_that_is_detached_keeps_nothing_of_who_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Descriptor 7 is a pipe that the shell waits for, as it does for that of standard output.
    let script = format!(
        "url=$({{ {} dev --detach --listen 127.0.0.1:0 --exit-when-idle 1s --log {} >&9; }} \
         9>&1 7>&1 | cat); echo \"$url\"",
        env!("CARGO_BIN_EXE_quorate"),
        log.display()
    );
    let begun = Instant::now();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]);
    let url = Ran::of(command, b"").ok();
    let url = url.trim();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "it waited for the server"
    );
    let server = pid(server_of(url));
    assert_eq!(getsid(Some(server)).unwrap(), server);
    assert_eq!(
        fs::read_link(format!("/proc/{server}/cwd")).unwrap(),
        Path::new("/")
    );
    kill(server, Signal::SIGHUP).unwrap();
    assert_eq!(run(url, &["set", "a", "b"]).code, Some(0));
    until("the server ends", || is_dead(server));
    assert_eq!(fs::read_to_string(log).unwrap(), "");
}

#[test]
fn one_that_cannot_start_detached_tells_why() {
    let complaint = refusal(&["--detach", "--listen", "0.0.0.0:0"], 2);
    assert!(complaint.contains("--allow-remote"), "{complaint}");
}

#[test]
fn who_finds_no_server_is_told_how_to_come_by_one() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let ended = run(&address, &["get", "a"]);
    assert_eq!(ended.code, Some(9));
    for hint in ["quorate dev", "--url local:"] {
        assert!(ended.stderr.contains(hint), "{ended:?}");
    }
}

/// The process that listens on the port of a URL.
fn server_of(url: &str) -> i32 {
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let port = format!(":{port:04X} ");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = table.lines().find(|line| {
        let mut fields = line.split_whitespace();
        fields
            .nth(1)
            .is_some_and(|local| format!("{local} ").ends_with(&port))
            && fields.nth(1) == Some("0A")
    });
    let inode = listening.unwrap().split_whitespace().nth(9).unwrap();
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has_socket = |id: &i32| {
        let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten();
        open.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&socket)))
    };
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(has_socket)
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

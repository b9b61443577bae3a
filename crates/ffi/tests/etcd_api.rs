//! `etcd-api.h` from C: programs that know nothing else, as C99 and as C++17, under sanitizers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use quorate::Client;
use quorate_server::Server;
use support::{
    Language, Workshop, crate_file,
    dev::Dev,
    etcd,
    proxy::{Network, Proxy},
    watched,
};
use tokio::runtime::Runtime;

mod support;

/// How long any program may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program of `tests/c`.
struct Program {
    path: PathBuf,
    // The library is there, and goes with it.
    _workshop: Workshop,
}

impl Program {
    fn compile(name: &str, language: Language) -> Self {
        let workshop = Workshop::open();
        let source = crate_file("tests/c").join(name);
        Self {
            path: workshop.compile(&source, language),
            _workshop: workshop,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut process = watched(&self.path)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                process.kill().unwrap();
                let output = process.wait_with_output().unwrap();
                panic!(
                    "it does not end: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        process.wait_with_output().unwrap()
    }

    /// What it prints when it succeeds.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} {complaints}", output.status);
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }
}

/// For clients and servers of the test itself; they go on while programs run.
fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

fn servers() -> String {
    etcd::shared().strip_prefix("http://").unwrap().to_owned()
}

#[test]
fn a_program_that_was_written_for_the_ancestor_runs_everywhere() {
    let etcd = etcd::own();
    let dev = Dev::start();
    for language in [Language::C99, Language::Cpp17] {
        let program = Program::compile("etcd_api_ancestor.c", language);
        assert_eq!(program.ok(&["mem:ancestor"]), "done");
        for servers in [etcd.strip_prefix("http://").unwrap(), dev.servers()] {
            assert_eq!(program.ok(&[servers]), "done");
        }
    }
}

#[test]
fn a_program_in_c_runs_on_dev() {
    let dev = Dev::start();
    let program = Program::compile("etcd_api.c", Language::C99);
    assert_eq!(program.ok(&[dev.servers()]), "done");
}

#[test]
fn a_program_in_c_runs_on_etcd() {
    let endpoint = etcd::shared_alone();
    let endpoint = endpoint.strip_prefix("http://").unwrap();
    let program = Program::compile("etcd_api.c", Language::C99);
    assert_eq!(program.ok(&[endpoint]), "done");
}

#[test]
fn a_program_in_cpp_runs_on_etcd_and_goes_past_servers_that_are_not_there() {
    let endpoint = etcd::own();
    let endpoint = endpoint.strip_prefix("http://").unwrap();
    let program = Program::compile("etcd_api.c", Language::Cpp17);
    let list = format!("127.0.0.1:1; {endpoint}");
    assert_eq!(program.ok(&[&list]), "done");
}

#[test]
fn a_program_runs_without_a_server() {
    thread::scope(|scope| {
        for language in [Language::C99, Language::Cpp17] {
            scope.spawn(move || {
                let program = Program::compile("etcd_api.c", language);
                assert_eq!(program.ok(&["mem:etcd-api"]), "done");
            });
        }
    });
}

#[test]
fn a_lock_is_renewed_and_released_from_other_processes() {
    let servers = servers();
    let program = Program::compile("etcd_api_step.c", Language::C99);
    let index = program.ok(&[&servers, "lock", "/step/a", "2"]);
    let began = Instant::now();
    assert_eq!(
        program.ok(&[&servers, "lock", "step/a", "60", &index]),
        index
    );
    let runtime = runtime();
    // It is the queue of every other lock.
    let is_free = || {
        runtime.block_on(async {
            let client = Client::connect(servers.as_str()).await.unwrap();
            let guard = client.lock("step/a").try_acquire().await.unwrap();
            let is_free = guard.is_some();
            if let Some(guard) = guard {
                guard.release().await.unwrap();
            }
            is_free
        })
    };
    while began.elapsed() < Duration::from_secs(4) {
        assert!(!is_free());
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(program.code(&[&servers, "unlock", "step/b", &index]), 1);
    assert_eq!(program.code(&[&servers, "unlock", "step/a", &index]), 0);
    assert!(is_free());
    assert_eq!(program.code(&[&servers, "unlock", "step/a", &index]), 1);
    assert_eq!(program.code(&[&servers, "lock", "step/a", "60", &index]), 1);
    // Somebody else's hold is not to be had by its token.
    runtime.block_on(async {
        let client = Client::connect(servers.as_str()).await.unwrap();
        let guard = client.lock("step/c").acquire().await.unwrap();
        let token = guard.token().to_string();
        assert_eq!(program.code(&[&servers, "unlock", "step/c", &token]), 2);
        assert_eq!(program.code(&[&servers, "lock", "step/c", "60", &token]), 2);
        assert!(guard.is_held());
        guard.release().await.unwrap();
    });
}

#[test]
fn changes_made_at_once_are_told_one_after_another() {
    let servers = servers();
    let program = Program::compile("etcd_api_step.c", Language::C99);
    let runtime = runtime();
    let (first, next) = runtime.block_on(async {
        let client = Client::connect(servers.as_str()).await.unwrap();
        let put = |key: &str| quorate::Op::put(key, key.len().to_string());
        let txn = client
            .txn()
            .then(put("once/a"))
            .then(put("once/bb"))
            .then(put("once/ccc"));
        let first = txn.commit().await.unwrap().header.revision;
        let delete = client.txn().then(quorate::Op::delete("once/a"));
        let next = delete.commit().await.unwrap().header.revision;
        (first.0, next.0)
    });
    let told = program.ok(&[&servers, "watch", "/once", &first.to_string(), "4"]);
    assert_eq!(
        told,
        format!("{first} once/a 6\n{first} once/bb 7\n{first} once/ccc 8\n{next} once/a -")
    );
}

#[test]
fn eight_threads_have_sessions_of_their_own_and_share_one() {
    let program = Program::compile("etcd_api_threads.c", Language::C99);
    for servers in ["mem:threads", &servers()] {
        assert_eq!(program.ok(&[servers]), "done");
    }
}

/// The changes of many transactions, while connections break all the time.
#[test]
fn a_loop_that_counts_its_index_up_misses_and_repeats_nothing() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start()).unwrap();
    let servers = server.url().strip_prefix("http://").unwrap().to_owned();
    let program = Program::compile("etcd_api_step.c", Language::C99);
    let control = server.control();
    let changes = runtime.spawn(async move {
        let client = Client::connect(server.url()).await.unwrap();
        let mut expected = String::new();
        for round in 0..40 {
            let names = [format!("loop/a{round}"), format!("loop/b{round}")];
            let mut txn = client.txn();
            for name in &names {
                txn = txn.then(quorate::Op::put(name.as_str(), "x"));
            }
            let put = txn.commit().await.unwrap().header.revision;
            for name in names {
                expected += &format!("{put} {name} x\n");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
            if round % 5 == 4 {
                control.cut_streams();
            }
        }
        (server, expected)
    });
    let told = program.ok(&[&servers, "watch", "/loop", "1", "80"]);
    let (_server, expected) = runtime.block_on(changes).unwrap();
    assert_eq!(told, expected.trim_end());
}

/// The connection breaks once the write is done, before its answer is back. Another way to the store is
/// known.
#[test]
fn a_write_without_an_answer_fails_and_is_not_sent_again() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start()).unwrap();
    let proxy = runtime.block_on(Proxy::before(server.url()));
    let client = runtime.block_on(Client::connect(server.url())).unwrap();
    let servers = [&*proxy.url(), server.url()].map(|url| url["http://".len()..].to_owned());
    let servers = servers.join(",");
    let program = Program::compile("etcd_api_step.c", Language::C99);
    for call in ["set", "delete"] {
        // It may go the other way, and succeed.
        let is_lost = (0..20).any(|number| {
            let name = format!("{call}/{number}");
            let first = runtime.block_on(client.put(name.as_str(), "v")).unwrap();
            let get = || runtime.block_on(client.get(name.as_str())).unwrap();
            let is_done = || get().is_none_or(|kv| kv.mod_revision > first);
            proxy.set(Network::Delay(Duration::from_millis(200)));
            let code = thread::scope(|scope| {
                let process = scope.spawn(|| program.code(&[&servers, call, &name, "v"]));
                while !is_done() {
                    assert!(!process.is_finished());
                    thread::sleep(Duration::from_millis(2));
                }
                proxy.set(Network::Reset);
                process.join().unwrap()
            });
            match (call, get()) {
                ("set", Some(kv)) => assert_eq!(kv.version, 2, "{code}"),
                ("delete", None) => {}
                (_, kv) => panic!("{kv:?}"),
            }
            assert!(code == 0 || code == 2, "{code}");
            code == 2
        });
        assert!(is_lost, "{call}");
    }
}

#[test]
fn a_server_that_never_answers_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent_address, dead_address) = (
        silent.local_addr().unwrap().to_string(),
        dead.local_addr().unwrap().to_string(),
    );
    drop(dead);
    let real = servers();
    let program = Program::compile("etcd_api_step.c", Language::C99);
    for first in [&silent_address, &dead_address] {
        let list = format!("{first} {real}");
        for step in [
            &["set", "/passed", "v"][..],
            &["get", "/passed"],
            &["set", "/passed", "v", "5"],
            &["watch", "/passed", "1", "1"],
            &["delete", "/passed"],
            &["lock", "/passed", "2"],
        ] {
            let began = Instant::now();
            let code = program.code(&[&[list.as_str()], step].concat());
            assert_eq!(code, 0, "{first} {step:?}");
            assert!(began.elapsed() < Duration::from_secs(5), "{first} {step:?}");
        }
    }
}

#[test]
fn indexes_beyond_an_int_are_told_by_the_wide_twin() {
    let Some(etcd_35) = etcd::server_35() else {
        // Only its tools make a store of that many revisions.
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let first = etcd::Cluster::builder().program(etcd_35.clone()).start();
    first.etcdctl(&["snapshot", "save", &file("snapshot")]);
    drop(first);
    let restored = Command::new(etcd_35.with_file_name("etcdutl"))
        .args(["snapshot", "restore", &file("snapshot"), "--mark-compacted"])
        .args([
            "--bump-revision",
            "3000000000",
            "--data-dir",
            &file("restored"),
        ])
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let wide = etcd::Cluster::builder()
        .program(etcd_35)
        .flag(format!("--data-dir={}", file("restored")))
        .flag("--force-new-cluster")
        .start();
    let endpoint = wide.endpoint(0);
    let servers = endpoint.strip_prefix("http://").unwrap();
    let program = Program::compile("etcd_api_wide.c", Language::C99);
    assert_eq!(program.ok(&[servers, "3000000001"]), "done");
}

#[test]
fn without_a_server_calls_fail_in_time() {
    let program = Program::compile("etcd_api_step.c", Language::C99);
    for step in [
        &["127.0.0.1:1", "lock", "k", "5"][..],
        &["127.0.0.1:1", "unlock", "k", "5"],
        &["127.0.0.1:1", "watch", "k", "5", "1"],
    ] {
        let began = Instant::now();
        assert_eq!(program.code(step), 2, "{step:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{step:?}");
    }
}

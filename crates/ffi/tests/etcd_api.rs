//! `etcd-api.h` from C: programs that know nothing else, as C99 and as C++17, under sanitizers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // here a panic is a failed test
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{Language, Workshop, crate_file, etcd, watched};

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

fn servers() -> String {
    etcd::shared().strip_prefix("http://").unwrap().to_owned()
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
    for language in [Language::C99, Language::Cpp17] {
        let program = Program::compile("etcd_api.c", language);
        assert_eq!(program.ok(&["mem:etcd-api"]), "done");
    }
}

#[test]
fn a_lock_is_renewed_and_released_from_other_processes() {
    let servers = servers();
    let program = Program::compile("etcd_api_step.c", Language::C99);
    let index = program.ok(&[&servers, "lock", "/step/a", "4"]);
    let began = Instant::now();
    assert_eq!(
        program.ok(&[&servers, "lock", "step/a", "60", &index]),
        index
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // It is the queue of every other lock.
    let is_free = || {
        runtime.block_on(async {
            let client = quorate::Client::connect(servers.as_str()).await.unwrap();
            let guard = client.lock("step/a").try_acquire().await.unwrap();
            let is_free = guard.is_some();
            if let Some(guard) = guard {
                guard.release().await.unwrap();
            }
            is_free
        })
    };
    while began.elapsed() < Duration::from_secs(6) {
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
        let client = quorate::Client::connect(servers.as_str()).await.unwrap();
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let first = runtime.block_on(async {
        let client = quorate::Client::connect(servers.as_str()).await.unwrap();
        let put = |key: &str| quorate::Op::put(key, key.len().to_string());
        let txn = client
            .txn()
            .then(put("once/a"))
            .then(put("once/bb"))
            .then(put("once/ccc"));
        let first = txn.commit().await.unwrap().header.revision;
        client.delete("once/a").await.unwrap();
        first.0
    });
    let told = program.ok(&[&servers, "watch", "/once", &first.to_string()]);
    let next = first + 1;
    assert_eq!(
        told,
        format!("{first} once/a 6\n{first} once/bb 7\n{first} once/ccc 8\n{next} once/a -")
    );
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
        &["127.0.0.1:1", "watch", "k", "5"],
    ] {
        let began = Instant::now();
        assert_eq!(program.code(step), 2, "{step:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{step:?}");
    }
}

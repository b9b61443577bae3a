//! `local:`: servers that come when they are needed, and go when they are not.
#![allow(clippy::unwrap_used)] // here a panic is a failed test

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

mod running;
mod support;

use crate::running::{Ended, Running, is_dead, pid, until};

/// A local server's name, and what is known of it. What there is of it goes with this.
struct Local {
    name: String,
    directory: PathBuf,
    /// The program that serves, which is soon idle.
    program: PathBuf,
    _folder: TempDir,
}

impl Local {
    fn new() -> Self {
        Self::idle_after("400ms")
    }

    fn idle_after(idle: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("impatient");
        let script = format!(
            "#!/bin/sh\nfor a do shift; [ \"$a\" = 10s ] && a={idle}; set -- \"$@\" \"$a\"; done\n\
             exec {} \"$@\"\n",
            env!("CARGO_BIN_EXE_quorate")
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let parent = PathBuf::from(format!("/var/tmp/quorate-{}", geteuid()));
        Self {
            directory: parent.join(&name),
            name,
            program,
            _folder: folder,
        }
    }

    /// Makes the directory of all the user's servers as the first of them would, for him alone.
    fn make_parent(&self) {
        let parent = self.directory.parent().unwrap();
        let builder = &mut fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(parent).unwrap();
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut command = support::quorate();
        let url = format!("local:{}", self.name);
        command.env("QUORATE_BIN", &self.program);
        Running::start({
            command.arg("--url").arg(url).args(args);
            command
        })
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.start(args).ended()
    }

    /// Runs what should succeed, and returns what it printed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        ended.stdout
    }

    /// The servers that live.
    fn servers(&self) -> Vec<Pid> {
        let socket = format!("{}/socket\0", self.directory.display());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let serves = |&id: &Pid| {
            let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.contains("--detached") && line.contains(&socket) && !is_dead(id)
        };
        ids.map(pid).filter(serves).collect()
    }

    fn kill_server(&self) {
        let servers = self.servers();
        assert_eq!(servers.len(), 1, "{servers:?}");
        kill(servers[0], Signal::SIGKILL).unwrap();
        until("the server is dead", || is_dead(servers[0]));
    }

    fn until_idle(&self) {
        until("the server is gone", || self.servers().is_empty());
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for server in self.servers() {
            let _ = kill(server, Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(&self.directory);
    }
}

#[test]
fn two_processes_exclude_each_other_with_no_set_up() {
    let local = Local::new();
    let holder = local.start(&["lock", "build"]);
    holder.line();
    let refused = local.run(&["lock", "--try", "build"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    let waiter = local.start(&["lock", "build"]);
    until("there are two in the queue", || {
        local.ok(&["locks", "show", "build"]).lines().count() == 2
    });
    assert!(waiter.is_silent());
    holder.signal(Signal::SIGINT);
    waiter.line();
    waiter.signal(Signal::SIGINT);
}

#[test]
fn of_many_first_clients_all_succeed_and_find_one_server() {
    let local = Local::idle_after("3s");
    let clients: Vec<_> = (0..20)
        .map(|client| local.start(&["set", &format!("k{client}"), "v"]))
        .collect();
    for mut client in clients {
        let ended = client.ended();
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    }
    assert_eq!(local.servers().len(), 1);
    assert_eq!(local.ok(&["list", "--keys-only"]).lines().count(), 20);
}

#[test]
fn what_is_there_is_for_its_user_alone() {
    let local = Local::new();
    local.ok(&["set", "a", "b"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(local.directory.parent().unwrap()), 0o700);
    assert_eq!(mode(&local.directory), 0o700);
    assert_eq!(mode(&local.directory.join("socket")), 0o600);
    assert_eq!(mode(&local.directory.join("data")), 0o700);
}

#[test]
fn a_server_that_was_idle_comes_back_with_its_data_and_a_higher_revision() {
    let local = Local::new();
    let first: i64 = local.ok(&["set", "a", "1"]).parse().unwrap();
    let before = local.servers();
    local.until_idle();
    assert!(!local.directory.join("socket").exists());
    assert_eq!(local.ok(&["get", "a"]), "1");
    assert_ne!(local.servers(), before);
    let second: i64 = local.ok(&["set", "a", "2"]).parse().unwrap();
    assert!(second > first);
}

#[test]
fn a_holder_whose_server_is_killed_keeps_the_lock_and_no_other_gets_it() {
    let local = Local::new();
    let mut holder = local.start(&["-o", "json", "lock", "build"]);
    let token = token(&holder.line());
    for _ in 0..3 {
        local.kill_server();
        let refused = local.run(&["lock", "--try", "build"]);
        assert_eq!(refused.code, Some(75), "{refused:?}");
        assert!(holder.is_running());
    }
    holder.signal(Signal::SIGINT);
    let ended = holder.ended();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let next = local.start(&["-o", "json", "lock", "build"]);
    assert!(self::token(&next.line()) > token);
    next.signal(Signal::SIGINT);
}

/// The token in what a holder prints.
fn token(line: &str) -> i64 {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    json["token"].as_i64().unwrap_or_else(|| panic!("{line}"))
}

/// Clients come at the very time that the server goes.
#[test]
fn no_call_fails_at_the_end_of_an_idle_server() {
    let local = Local::idle_after("30ms");
    let begun = Instant::now();
    let mut servers = 0;
    let mut last = Vec::new();
    let mut newest: u64 = 0;
    let mut round: u64 = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        let clients: Vec<_> = (0..2)
            .map(|_| local.start(&["set", "a", &round.to_string()]))
            .collect();
        for mut client in clients {
            let ended = client.ended();
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "round {round}");
            newest = newest.max(ended.stdout.parse().unwrap());
        }
        let now = local.servers();
        servers += usize::from(now != last && !now.is_empty());
        last = now;
        round += 1;
        thread::sleep(Duration::from_millis(20 + round * 7 % 23));
    }
    assert!(servers > 5, "{servers} servers in {round} rounds");
    // Each write was done, and once.
    assert_eq!(newest, 1 + 2 * round);
}

#[test]
fn a_directory_that_cannot_be_trusted_is_refused_with_the_reason() {
    let local = Local::new();
    let elsewhere = tempfile::tempdir().unwrap();
    local.make_parent();
    symlink(elsewhere.path(), &local.directory).unwrap();
    let refused = local.run(&["get", "a"]);
    assert_eq!(refused.code, Some(11), "{refused:?}");
    assert!(
        refused.stderr.contains("it is a symbolic link"),
        "{refused:?}"
    );
    fs::remove_file(&local.directory).unwrap();

    fs::create_dir(&local.directory).unwrap();
    fs::set_permissions(&local.directory, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = local.run(&["get", "a"]);
    assert_eq!(refused.code, Some(11), "{refused:?}");
    assert!(refused.stderr.contains("set it to 700"), "{refused:?}");
    assert!(local.servers().is_empty());
}

#[test]
fn why_a_server_does_not_start_is_told() {
    let local = Local::new();
    fs::write(
        &local.program,
        "#!/bin/sh\necho 'quorate: no space left' >&2\nexit 74\n",
    )
    .unwrap();
    let begun = Instant::now();
    let failed = local.run(&["get", "a"]);
    assert_eq!(failed.code, Some(9), "{failed:?}");
    assert!(
        failed.stderr.contains("did not start: no space left"),
        "{failed:?}"
    );
    fs::remove_file(&local.program).unwrap();
    let failed = local.run(&["get", "a"]);
    assert_eq!(failed.code, Some(9), "{failed:?}");
    assert!(
        failed.stderr.contains("install the package quorate-cli"),
        "{failed:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_server_that_hangs_is_told_of_in_time() {
    let local = Local::idle_after("5s");
    local.ok(&["set", "a", "b"]);
    let server = local.servers()[0];
    kill(server, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let failed = local.run(&["--timeout", "3s", "get", "a"]);
    assert!(matches!(failed.code, Some(8 | 9)), "{failed:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    kill(server, Signal::SIGCONT).unwrap();
    assert_eq!(local.ok(&["get", "a"]), "b");
}

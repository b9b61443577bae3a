//! `config render`: files from templates, through the real program on a real etcd.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // in what the tests share
#![allow(clippy::disallowed_methods)] // processes live by the machine's clock

mod running;
mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use quorate::{Client, Op};
use running::{Running, etcd::Cluster, is_dead, pid, until};
use support::{Place, Ran};
use tempfile::TempDir;

#[test]
fn a_template_asks_for_keys_trees_services_variables_and_json() {
    let scene = Scene::new("functions", "");
    let template = "\
{{ key('limit') }} {{ key('none', default='-') }} {{ key('none', default=none) is none }}
{% for entry in keys('dir/') %}
{{ entry.key }} {{ entry.name }} {{ entry.value }}
{% endfor %}
{% set all = tree('') %}
{{ all.dir.a }} {{ all.dir.sub.b }} {{ all.limit }}
{% for api in service('api') %}
{{ api.id }} {{ api.address }} {{ api.weight }} {{ api.metadata.zone }}
{% endfor %}
{{ service('api', draining=true) | length }} {{ service('none') | length }}
{{ env('GIVEN') }} {{ env('NOT_GIVEN', default='-') }}
{{ (key('list') | json)[1].n + 1 }} {{ json('[1.5, null, true]') }}
";
    scene.write_template(template);
    let instance = r#"{"address":"h:1","metadata":{"zone":"b"},"weight":3}"#;
    for (key, value) in [
        ("cfg/limit", "10"),
        ("cfg/dir/a", "A"),
        ("cfg/dir/sub/b", "<B>"),
        ("cfg/list", r#"[1, {"n": 41}]"#),
        ("services/api/i1", instance),
        ("services/api/i2", r#"{"address":"h:2","draining":true}"#),
        ("services/api/bad", "{}"),
    ] {
        scene.set(key, value);
    }
    let mut command = scene.command(&["--once", "--prefix", "cfg/"]);
    command.env("GIVEN", "given");
    let ran = Ran::of(command, b"");
    let told = "quorate: services/api/bad is left out: it has no address\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), told));
    let expected = "\
10 - True
cfg/dir/a a A
cfg/dir/sub/b sub/b <B>
A <B> 10
i1 h:1 3 b
2 0
given -
42 [1.5, None, True]
";
    assert_eq!(scene.read(), expected);
}

#[test]
fn the_file_follows_exactly_the_keys_that_were_used() {
    let scene = Scene::new("follows", "{{ key('user/' ~ key('who')) }}\n");
    scene.set("who", "a");
    scene.set("user/a", "Ann");
    scene.set("user/b", "Bob");
    let _rendering = scene.start(&[]);
    scene.until_is("Ann\n");
    scene.set("user/a", "Anna");
    scene.until_is("Anna\n");
    scene.set("who", "b");
    scene.until_is("Bob\n");
    scene.set("user/b", "Bo");
    scene.until_is("Bo\n");
    scene.set("who", "a");
    scene.until_is("Anna\n");
}

#[test]
fn a_template_that_fails_names_its_line_and_keeps_the_file() {
    let scene = Scene::new("failing", "fine\n{{ key('absent') }}\n");
    fs::write(&scene.destination, "before").unwrap();
    let told = scene.once(&[]).failure(2);
    let place = format!("{}:2: ", scene.template.display());
    assert!(
        told.contains(&place) && told.contains("there is no key absent"),
        "{told}"
    );
    for (template, part) in [
        ("\n\n{{ undefined_name }}", ":3: undefined value"),
        ("{% if %}", ":1: syntax error"),
        ("{{ key('absent', defualt='x') }}", "defualt"),
        ("{{ key('k') | json }}", "it is no JSON"),
        ("{{ env('NO_SUCH_VARIABLE') }}", "NO_SUCH_VARIABLE"),
        ("{{ tree('').k.x }}", "is a key, and keys lie under it"),
        ("{% include 'absent' %}", "absent"),
    ] {
        scene.set("k", "{");
        scene.set("k/x", "1");
        scene.write_template(template);
        let told = scene.once(&[]).failure(2);
        assert!(told.contains(part), "{template}: {told}");
    }
    fs::remove_file(&scene.template).unwrap();
    scene.once(&[]).failure(2);
    assert_eq!(scene.read(), "before");
    assert_eq!(scene.files(), 1);
}

#[test]
fn a_key_that_is_missing_is_waited_for() {
    let scene = Scene::new("missing", "{{ key('first') }} {{ key('second') }}\n");
    fs::write(&scene.destination, "before").unwrap();
    scene.set("first", "1");
    let mut rendering = scene.start(&[]);
    scene.set("second", "2");
    scene.until_is("1 2\n");
    scene.place.ok(&["delete", "first"]);
    scene.set("second", "3");
    scene.set("first", "4");
    scene.until_is("4 3\n");
    assert_eq!(rendering.interrupt(), Some(130));
}

#[test]
fn a_check_that_fails_keeps_the_file() {
    let scene = Scene::new("check", "{{ key('k') }}\n");
    let check = "cmp {} \"$QUORATE_FILE\" && ! grep -q bad {}";
    scene.set("k", "bad");
    let told = scene.once(&["--check", check]).failure(1);
    assert!(
        told.contains("--check: the command ended with exit status: 1"),
        "{told}"
    );
    assert!(!scene.destination.exists());
    scene.set("k", "good");
    let log = scene.directory.path().join("log");
    let reload = format!("echo \"$QUORATE_FILE\" >> {}", log.display());
    let mut rendering = scene.start(&["--check", check, "--reload", &reload]);
    scene.until_is("good\n");
    scene.set("k", "bad");
    scene.set("k", "fine");
    scene.until_is("fine\n");
    until("it is reloaded twice", || {
        fs::read_to_string(&log).is_ok_and(|log| log.lines().count() == 2)
    });
    assert_eq!(rendering.interrupt(), Some(130));
    fs::remove_file(&log).unwrap();
    assert_eq!(scene.files(), 1);

    // What takes too long has failed.
    scene.set("k", "late");
    let slow = ["--check", "sleep 1000", "--cmd-timeout", "50ms"];
    assert!(scene.once(&slow).failure(1).contains("took longer than"));
    assert_eq!(scene.read(), "fine\n");
    assert_eq!(scene.files(), 1);
}

#[test]
fn a_reload_that_failed_is_run_again_and_tells_in_the_exit_status() {
    let scene = Scene::new("reload-fails", "{{ key('k') }}\n");
    scene.set("k", "1");
    let told = scene.once(&["--reload", "exit 7"]).failure(1);
    assert!(
        told.contains("--reload: the command ended with exit status: 7"),
        "{told}"
    );
    assert_eq!(scene.read(), "1\n");
    let log = scene.directory.path().join("log");
    let reload = format!("echo x >> {0}; [ $(wc -l < {0}) -ge 2 ]", log.display());
    scene.set("k", "2");
    let _rendering = scene.start(&["--reload", &reload]);
    scene.until_is("2\n");
    until("the failure is made good", || {
        scene.set("k", "2");
        fs::read_to_string(&log).is_ok_and(|log| log.lines().count() == 2)
    });
}

#[test]
fn what_has_not_changed_is_neither_written_nor_reloaded() {
    let scene = Scene::new("unchanged", "{{ key('k') | length }}\n");
    let log = scene.directory.path().join("log");
    let reload = format!("echo x >> {}", log.display());
    let reloads = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    scene.set("k", "12");
    let _rendering = scene.start(&["--reload", &reload]);
    until("it is reloaded", || reloads() == 1);
    let before = fs::metadata(&scene.destination).unwrap();
    for _ in 0..10 {
        scene.set("k", "34");
    }
    let after = fs::metadata(&scene.destination).unwrap();
    assert_eq!(before.ino(), after.ino());
    scene.set("k", "567");
    scene.until_is("3\n");
    until("it is reloaded again", || reloads() >= 2);
    assert_eq!(reloads(), 2);
    scene.once(&["--reload", &reload]).ok();
    assert_eq!(reloads(), 2);
}

#[test]
fn no_reader_sees_half_of_a_transaction_or_of_the_file() {
    let template = "\
{% for _ in range(3000) %}
{{ key('at/' ~ key('a')) }} {{ key('b') }}
{% endfor %}
end
";
    let scene = Scene::new("half", template);
    let url = scene.place.url().to_owned();
    let enough = Arc::new(AtomicBool::new(false));
    let until_enough = Arc::clone(&enough);
    let writing = thread::spawn(move || write_transactions(&url, &until_enough));
    until("the first is written", || {
        scene.place.run(&["get", "b"]).code == Some(0)
    });
    let mut rendering = scene.start(&[]);
    let mut seen = Vec::new();
    let begun = Instant::now();
    while seen.len() <= 5 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:?}");
        let Ok(text) = fs::read_to_string(&scene.destination) else {
            continue;
        };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[3000]), (3001, "end"));
        let (a, b) = lines[0].split_once(' ').unwrap();
        assert_eq!(a, b);
        assert!(lines[..3000].iter().all(|line| *line == lines[0]));
        if seen.last().is_none_or(|last| last != a) {
            seen.push(a.to_owned());
        }
    }
    enough.store(true, Ordering::Relaxed);
    let last = format!("{0} {0}\n", writing.join().unwrap());
    until("the last is seen", || scene.read().starts_with(&last));
    rendering.signal(Signal::SIGTERM);
    let ended = rendering.ended();
    // Half of a transaction would be a missing key, too.
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(143), ""));
}

/// Writes keys that only make sense together, until it is enough. Returns the last value.
#[tokio::main(flavor = "current_thread")]
async fn write_transactions(url: &str, enough: &AtomicBool) -> u32 {
    let client = Client::connect(url).await.unwrap();
    let mut n = 0;
    while !enough.load(Ordering::Relaxed) {
        n += 1;
        let value = n.to_string();
        let at = |n: u32| format!("at/{n}");
        let txn = client
            .txn()
            .then(Op::put("a", value.as_str()))
            .then(Op::put("b", value.as_str()));
        let txn = txn
            .then(Op::put(at(n), value.as_str()))
            .then(Op::delete(at(n - 1)));
        txn.commit().await.unwrap();
    }
    n
}

#[test]
fn the_file_keeps_its_mode_and_a_link_stays_a_link() {
    let scene = Scene::new("mode", "{{ key('k') }}\n");
    let mode = || fs::metadata(&scene.destination).unwrap().mode() & 0o7777;
    scene.set("k", "1");
    let mut command = Command::new("sh");
    let quorate = scene.command(&["--once"]);
    command.args(["-c", "umask 027; exec \"$@\"", "sh"]);
    command.arg(quorate.get_program()).args(quorate.get_args());
    command.env("QUORATE_URL", scene.place.url());
    Ran::of(command, b"").ok();
    assert_eq!(mode(), 0o640);
    fs::set_permissions(&scene.destination, fs::Permissions::from_mode(0o604)).unwrap();
    scene.set("k", "2");
    scene.once(&[]).ok();
    assert_eq!((mode(), scene.read().as_str()), (0o604, "2\n"));
    scene.once(&["--mode", "0600"]).ok();
    assert_eq!(mode(), 0o600);
    // Only the superuser can give files away.
    if chown(&scene.destination, Some(12), Some(34)).is_ok() {
        scene.set("k", "3");
        scene.once(&[]).ok();
        let metadata = fs::metadata(&scene.destination).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), mode()), (12, 34, 0o600));
    }
    let real = scene.directory.path().join("out").join("real");
    fs::rename(&scene.destination, &real).unwrap();
    symlink("real", &scene.destination).unwrap();
    scene.set("k", "4");
    scene.once(&[]).ok();
    assert!(scene.destination.is_symlink());
    assert_eq!(fs::read_to_string(real).unwrap(), "4\n");
    scene.once(&["--mode", "0999"]).failure(2);
}

#[test]
fn a_dry_run_shows_the_change_and_makes_none() {
    let scene = Scene::new("dry", "a\n{{ key('k') }}\nz\n");
    scene.set("k", "new");
    let log = scene.directory.path().join("log");
    let touch = format!("touch {}", log.display());
    let arguments = ["--dry-run", "--check", &touch, "--reload", &touch];
    fs::write(&scene.destination, "a\nold\nz\n").unwrap();
    let ran = scene.once_as(&arguments);
    assert_eq!(ran.code, Some(1));
    let diff = String::from_utf8(ran.stdout).unwrap();
    assert!(
        diff.ends_with("@@ -1,3 +1,3 @@\n a\n-old\n+new\n z\n"),
        "{diff}"
    );
    assert_eq!(scene.read(), "a\nold\nz\n");
    fs::write(&scene.destination, "a\nnew\nz\n").unwrap();
    assert_eq!(scene.once_as(&arguments).ok(), "");
    assert!(!log.exists());
}

#[test]
fn a_hangup_has_the_template_read_again() {
    let scene = Scene::new("hangup", "one {{ key('k') }}\n");
    scene.set("k", "1");
    let mut rendering = scene.start(&[]);
    scene.until_is("one 1\n");
    scene.write_template("{% bad");
    rendering.signal(Signal::SIGHUP);
    scene.set("k", "2");
    scene.until_is("one 2\n");
    scene.write_template("two {{ key('k') }}\n");
    rendering.signal(Signal::SIGHUP);
    scene.until_is("two 2\n");
    rendering.signal(Signal::SIGTERM);
    let ended = rendering.ended();
    assert_eq!(ended.code, Some(143));
    assert!(
        ended.stderr.contains("the template before is kept"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_signal_is_passed_on_to_a_running_command() {
    let scene = Scene::new("signal", "{{ key('k') }}\n");
    scene.set("k", "1");
    let log = scene.directory.path().join("log");
    let reload = format!(
        "trap 'echo heard >> {0}; exit 0' TERM; echo $$ >> {0}; while :; do sleep 0.01; done",
        log.display()
    );
    let mut rendering = scene.start(&["--reload", &reload]);
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    until("the command runs", || lines().ends_with('\n'));
    let command = pid(lines().trim().parse().unwrap());
    rendering.signal(Signal::SIGTERM);
    assert_eq!(rendering.ended().code, Some(143));
    assert!(is_dead(command));
    assert!(lines().ends_with("heard\n"));
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let cluster = Cluster::builder().start();
    let url = cluster.endpoint(0);
    let scene = Scene::new("away", "{{ key('k') }}\n");
    let set = |value: &str| {
        until("it is set", || {
            running::run(&url, &["set", "k", value]).code == Some(0)
        })
    };
    let render = |arguments: &[&str]| {
        let paths = [
            scene.template.to_str().unwrap(),
            scene.destination.to_str().unwrap(),
        ];
        let render = [
            "config",
            "render",
            "--debounce",
            "1ms",
            "--timeout",
            "500ms",
        ];
        running::quorate(&url, &[&render, arguments, &paths].concat())
    };
    set("1");
    cluster.kill(0);
    let ended = render(&["--once"]).ended();
    assert!(matches!(ended.code, Some(8 | 9)), "{ended:?}");
    let mut rendering = render(&[]);
    cluster.restart(0);
    scene.until_is("1\n");
    cluster.restart(0);
    set("2");
    scene.until_is("2\n");
    rendering.signal(Signal::SIGTERM);
    assert_eq!(rendering.ended().code, Some(143));
}

#[test]
fn where_nothing_can_be_written_is_told_at_once() {
    let scene = Scene::new("nowhere", "x\n");
    for destination in [
        "/no/such/directory/file",
        "/tmp",
        "/dev/null",
        "/dev/null/file",
    ] {
        let template = scene.template.to_str().unwrap();
        scene
            .place
            .run(&["config", "render", template, destination])
            .failure(74);
    }
}

/// A template, a place for the file, and a place for the keys.
struct Scene {
    place: Place,
    template: PathBuf,
    destination: PathBuf,
    directory: TempDir,
}

impl Scene {
    fn new(name: &str, template: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        fs::create_dir(&out).unwrap();
        let scene = Self {
            place: Place::new(&format!("render-{name}")),
            template: directory.path().join("it's a template"),
            destination: out.join("file"),
            directory,
        };
        scene.write_template(template);
        scene
    }

    fn write_template(&self, template: &str) {
        fs::write(&self.template, template).unwrap();
    }

    fn set(&self, key: &str, value: &str) {
        self.place.ok(&["set", key, value]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let paths = [
            self.template.to_str().unwrap(),
            self.destination.to_str().unwrap(),
        ];
        let render = ["config", "render", "--debounce", "1ms"];
        self.place.command(&[&render, arguments, &paths].concat())
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    fn once(&self, arguments: &[&str]) -> Ran {
        self.once_as(&[&["--once"], arguments].concat())
    }

    fn once_as(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments), b"")
    }

    fn read(&self) -> String {
        fs::read_to_string(&self.destination).unwrap_or_default()
    }

    fn until_is(&self, text: &str) {
        until(&format!("it is {text:?}"), || self.read() == text);
    }

    /// How many files there are where the file is.
    fn files(&self) -> usize {
        fs::read_dir(self.destination.parent().unwrap())
            .unwrap()
            .count()
    }
}

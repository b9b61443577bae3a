//! The verbs on documents, through the real program on a real etcd.
#![allow(clippy::unwrap_used)] // in what the tests share

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use support::{Place, Ran, etcd};

/// `config edit` with this shell command as the editor, and its drafts in `directory`.
fn edit(place: &Place, key: &str, editor: &str, directory: &Path) -> Ran {
    Ran::of(edit_command(place, key, editor, directory), b"")
}

fn edit_command(place: &Place, key: &str, editor: &str, directory: &Path) -> Command {
    let mut command = place.command(&["config", "edit", key]);
    command
        .env_remove("VISUAL")
        .env("EDITOR", editor)
        .env("TMPDIR", directory)
        .env("QUORATE", env!("CARGO_BIN_EXE_quorate"));
    command
}

fn drafts(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_document_is_checked_before_it_is_written() {
    let place = Place::new("config-set");
    let revision = place.ok(&["config", "set", "l.toml", "rps = 1"]);
    assert_eq!(place.ok(&["config", "get", "l.toml"]), "rps = 1\n");
    let read = &place.json(&["config", "get", "l.toml"])[0];
    assert_eq!(read["mod_revision"].to_string(), revision.trim());

    for (key, document, why) in [
        ("l.toml", "rps = = 2", "not TOML: "),
        ("l.json", "{", "not JSON: "),
        ("l", "rps = 1", "not JSON: "),
        ("l.yaml", "a: [", "not YAML: "),
    ] {
        let told = place.run(&["config", "set", key, document]).failure(2);
        let left = format!("quorate: {key} is left as it was: {why}");
        assert!(told.starts_with(&left), "{told}");
    }
    assert_eq!(place.ok(&["config", "get", "l.toml"]), "rps = 1\n");
    place.ok(&["config", "set", "l", "rps = 1", "--format", "toml"]);
    place.ok(&["config", "set", "motto", "be quick", "--format", "text"]);

    // From standard input, byte for byte.
    for arguments in [
        &["config", "set", "l.yml", "-"][..],
        &["config", "set", "l.yml"],
    ] {
        Ran::of(place.command(arguments), b"# lines\na: 1\n").ok();
    }
    assert_eq!(place.ok(&["config", "get", "l.yml"]), "# lines\na: 1\n");
    assert_eq!(place.json(&["get", "l.yml"])[0]["value"], "# lines\na: 1\n");
    let absent = place.run(&["config", "get", "absent"]);
    assert_eq!(
        (absent.code, absent.stdout.len(), absent.stderr.len()),
        (Some(1), 0, 0)
    );
}

#[test]
fn a_set_on_condition_of_a_revision_tells_what_is_there() {
    let place = Place::new("config-revision");
    let set = |value: &str, revision: &str| {
        place.run(&["config", "set", "k", value, "--revision", revision])
    };
    assert_eq!(
        set("1", "7").failure(1),
        "quorate: not set: k does not exist\n"
    );
    let first = set("1", "0").ok();
    let told = set("2", "0").failure(1);
    assert_eq!(
        told,
        format!("quorate: not set: k was written at revision {first}")
    );
    set("2", first.trim()).ok();
    assert_eq!(place.ok(&["config", "get", "k"]), "2\n");
}

#[test]
fn an_edited_document_is_written_and_leaves_no_file() {
    let place = Place::new("config-edit");
    let directory = tempfile::tempdir().unwrap();
    place.ok(&["config", "set", "l.toml", "rps = 1\n"]);
    let see = directory.path().join("seen");
    let editor = format!("ls -l \"$TMPDIR\" > {}; sed -i s/1/2/", see.display());
    let revision = edit(&place, "l.toml", &editor, directory.path()).ok();
    assert_eq!(place.ok(&["config", "get", "l.toml"]), "rps = 2\n");
    let now = &place.json(&["get", "l.toml"])[0];
    assert_eq!(now["mod_revision"].to_string(), revision.trim());
    let seen = fs::read_to_string(&see).unwrap();
    assert!(
        seen.contains("-rw-------") && seen.contains(".toml"),
        "{seen}"
    );
    fs::remove_file(see).unwrap();

    // Nothing changed: nothing is written.
    assert_eq!(edit(&place, "l.toml", "true", directory.path()).ok(), "");
    assert_eq!(&place.json(&["get", "l.toml"])[0], now);
    // A new document.
    edit(&place, "new.json", "echo [1] >", directory.path()).ok();
    assert_eq!(place.ok(&["config", "get", "new.json"]), "[1]\n");
    let mut visual = edit_command(&place, "new.json", "false", directory.path());
    visual.env("VISUAL", "echo [2] >");
    Ran::of(visual, b"").ok();
    assert_eq!(place.ok(&["config", "get", "new.json"]), "[2]\n");
    assert!(drafts(directory.path()).is_empty());
}

#[test]
fn an_edit_that_cannot_be_written_is_kept_and_told() {
    let place = Place::new("config-edit-kept");
    place.ok(&["config", "set", "l.toml", "rps = 1"]);
    let meanwhile = r#""$QUORATE" config set l.toml 'rps = 7' > /dev/null; sed -i s/1/2/"#;
    let gone = r#""$QUORATE" delete l.toml > /dev/null; sed -i s/7/2/"#;
    for (editor, code, why, kept) in [
        ("sed -i s/1/=/", 2, "not TOML", "rps = ="),
        ("sed -i s/1/2/ \"$1\"; false", 74, "the editor", "rps = 2"),
        (
            meanwhile,
            5,
            "was written meanwhile, at revision",
            "rps = 2",
        ),
        (gone, 5, "was deleted meanwhile", "rps = 2"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let told = edit(&place, "l.toml", editor, directory.path()).failure(code);
        let drafts = drafts(directory.path());
        assert_eq!(fs::read_to_string(&drafts[0]).unwrap(), kept);
        let place = format!("what you wrote is in {}", drafts[0].display());
        assert!(told.contains(why) && told.contains(&place), "{told}");
        let mode = fs::metadata(&drafts[0]).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // An editor that fails and changed nothing leaves nothing.
    let directory = tempfile::tempdir().unwrap();
    edit(&place, "l.toml", "false", directory.path()).failure(74);
    assert!(drafts(directory.path()).is_empty());
}

/// Runs the program at an etcd of its own, whose history it may compact.
fn run_at(server: &etcd::Cluster, arguments: &[&str]) -> Ran {
    let mut command = support::quorate();
    command
        .env("QUORATE_URL", server.endpoint(0))
        .args(arguments);
    Ran::of(command, b"")
}

#[test]
fn versions_are_listed_and_can_be_written_again() {
    let server = etcd::Cluster::builder().start();
    let run = |arguments: &[&str]| run_at(&server, arguments);
    let none = run(&["config", "history", "k"]);
    assert_eq!((none.code, none.stdout.len()), (Some(1), 0));
    for value in ["1", "22"] {
        run(&["config", "set", "k", value]).ok();
    }
    run(&["delete", "k"]).ok();
    run(&["config", "set", "k", "333"]).ok();
    let history = "5\t1\t3\n4\t-\tdeleted\n3\t2\t2\n2\t1\t1\n";
    assert_eq!(run(&["config", "history", "k"]).ok(), history);
    let lines = run(&["config", "history", "k", "-o", "json"]).ok();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[1],
        json!({ "key": "k", "mod_revision": 4, "deleted": true })
    );
    assert_eq!(
        (&lines[2]["value"], &lines[2]["version"]),
        (&json!("22"), &json!(2))
    );

    assert_eq!(run(&["config", "rollback", "k", "3"]).ok(), "6\n");
    assert_eq!(run(&["config", "get", "k"]).ok(), "22\n");
    run(&["config", "rollback", "k", "4"]).failure(3);
    run(&["compact", "3"]).ok();
    let told = run(&["config", "rollback", "k", "2"]).failure(6);
    assert!(told.contains("compacted"), "{told}");
    let history = "6\t2\t2\n5\t1\t3\n4\t-\tdeleted\n3\t2\t2\n3\t-\tcompacted\n";
    assert_eq!(run(&["config", "history", "k"]).ok(), history);
    assert_eq!(run(&["config", "get", "k", "--rev", "3"]).ok(), "22\n");
}

#[test]
fn a_rollback_to_what_is_no_document_leaves_the_good_one() {
    let server = etcd::Cluster::builder().start();
    let run = |arguments: &[&str]| run_at(&server, arguments);
    let bad = run(&["set", "l.json", "{"]).ok();
    let bad = bad.trim();
    run(&["config", "set", "l.json", "1"]).ok();
    let told = run(&["config", "rollback", "l.json", bad]).failure(2);
    assert!(
        told.starts_with("quorate: l.json is left as it was: not JSON: "),
        "{told}"
    );
    // What stood at a revision that is compacted away is judged as well.
    let unrelated = run(&["set", "other", "x"]).ok();
    run(&["config", "set", "l.json", "2"]).ok();
    run(&["compact", unrelated.trim()]).ok();
    run(&["config", "rollback", "l.json", bad]).failure(6);
    assert_eq!(run(&["config", "get", "l.json"]).ok(), "2\n");
    run(&["set", "m.json", "{"]).ok();
    let bad = run(&["set", "other", "y"]).ok();
    let newest = run(&["set", "other", "z"]).ok();
    run(&["compact", newest.trim()]).ok();
    let rollback = ["config", "rollback", "m.json", bad.trim()];
    run(&rollback).failure(2);
    run(&[&rollback[..], &["--format", "text"]].concat()).ok();
}

#[test]
fn each_version_is_printed_as_it_comes_and_a_bad_one_is_told() {
    let place = Place::new("config-watch");
    place.ok(&["config", "set", "k", "1"]);
    let mut watch = place
        .command(&["config", "watch", "k"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut err = BufReader::new(watch.stderr.take().unwrap()).lines();
    assert_eq!(out.next().unwrap().unwrap(), "1");
    place.ok(&["set", "k", "{"]);
    let told = err.next().unwrap().unwrap();
    assert!(
        told.starts_with("quorate: k at revision ") && told.contains("not JSON"),
        "{told}"
    );
    place.ok(&["delete", "k"]);
    assert!(err.next().unwrap().unwrap().contains("was deleted"));
    place.ok(&["config", "set", "k", "2"]);
    assert_eq!(out.next().unwrap().unwrap(), "2");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

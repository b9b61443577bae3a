//! What people type: words of the command line, transactions on standard input, templates; and what
//! templates and environment variables are made of, the keys of others.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf, sync::LazyLock};

use arbitrary::{Result, Unstructured};
use quorate::{Client, KeyRange};
use tempfile::TempDir;

use crate::paused;

const MAX_WORDS: usize = 16;

/// What separates the keys and values of one input.
const SEPARATOR: u8 = b'\n';

const WORDS: &[&str] = &[
    "--url",
    "-s",
    "--servers",
    "--namespace",
    "--cacert",
    "--cert",
    "--key",
    "--server-name",
    "--user",
    "--password",
    "--timeout",
    "-o",
    "--output",
    "json",
    "text",
    "compact",
    "--physical",
    "config",
    "get",
    "set",
    "edit",
    "diff",
    "render",
    "exec",
    "watch",
    "history",
    "rollback",
    "apply",
    "delete",
    "--prefix",
    "demo",
    "dev",
    "discover",
    "elect",
    "--value",
    "--ttl",
    "-t",
    "--again",
    "etcd-test",
    "--index",
    "--precond",
    "--posix",
    "health",
    "--watch",
    "--interval",
    "--quota",
    "--endpoints-only",
    "lock",
    "--try",
    "--max-hold",
    "--holder",
    "locks",
    "ls",
    "show",
    "break",
    "--token",
    "leader",
    "lease",
    "grant",
    "keep-alive",
    "revoke",
    "list",
    "members",
    "observe",
    "--exact",
    "--from",
    "--from-now",
    "--from-oldest",
    "--prev",
    "--puts",
    "--deletes",
    "--until-deleted",
    "--exec",
    "register",
    "--meta",
    "--weight",
    "--layout",
    "services",
    "status",
    "txn",
    "--",
    "-",
    "a=b",
    "5s",
    "0",
    "1h",
    "-1",
    "9h9",
    "18446744073709551616",
    "9223372036854775807",
    "0x7",
    "694d",
    "mem:",
    "etcd://h:1",
    "mem:?ttl=1s",
    "h1,h2",
    "name",
    "",
    "=",
    "--mode",
    "0644",
    "8",
    "--signal",
    "HUP",
    "15",
    "--format",
    "yaml",
    "-p",
    "leader",
    "unlock",
    "--help",
    "--version",
    "-h",
    "\u{e9}",
    "--debounce",
    "--splay",
    "--kill-after",
];

const CONDITIONS: &[&str] = &[
    "mod",
    "create",
    "version",
    "value",
    "lease",
    "mod(\"a\") = \"0\"\n",
    "(",
    ")",
    "=",
    "!=",
    "<",
    ">",
    "\"",
    "\\",
    "\\x",
    "\\xff",
    "\n",
    "\n\n",
    "\n\n\n",
    "put",
    "get",
    "del",
    "put a b\n",
    "get a\n",
    "del a\n",
    "--prefix",
    "--lease",
    "--rev",
    "'",
    " ",
    "0",
    "-1",
    "9223372036854775808",
    "ff",
    "key",
    "#",
    "\0",
    "\u{e9}",
];

const TEMPLATES: &[&str] = &[
    "{{ key('a') }}{{ key('b', default='x') }}",
    "{% for kv in keys('') %}{{ kv.key }}={{ kv.value }}\n{% endfor %}",
    "{% for kv in keys('a') %}{{ key(kv.value, default='') }}{% endfor %}",
    "{{ tree('a') }}{{ tree('') | tojson }}{{ key('a', default='1') | json }}",
    "{% for it in service('api') %}{{ it.address }}{{ it.metadata }}{{ it.weight }}{% endfor %}",
    "{{ json(key('a', default='{}')) }}",
];

/// Templates on a disk.
static FILES: LazyLock<Files> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |(number, text): (usize, &&str)| {
        let path = directory.path().join(number.to_string());
        fs::write(&path, text).expect("a file");
        path
    };
    let fixed: Vec<_> = TEMPLATES.iter().enumerate().map(write).collect();
    // Those that compile.
    Files {
        any: directory.path().join("any"),
        fixed,
        _directory: directory,
    }
});

struct Files {
    any: PathBuf,
    fixed: Vec<PathBuf>,
    _directory: TempDir,
}

/// Runs one input: which reader, and what it reads.
pub(crate) fn feed(input: &[u8]) {
    let [how, rest @ ..] = input else {
        return;
    };
    match how % 6 {
        0 => words(
            rest.split(|byte| *byte == SEPARATOR)
                .map(<[u8]>::to_vec)
                .collect(),
        ),
        1 => {
            let mut typed = Vec::new();
            // The input has ended.
            let _ = some_words(&mut Unstructured::new(rest), &mut typed);
            words(typed);
        }
        2 => quorate_cli::fuzzing::txn(rest),
        3 => {
            let mut text = Vec::new();
            let _ = some_text(&mut Unstructured::new(rest), &mut text);
            quorate_cli::fuzzing::txn(&text);
        }
        4 => {
            fs::write(&FILES.any, rest).expect("a file");
            quorate_cli::fuzzing::template(&FILES.any);
        }
        _ => paused(keys(rest)),
    }
}

fn words(words: Vec<Vec<u8>>) {
    let program = OsString::from("quorate");
    let words = words
        .into_iter()
        .take(MAX_WORDS)
        .filter(|word| !word.contains(&0));
    let words = words.map(OsString::from_vec);
    let words: Vec<_> = std::iter::once(program).chain(words).collect();
    quorate_cli::fuzzing::command_line(&words);
}

fn some_words(u: &mut Unstructured<'_>, words: &mut Vec<Vec<u8>>) -> Result<()> {
    while !u.is_empty() && words.len() < MAX_WORDS {
        let mut word = u.choose(WORDS)?.as_bytes().to_vec();
        match u.int_in_range(0..=7)? {
            0 => word.extend_from_slice(u.choose(WORDS)?.as_bytes()),
            1 => {
                word.push(b'=');
                word.extend_from_slice(u.choose(WORDS)?.as_bytes());
            }
            2 => word.push(u.arbitrary()?),
            _ => {}
        }
        words.push(word);
    }
    Ok(())
}

fn some_text(u: &mut Unstructured<'_>, text: &mut Vec<u8>) -> Result<()> {
    while !u.is_empty() {
        match u.ratio(1, 16)? {
            true => text.push(u.arbitrary()?),
            false => text.extend_from_slice(u.choose(CONDITIONS)?.as_bytes()),
        }
    }
    Ok(())
}

/// Keys, as templates and environment variables.
async fn keys(rest: &[u8]) {
    let client = Client::connect("mem:").await.expect("a store in memory");
    let mut parts = rest.split(|byte| *byte == SEPARATOR);
    while let Some(key) = parts.next() {
        let value = parts.next().unwrap_or_default();
        if key.is_empty() {
            continue;
        }
        for root in ["", "services/api/"] {
            let key = [root.as_bytes(), key].concat();
            client.put(key, value).await.expect("a put");
        }
    }
    let all = client.list("").await.expect("all keys");
    for (prefix, upper) in [("", true), ("services/", false), ("a/", true)] {
        quorate_cli::fuzzing::variables(&all, prefix.as_bytes(), upper);
    }
    for path in &FILES.fixed {
        quorate_cli::fuzzing::render(path, &client).await;
    }
    client.delete(KeyRange::all()).await.expect("a deletion");
}

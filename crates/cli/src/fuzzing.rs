//! Doors for fuzzing: what reads the words, the files and the keys of others.

use std::{ffi::OsString, path::Path};

use clap::Parser;
use quorate::{Client, KeyValue};

use crate::{
    args::Args,
    cmd::{
        config::{
            template::Template,
            variables::{Naming, Variables},
            view::View,
        },
        txn::parse,
    },
    connection,
    etcd_test::words::Words,
};

/// How often a template may ask for more.
const MAX_READS: usize = 64;

/// Reads a command line, as far as that does nothing yet.
pub fn command_line(words: &[OsString]) {
    if let Ok(args) = Args::try_parse_from(words) {
        // Why it cannot be used.
        let _ = connection::options(&args.connect, |_| Ok(None));
    }
    for posix in [false, true] {
        let words = words.iter().skip(1).cloned();
        let _ = Words::parse(words, posix).map(Words::verb);
    }
}

/// Reads a transaction, as standard input has it.
pub fn txn(text: &[u8]) {
    let _ = parse::parse(text);
}

/// Makes environment variables of keys.
pub fn variables(kvs: &[KeyValue], prefix: &[u8], upper: bool) {
    let prefix = prefix.to_vec();
    let _ = Variables::of(kvs, &Naming { prefix, upper });
}

/// Compiles a template.
pub fn template(path: &Path) {
    let _ = Template::read(path, "");
}

/// Renders a template with the keys of a store.
pub async fn render(path: &Path, client: &Client) {
    let template = Template::read(path, "").expect("a fine template");
    let mut view = View::default();
    for _ in 0..MAX_READS {
        let attempt = template.render(view);
        let Some(missing) = attempt.lookups.missing else {
            return;
        };
        view = attempt.lookups.view;
        view.read(client, missing).await.expect("a store in memory");
    }
    panic!("the template asks for ever");
}

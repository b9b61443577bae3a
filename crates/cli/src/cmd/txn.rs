//! `txn`: several operations at once, on conditions.

pub(crate) mod parse;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use quorate::{Client, OpResult};
use serde_json::{Value as Json, json};

use super::standard_input;
use crate::{
    failure::{Failure, NO, complain},
    output::{Output, key_value},
};

pub(crate) async fn run(client: &Client, out: &mut Output) -> Result<ExitCode, Failure> {
    if io::stdin().is_terminal() {
        complain("reads conditions, operations if they hold, operations if not; see txn --help");
    }
    let parsed = parse::parse(&standard_input()?)?;
    let mut txn = client.txn();
    for compare in parsed.compares {
        txn = txn.when(compare);
    }
    for op in parsed.success {
        txn = txn.then(op);
    }
    for op in parsed.failure {
        txn = txn.or_else(op);
    }
    let done = txn.commit().await?;
    out.text_only(&[if done.succeeded {
        b"succeeded"
    } else {
        b"refused"
    }])?;
    for result in &done.results {
        print(out, result)?;
    }
    out.json_only(|| {
        let results: Vec<_> = done.results.iter().map(json).collect();
        json!({
            "succeeded": done.succeeded,
            "revision": done.header.revision.0,
            "results": results,
        })
    })?;
    Ok(ExitCode::from(if done.succeeded { 0 } else { NO }))
}

/// Prints the text for one operation: `put`, `delete<tab>COUNT`, or a line for each key read.
fn print(out: &mut Output, result: &OpResult) -> Result<(), Failure> {
    match result {
        OpResult::Delete { deleted, .. } => {
            out.text_only(&[b"delete", deleted.to_string().as_bytes()])
        }
        OpResult::Put { .. } => out.text_only(&[b"put"]),
        OpResult::Range(range) => range
            .kvs
            .iter()
            .try_for_each(|kv| out.text_only(&[b"get", &kv.key, &kv.value])),
        OpResult::Txn(txn) => txn.results.iter().try_for_each(|result| print(out, result)),
    }
}

fn json(result: &OpResult) -> Json {
    match result {
        OpResult::Delete { deleted, .. } => json!({ "type": "delete", "deleted": deleted }),
        OpResult::Put { .. } => json!({ "type": "put" }),
        OpResult::Range(range) => {
            let kvs: Vec<_> = range.kvs.iter().map(key_value).collect();
            json!({ "type": "get", "kvs": kvs })
        }
        OpResult::Txn(txn) => {
            let results: Vec<_> = txn.results.iter().map(json).collect();
            json!({ "type": "txn", "succeeded": txn.succeeded, "results": results })
        }
    }
}

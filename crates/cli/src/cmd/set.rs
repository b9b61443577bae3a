//! `set`: write a key.

use std::{os::unix::ffi::OsStringExt, process::ExitCode};

use quorate::{
    Client, Compare, Error, ErrorKind, Key, KeyValue, Op, OpResult, Put, Revision, TxnResult,
};
use serde_json::{Value as Json, json};

use super::standard_input;
use crate::{
    args,
    failure::{Failure, NO, complain},
    output::{Output, bytes, key_value, lease},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Set,
) -> Result<ExitCode, Failure> {
    let value = match args.value.as_encoded_bytes() {
        b"-" => standard_input()?,
        _ => args.value.into_vec(),
    };
    let key = Key::from(args.name.into_vec());
    let mut put = Put::new(&key, value).prev_kv();
    if let Some(ttl) = args.ttl {
        put = put.lease(client.grant_lease(ttl).await?.id);
    }
    let granted = put.lease;
    let swapped = swap(client, args.condition, put).await;
    let is_absent = match &swapped {
        // It may be in place, and by this lease.
        Err(error) => !error.is_indefinite(),
        Ok(swapped) => matches!(swapped, Swapped::Refused(_)),
    };
    if let Some(lease) = granted.filter(|_| is_absent) {
        // Best effort: it ends by itself. The lease that the key had before may be somebody's session, and
        // is left to its time too.
        let _ = client.revoke_lease(lease).await;
    }
    match swapped? {
        Swapped::Done { revision, prev } => {
            out.result(&[revision.to_string().as_bytes()], || {
                json!({
                    "key": bytes(&key),
                    "revision": revision.0,
                    "lease": lease(granted),
                    "prev": prev.as_ref().map_or(Json::Null, key_value),
                })
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Swapped::Refused(present) => {
            complain(&refusal(&key, present.as_ref()));
            Ok(ExitCode::from(NO))
        }
    }
}

/// What became of the write.
enum Swapped {
    Done {
        revision: Revision,
        prev: Option<KeyValue>,
    },
    /// The condition did not hold: this is what is there.
    Refused(Option<KeyValue>),
}

async fn swap(client: &Client, condition: args::Condition, put: Put) -> quorate::Result<Swapped> {
    let key = put.key.clone();
    let mut txn = client.txn().or_else(Op::range(&key)).then(put);
    if let Some(value) = condition.if_value {
        txn = txn.when(Compare::value(&key).eq(value.into_vec()));
    } else if let Some(revision) = condition.if_revision {
        txn = txn.when(Compare::mod_revision(&key).eq(Revision(revision)));
    } else if condition.if_absent {
        txn = txn.when(Compare::absent(&key));
    }
    let TxnResult {
        header, results, ..
    } = txn.commit().await?;
    match results.into_iter().next() {
        Some(OpResult::Put { prev }) => Ok(Swapped::Done {
            revision: header.revision,
            prev,
        }),
        Some(OpResult::Range(range)) => Ok(Swapped::Refused(range.kvs.into_iter().next())),
        _ => Err(Error::new(
            ErrorKind::Internal,
            "the answer to a put is of another kind",
        )),
    }
}

fn refusal(key: &Key, present: Option<&KeyValue>) -> String {
    let Some(kv) = present else {
        return format!("not set: {key} does not exist");
    };
    let value = match kv.value.as_str() {
        Some(text) => format!("{text:?}"),
        None => format!("\"{}\"", kv.value.escape_ascii()),
    };
    let revision = kv.mod_revision;
    format!("not set: {key} is {value} since revision {revision}")
}

//! `locks`: who holds what, who waits, and how to take it away.

use std::{collections::BTreeMap, os::unix::ffi::OsStringExt, process::ExitCode};

use futures_util::TryStreamExt;
use quorate::{
    Client, Contender, Error, ErrorKind, Holder, Key, KeyRange, KeyValue, Op, OpResult, Range,
    Revision, Value,
};
use serde_json::{Value as Json, json};

use crate::{
    args::Locks,
    failure::{Failure, NO, complain},
    output::{Output, bytes, lease},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: Locks,
) -> Result<ExitCode, Failure> {
    match args {
        Locks::Ls { prefix } => ls(client, out, prefix.into_vec()).await,
        Locks::Show { name } => show(client, out, name.into_vec().into()).await,
        Locks::Break { name, token } => {
            break_hold(client, out, name.into_vec().into(), token.map(Revision)).await
        }
    }
}

/// A lock or an election that is held.
struct Held {
    holder: KeyValue,
    waiters: usize,
}

async fn ls(client: &Client, out: &mut Output, prefix: Vec<u8>) -> Result<ExitCode, Failure> {
    let mut held: BTreeMap<Vec<u8>, Held> = BTreeMap::new();
    let mut pages = client.pages(Range::new(KeyRange::prefix(prefix)).keys_only());
    while let Some(page) = pages.try_next().await? {
        for kv in page.kvs {
            let Some(name) = name(&kv) else {
                continue;
            };
            match held.get_mut(name) {
                None => {
                    let name = name.to_vec();
                    let waiters = 0;
                    held.insert(
                        name,
                        Held {
                            holder: kv,
                            waiters,
                        },
                    );
                }
                Some(present) => {
                    present.waiters += 1;
                    if kv.create_revision < present.holder.create_revision {
                        present.holder = kv;
                    }
                }
            }
        }
    }
    let mut held: Vec<_> = held.into_iter().collect();
    for some in held.chunks_mut(READS) {
        let reads = some.iter().map(|(_, held)| Op::range(&held.holder.key));
        let read = reads.fold(client.txn(), |txn, read| txn.then(read));
        for ((_, held), result) in some.iter_mut().zip(read.commit().await?.results) {
            // Nothing is told of who has left since.
            if let OpResult::Range(mut range) = result
                && let Some(kv) = range.kvs.pop()
            {
                held.holder = kv;
            }
        }
    }
    for (name, Held { holder, waiters }) in &held {
        let who = Who::read(&holder.value);
        let token = holder.create_revision;
        let (waiting, [by, host, pid, since]) = (waiters.to_string(), who.columns());
        let token_text = token.to_string();
        let columns = [
            name,
            token_text.as_bytes(),
            waiting.as_bytes(),
            by,
            host,
            pid,
            since,
        ];
        out.result(&columns, || {
            let mut json = json!({
                "name": bytes(name),
                "key": bytes(&holder.key),
                "token": token.0,
                "lease": lease(holder.lease),
                "waiters": waiters,
            });
            who.describe(&mut json);
            json
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(client: &Client, out: &mut Output, name: Key) -> Result<ExitCode, Failure> {
    let contenders = client.lock(name).contenders().await?;
    for (place, contender) in contenders.iter().enumerate() {
        let Contender {
            key, token, value, ..
        } = contender;
        let who = Who::read(value);
        let [by, host, pid, since] = who.columns();
        let token_text = token.to_string();
        out.result(&[key, token_text.as_bytes(), by, host, pid, since], || {
            let mut json = json!({
                "key": bytes(key),
                "token": token.0,
                "lease": lease(contender.lease),
                "holds": place == 0,
            });
            who.describe(&mut json);
            json
        })?;
    }
    Ok(ExitCode::from(if contenders.is_empty() { NO } else { 0 }))
}

async fn break_hold(
    client: &Client,
    out: &mut Output,
    name: Key,
    token: Option<Revision>,
) -> Result<ExitCode, Failure> {
    let lock = client.lock(&name);
    let contenders = lock.contenders().await?;
    let Some(holder) = contenders.first() else {
        let message = format!("nobody holds {name}");
        return Err(Error::new(ErrorKind::NotFound, message).into());
    };
    if token.is_some_and(|token| token != holder.token) {
        let message = format!("{name} is held with token {}", holder.token);
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    if !lock.break_hold(holder.token).await? {
        let message = format!(
            "the hold of {name} with token {} has just ended",
            holder.token
        );
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    let token = holder.token;
    out.result(
        &[&holder.key, token.to_string().as_bytes()],
        || json!({ "key": bytes(&holder.key), "token": token.0 }),
    )?;
    complain(&format!(
        "the hold of {name} with token {token} is broken, and the next in the queue holds; until the \
         broken holder sees it, only tokens and fences exclude the two"
    ));
    Ok(ExitCode::SUCCESS)
}

/// The name of the lock or election in whose queue a key stands: what is before the last slash, if its
/// own lease follows, with or without a number.
fn name(kv: &KeyValue) -> Option<&[u8]> {
    let slash = kv.key.iter().rposition(|&byte| byte == b'/')?;
    let (name, place) = (&kv.key[..slash], &kv.key[slash + 1..]);
    let number = place.strip_prefix(kv.lease?.to_string().as_bytes())?;
    let is_ours = match number.split_first() {
        None => true,
        Some((dash, digits)) => {
            *dash == b'-' && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
    };
    (is_ours && !name.is_empty()).then_some(name)
}

/// Who stands in a queue, as its key's value tells.
enum Who<'a> {
    /// A holder of a lock that quorate made.
    Known { holder: Holder, pid: String },
    /// A candidate, or somebody who uses another tool.
    Other(&'a Value),
}

impl<'a> Who<'a> {
    fn read(value: &'a Value) -> Self {
        match Holder::from_value(value) {
            Some(holder) => Self::Known {
                pid: holder.pid.to_string(),
                holder,
            },
            None => Self::Other(value),
        }
    }

    fn columns(&self) -> [&[u8]; 4] {
        match self {
            Self::Known { holder, pid } => {
                [&holder.holder, &holder.host, pid, &holder.since].map(|text| text.as_bytes())
            }
            Self::Other(value) => [value, b"", b"", b""],
        }
    }

    fn describe(&self, json: &mut Json) {
        match self {
            Self::Known { holder, .. } => {
                json["holder"] = holder.holder.as_str().into();
                json["host"] = holder.host.as_str().into();
                json["pid"] = holder.pid.into();
                json["since"] = holder.since.as_str().into();
            }
            Self::Other(value) => json["value"] = bytes(value),
        }
    }
}

/// How many keys are read at a time; etcd takes up to 128 operations in a transaction.
const READS: usize = 100;

#[cfg(test)]
mod tests {
    use quorate::LeaseId;

    use super::*;

    #[test]
    fn a_key_stands_in_a_queue_if_its_last_part_is_its_own_lease() {
        let key = |key: &str| KeyValue {
            key: key.into(),
            value: Value::default(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
            lease: Some(LeaseId(0x1f)),
        };
        for of_a in ["a/1f", "a/1f-0", "a/1f-12"] {
            assert_eq!(name(&key(of_a)), Some(&b"a"[..]), "{of_a}");
        }
        assert_eq!(name(&key("a/b/1f")), Some(&b"a/b"[..]));
        for none in [
            "1f", "/1f", "a/1", "a/1f-", "a/1f-x", "a/1f0", "a/1f/b", "a/1F",
        ] {
            assert_eq!(name(&key(none)), None, "{none}");
        }
        assert_eq!(
            name(&KeyValue {
                lease: None,
                ..key("a/1f")
            }),
            None
        );
    }
}

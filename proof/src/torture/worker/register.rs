//! Reads and writes a few keys, several at once, and notes what each call saw.

use futures_util::future::join_all;
use quorate::{Compare, Op, OpResult, Range, RangeResult, Result, Revision};

use super::{Desk, failure, millis};
use crate::history::{Action, Outcome, What, now};

/// How many keys there are, and how many work on them at once in one process.
const KEYS: usize = 4;
const TASKS: usize = 2;

/// Reads, writes and swaps until the process shall stop.
pub(super) async fn registers(desk: &Desk) {
    join_all((0..TASKS).map(|task| work(desk, task))).await;
}

async fn work(desk: &Desk, task: usize) {
    let mut serial = 0;
    let mut known = String::new();
    while !desk.is_stopping() {
        let key = format!("reg/{}", fastrand::usize(..KEYS));
        serial += 1;
        let value = format!("{}-{task}-{serial}", desk.process);
        let action = match fastrand::u8(..3) {
            0 => Action::Read,
            1 => Action::Write { value },
            _ => Action::Swap {
                expected: known.clone(),
                value,
            },
        };
        let called = now();
        let outcome = perform(desk, &key, &action).await;
        let outcome = outcome.unwrap_or_else(|error| failure(&error));
        match (&action, &outcome) {
            (
                _,
                Outcome::Read {
                    value: Some(value), ..
                },
            ) => known.clone_from(value),
            (Action::Write { value } | Action::Swap { value, .. }, Outcome::Written { .. }) => {
                known.clone_from(value);
            }
            _ => {}
        }
        desk.note(What::Operation {
            key,
            called,
            action,
            outcome,
        });
        desk.rest(millis(2), millis(60)).await;
    }
}

async fn perform(desk: &Desk, key: &str, action: &Action) -> Result<Outcome> {
    match action {
        Action::Read => {
            let range = desk.client.range(Range::new(key)).await?;
            Ok(read(&range, range.header.revision))
        }
        Action::Write { value } => {
            let revision = desk.client.put(key, value).await?;
            Ok(Outcome::Written {
                revision: revision.0,
            })
        }
        Action::Swap { expected, value } => {
            let swap = desk
                .client
                .txn()
                .when(Compare::value(key).eq(expected.as_str()))
                .then(Op::put(key, value))
                .or_else(Op::range(key))
                .commit()
                .await?;
            let revision = swap.header.revision;
            Ok(match swap.results.first() {
                Some(OpResult::Range(range)) => read(range, revision),
                _ => Outcome::Written {
                    revision: revision.0,
                },
            })
        }
    }
}

/// What a read of one key saw at a revision.
fn read(range: &RangeResult, revision: Revision) -> Outcome {
    let value = range
        .kvs
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    Outcome::Read {
        revision: revision.0,
        value,
    }
}

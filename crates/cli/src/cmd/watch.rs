//! `watch`: print changes as they happen.

use std::process::ExitCode;

use futures_util::TryStreamExt;
use quorate::{Client, Event, Range, Revision, WatchRequest};
use serde_json::json;

use super::keys;
use crate::{
    args,
    failure::Failure,
    output::{Output, bytes, key_value},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Watch,
) -> Result<ExitCode, Failure> {
    let keys = keys(args.name, args.prefix);
    // A watch waits for as long as no server answers; a read tells so.
    let probe = Range::new(keys.clone()).keys_only().limit(1);
    let now = client.range(probe).await?.header.revision;
    let start = args.from.map_or_else(|| now.next(), Revision);
    let mut watch = client.watch(WatchRequest::new(keys).start(start));
    while let Some(batch) = watch.try_next().await? {
        let first = batch.events.first().map(Event::revision);
        let is_wanted = |event: &&Event| !args.once || Some(event.revision()) == first;
        for event in batch.events.iter().filter(is_wanted) {
            print(out, event)?;
        }
        // A reader should see a change when it happens.
        out.flush()?;
        if args.once && first.is_some() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut Output, event: &Event) -> Result<(), Failure> {
    match event {
        Event::Put { kv, .. } => out.result(&[b"put", &kv.key, &kv.value], || {
            let mut json = key_value(kv);
            json["type"] = json!("put");
            json
        }),
        Event::Delete { key, revision, .. } => out.result(
            &[b"delete", key],
            || json!({ "type": "delete", "key": bytes(key), "mod_revision": revision.0 }),
        ),
    }
}

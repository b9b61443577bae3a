//! Watches: past and present, filters, previous values, fragments, ids, progress and ends.

use etcd_client::{Client, DeleteOptions, Txn, TxnOp, WatchFilterType, WatchOptions};

use crate::{
    Result,
    transcript::{tell, tell_events},
};

/// Larger than what one message holds, in values that one request holds each.
const LARGE: usize = 1 << 20;

pub async fn run(client: &mut Client) -> Result {
    let before = client.put("w/0", "zero", None).await?;
    let start = before.header().ok_or("no header")?.revision();
    for (key, value) in [("w/1", "one"), ("w/2", "two"), ("w/1", "more")] {
        tell("put", client.put(key, value, None).await);
    }
    tell("delete", client.delete("w/2", None).await);
    options(client, start).await?;
    streams(client, start).await?;
    ends(client).await?;
    fragments(client).await
}

async fn options(client: &mut Client, start: i64) -> Result {
    let from = || WatchOptions::new().with_prefix().with_start_revision(start);
    for (what, options, count) in [
        ("from the past", from(), 6),
        ("with prev", from().with_prev_key(), 6),
        (
            "without puts",
            from().with_filters([WatchFilterType::NoPut]),
            2,
        ),
        (
            "without deletes",
            from().with_filters([WatchFilterType::NoDelete]),
            5,
        ),
        ("under an id", from().with_watch_id(77), 6),
        (
            "in fragments",
            from().with_fragment().with_progress_notify(),
            6,
        ),
    ] {
        let mut stream = client.watch("w/", Some(options)).await?;
        tell_events(what, &mut stream, count).await?;
    }
    Ok(())
}

/// One stream that carries several watches.
async fn streams(client: &mut Client, start: i64) -> Result {
    let mut stream = client.watch("w/1", None).await?;
    tell_events("the first", &mut stream, 1).await?;
    let past = WatchOptions::new().with_start_revision(start + 1);
    stream.watch("w/1", Some(past)).await?;
    tell_events("the second", &mut stream, 3).await?;
    stream
        .watch("w/2", Some(WatchOptions::new().with_watch_id(9)))
        .await?;
    tell_events("the third", &mut stream, 1).await?;
    stream
        .watch("w/2", Some(WatchOptions::new().with_watch_id(9)))
        .await?;
    tell_events("an id that is taken", &mut stream, 1).await?;
    stream.cancel(0).await?;
    tell_events("a cancellation", &mut stream, 1).await?;
    stream.cancel(4711).await?;
    client.put("w/1", "now", None).await?;
    client.put("w/2", "now", None).await?;
    tell_events("what goes on", &mut stream, 2).await?;
    stream.request_progress().await?;
    let progress = stream.message().await?.ok_or("the stream has ended")?;
    println!(
        "progress: watch {}, revision {:?}, {} events",
        progress.watch_id(),
        progress.header().map(|header| header.revision()),
        progress.events().len()
    );
    Ok(())
}

async fn ends(client: &mut Client) -> Result {
    let compacted = WatchOptions::new().with_start_revision(2);
    let mut stream = client.watch("a", Some(compacted)).await?;
    tell_events("what is compacted", &mut stream, 2).await?;
    let future = WatchOptions::new().with_start_revision(1 << 40);
    let mut stream = client.watch("a", Some(future)).await?;
    tell_events("the future", &mut stream, 1).await
}

/// What is too large for one message comes in several.
async fn fragments(client: &mut Client) -> Result {
    let before = client.put("f", "", None).await?;
    let start = before.header().ok_or("no header")?.revision() + 1;
    for number in 0..3 {
        let key = format!("f/{number}");
        client.put(key, vec![b'x'; LARGE], None).await?;
    }
    // One revision that tells all of them as previous values.
    let all = DeleteOptions::new().with_prefix();
    client
        .txn(Txn::new().and_then([TxnOp::delete("f/", Some(all))]))
        .await?;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(start)
        .with_prev_key()
        .with_fragment();
    let mut stream = client
        .watch_client()
        .max_decoding_message_size(64 << 20)
        .watch("f/", Some(options))
        .await?;
    let (mut puts, mut deletes, mut bytes) = (0, 0, 0);
    while deletes < 3 {
        let message = stream.message().await?.ok_or("the stream has ended")?;
        for event in message.events() {
            match event.prev_kv() {
                Some(prev) => {
                    deletes += 1;
                    bytes += prev.value().len();
                }
                None => puts += 1,
            }
        }
    }
    println!("fragments: {puts} puts, {deletes} deletes, {bytes} bytes");
    Ok(())
}

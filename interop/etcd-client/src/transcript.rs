//! Prints answers in a form in which all stores must agree.

use std::fmt::Debug;

use etcd_client::{Error, Event, EventType, WatchStream};

use crate::Result;

/// The numbers that every store has of its own.
const MASKED: [&str; 3] = ["cluster_id: ", "member_id: ", "raft_term: "];

/// Prints an answer, or a refusal by its code and text.
pub fn tell<T: Debug>(what: &str, answer: std::result::Result<T, Error>) -> Option<T> {
    match answer {
        Ok(answer) => {
            println!("{what}: {}", mask(format!("{answer:?}")));
            Some(answer)
        }
        Err(Error::GRpcStatus(status)) => {
            println!("{what}: {:?}, {:?}", status.code(), status.message());
            None
        }
        Err(error) => {
            println!("{what}: failed, {error:?}");
            None
        }
    }
}

/// Prints the next events of a stream, and of every other message what it is.
///
/// How events are put into messages is left out.
pub async fn tell_events(what: &str, stream: &mut WatchStream, count: usize) -> Result {
    let mut told = 0;
    while told < count {
        let message = stream.message().await?.ok_or("the stream has ended")?;
        if message.created() || message.canceled() {
            println!(
                "{what}: watch {}, created {}, canceled {}, compacted {}, reason {:?}",
                message.watch_id(),
                message.created(),
                message.canceled(),
                message.compact_revision(),
                message.cancel_reason()
            );
            told += 1;
        }
        for event in message.events() {
            println!("{what}: watch {}, {}", message.watch_id(), words(event));
            told += 1;
        }
    }
    if told > count {
        return Err(format!("{what}: {told} events, not {count}").into());
    }
    Ok(())
}

fn words(event: &Event) -> String {
    let kind = match event.event_type() {
        EventType::Delete => "delete",
        EventType::Put => "put",
    };
    format!("{kind} {:?}, before {:?}", event.kv(), event.prev_kv())
}

fn mask(mut text: String) -> String {
    for name in MASKED {
        let mut from = 0;
        while let Some(found) = text[from..].find(name) {
            from += found + name.len();
            let digits = text[from..].bytes().take_while(u8::is_ascii_digit).count();
            text.replace_range(from..from + digits, "?");
        }
    }
    text
}

//! Watchers, which check what they see.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quorate_wire::{
    etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    PATIENCE, Result,
    load::Counts,
    writer::{END, KEYS, WRITERS, key},
};

/// How many events a restless watcher sees, at most, before it hangs up.
const RESTLESS_EVENTS: usize = 5000;

/// How long a restless watcher stays away, less than it takes to compact what it will ask for.
const ABSENCE: Duration = Duration::from_millis(20);

/// What a watcher sees.
#[derive(Clone)]
pub(crate) struct Range {
    start: String,
    end: Option<String>,
    keys: usize,
}

pub(crate) struct Watcher {
    range: Range,
    client: WatchClient<Channel>,
    is_restless: bool,
    counts: Arc<Counts>,
    /// The revision that was seen last.
    revision: i64,
    /// The version of each key; zero once it is deleted.
    versions: HashMap<Vec<u8>, i64>,
    /// How many keys were seen to be written for the last time.
    ended: usize,
}

impl Range {
    pub(crate) fn all() -> Self {
        Self {
            start: "soak/".to_owned(),
            end: Some("soak0".to_owned()),
            keys: WRITERS * KEYS,
        }
    }

    pub(crate) fn of_writer(number: usize) -> Self {
        let number = number % WRITERS;
        Self {
            start: format!("soak/{number:02}/"),
            end: Some(format!("soak/{number:02}0")),
            keys: KEYS,
        }
    }

    pub(crate) fn of_key(number: usize) -> Self {
        Self {
            start: key(number % WRITERS, number % KEYS),
            end: None,
            keys: 1,
        }
    }
}

impl Watcher {
    pub(crate) fn new(
        range: Range,
        channel: Channel,
        is_restless: bool,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            range,
            client: WatchClient::new(channel).max_decoding_message_size(usize::MAX),
            is_restless,
            counts,
            revision: 0,
            versions: HashMap::new(),
            ended: 0,
        }
    }

    /// Watches until it has seen the end of all its keys.
    pub(crate) async fn run(mut self, ready: mpsc::Sender<()>) -> Result {
        let (_requests, mut answers) = self.open().await?;
        ready.send(()).await?;
        drop(ready);
        self.follow(&mut answers).await?;
        while self.ended < self.range.keys {
            drop(answers);
            tokio::time::sleep(ABSENCE).await;
            let (_requests, reopened) = self.open().await?;
            answers = reopened;
            self.counts.returns.fetch_add(1, Ordering::Relaxed);
            self.follow(&mut answers).await?;
        }
        Ok(())
    }

    /// Begins after what was seen last, or with what comes.
    async fn open(&mut self) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
        let (requests, receiver) = mpsc::channel(1);
        let request = WatchCreateRequest {
            key: self.range.start.clone().into(),
            range_end: self.range.end.clone().unwrap_or_default().into(),
            start_revision: match self.revision {
                0 => 0,
                revision => revision + 1,
            },
            ..WatchCreateRequest::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(request));
        requests.send(WatchRequest { request_union }).await?;
        let watching = self.client.watch(ReceiverStream::new(receiver));
        let mut answers = timeout(PATIENCE, watching).await??.into_inner();
        let created = timeout(PATIENCE, answers.message()).await??;
        match created {
            Some(created) if created.created && !created.canceled => Ok((requests, answers)),
            other => Err(format!("a watch was not created: {other:?}").into()),
        }
    }

    /// Checks what comes, until the end, or until it is time to hang up.
    async fn follow(&mut self, answers: &mut Streaming<WatchResponse>) -> Result {
        let mut left = if self.is_restless {
            fastrand::usize(1..RESTLESS_EVENTS)
        } else {
            usize::MAX
        };
        while left > 0 && self.ended < self.range.keys {
            let answer = answers.message().await?.ok_or("a stream has ended")?;
            if answer.canceled {
                return Err(format!("a watch was canceled: {answer:?}").into());
            }
            left = left.saturating_sub(answer.events.len());
            let count = answer.events.len() as u64;
            self.counts.events.fetch_add(count, Ordering::Relaxed);
            for event in answer.events {
                self.check(event)?;
            }
        }
        Ok(())
    }

    fn check(&mut self, event: Event) -> Result {
        let is_put = event.r#type() == EventType::Put;
        let kv = event.kv.ok_or("an event without a key")?;
        // Every write changes one key.
        if kv.mod_revision <= self.revision {
            let known = self.revision;
            return Err(format!("an event at {} after {known}", kv.mod_revision).into());
        }
        self.revision = kv.mod_revision;
        let version = self.versions.entry(kv.key.to_vec()).or_default();
        let is_next = if is_put {
            kv.version == *version + 1
        } else {
            *version > 0
        };
        if !is_next {
            return Err(format!("after version {version} came {kv:?}").into());
        }
        *version = if is_put { kv.version } else { 0 };
        self.ended += usize::from(kv.value == END);
        Ok(())
    }
}

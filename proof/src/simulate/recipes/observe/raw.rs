//! A plain watch, and what it may tell next.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use quorate::{Client, ErrorKind, Event, Revision, Watch, WatchBatch, WatchRequest};
use tokio::time::timeout;

use super::sight::Sight;
use crate::simulate::{cut::cut_after, recipes::history::History, world::World};

/// How long it may take to agree with the store once all is well.
const AGREES: Duration = Duration::from_secs(15);

/// After how long a watch is open once all is well.
const OPENS: Duration = Duration::from_secs(10);

pub(super) struct Raw {
    world: Arc<World>,
    history: Arc<History>,
    sight: Sight,
    watch: Watch,
    /// Everything after this was or will be told.
    told: Revision,
    /// What was there after this may be lost to it, if that is compacted away.
    reads_after: Revision,
    /// Whether it may also begin later than that, since nothing was told yet of a watch from now.
    now: bool,
    failed: bool,
    ended: bool,
}

impl Raw {
    pub(super) fn new(
        world: &Arc<World>,
        history: &Arc<History>,
        client: &Client,
        random: &mut fastrand::Rng,
    ) -> Self {
        let sight = Sight::draw(random);
        let past = history.now();
        let now = past.revision();
        let mut request = WatchRequest::new(sight.keys.clone());
        if !sight.deletions {
            request = request.puts_only();
        }
        if !sight.puts {
            request = request.deletes_only();
        }
        if sight.prev {
            request = request.prev_kv();
        }
        let mut told = now;
        let from_now = random.bool();
        if !from_now {
            let start = Revision(random.i64(past.oldest().0.max(3) - 2..=now.0 + 4));
            request = request.start(start);
            told = start.previous();
        }
        drop(past);
        Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            sight,
            watch: client.watch(request),
            told,
            reads_after: told,
            now: from_now,
            failed: false,
            ended: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads what is told, and gives up at some time.
    pub(super) async fn read(&mut self, random: &mut fastrand::Rng) {
        let patience = Duration::from_millis(random.u64(..400));
        for _ in 0..random.u8(1..4) {
            let steps = (random.u8(..4) == 0).then(|| random.u32(1..8));
            match timeout(patience, cut_after(steps, self.watch.next())).await {
                Ok(Some(told)) => self.told(told),
                Ok(None) => {}
                Err(_) => return,
            }
            if self.ended {
                return;
            }
        }
    }

    /// Reads all that is left to be told, now that all is well.
    pub(super) async fn finish(&mut self) {
        if self.now
            && !self.failed
            && let Ok(told) = timeout(OPENS, self.watch.next()).await
        {
            self.told(told);
        }
        if self.now {
            // Nobody writes meanwhile, and what comes from now on must be told.
            self.now = false;
            self.told = self.history.now().revision();
        }
        let rest = async {
            while !self.is_up_to_date() {
                let told = self.watch.next().await;
                self.told(told);
            }
        };
        if timeout(AGREES, rest).await.is_err() {
            let Self { sight, told, .. } = self;
            let what = format_args!("a watch of {sight:?} tells nothing after {told}");
            self.world.broken("I8", what);
        }
    }

    fn is_up_to_date(&self) -> bool {
        let next = self.sight.next_after(&self.history.now(), self.told);
        self.ended || (!self.failed && next.is_none())
    }

    fn told(&mut self, told: Option<Result<WatchBatch, quorate::Error>>) {
        match told {
            _ if self.failed && told.is_some() => {
                self.broken(format_args!("a watch that failed tells on: {told:?}"));
            }
            Some(Ok(batch)) => self.batch(&batch),
            Some(Err(error)) => {
                let oldest = self.history.now().oldest();
                self.world.count("compacted");
                if error.kind() != ErrorKind::Compacted || self.reads_after.next() >= oldest {
                    let told = self.reads_after;
                    self.broken(format_args!(
                        "after {told}, with all kept from {oldest} on: {error}"
                    ));
                }
                self.failed = true;
            }
            None => {
                if !self.failed {
                    self.broken(format_args!("a watch just ended"));
                }
                self.ended = true;
            }
        }
    }

    fn batch(&mut self, batch: &WatchBatch) {
        let past = self.history.now();
        if batch.events.is_empty() {
            self.broken(format_args!("a batch without events"));
        }
        let mut rest = batch.events.as_slice();
        while let Some(first) = rest.first() {
            let revision = first.revision();
            let end = rest.partition_point(|event: &Event| event.revision() <= revision);
            let (same, later) = rest.split_at(end.max(1));
            rest = later;
            self.world.count("watched");
            let next = self.sight.next_after(&past, self.told);
            let expected = if self.now {
                revision > self.told
            } else {
                next == Some(revision)
            };
            if !expected {
                let told = self.told;
                self.broken(format_args!(
                    "{revision} is told after {told}, not {next:?}"
                ));
            }
            self.sight.check(&self.world, &past, revision, same);
            self.told = revision;
            self.reads_after = revision;
            self.now = false;
        }
    }

    fn broken(&self, what: std::fmt::Arguments<'_>) {
        self.world.broken("I7", what);
    }
}

//! Watches that survive disconnects: the only place that opens a stream again.

use std::{
    fmt,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture, stream::BoxStream};
use futures_util::{
    StreamExt,
    future::{self, Either, select},
    stream,
};

use crate::{
    Client, Error, ErrorKind, Event, Header, KeyRange, Moment, Result, Revision, WatchBatch,
    WatchRequest,
    backend::WatchStream,
    link::{Link, bounded_by},
    mutant::{self, Mutant, planted},
    retry::Backoff,
};

/// How long a watch may be silent before it is asked for a sign of life.
const IDLE: Duration = Duration::from_secs(5);

/// How long the sign of life may take before another stream is opened.
const PATIENCE: Duration = Duration::from_millis(2500);

/// How long a watch that has to catch up must be silent before the server is asked whether it has told
/// all. Servers before etcd 3.4.25 and 3.5.8 say so too early, but not by that much.
const QUIET: Duration = Duration::from_millis(300);

/// Every change of the keys watched, in order, across disconnects.
///
/// Each item holds whole revisions: the changes of one transaction are never parted. The stream ends
/// only with an error, which is its last item: [`Compacted`](crate::ErrorKind::Compacted) if changes were
/// compacted away before they could be read, or what the store refuses for good.
///
/// It is lazy: while it is not polled nothing is read, and nothing piles up. Dropping it closes the
/// watch.
#[must_use = "a watch does nothing unless it is polled"]
pub struct Watch {
    batches: BoxStream<'static, Result<WatchBatch>>,
}

impl Client {
    /// Watches keys: `client.watch("key")`, or any [`WatchRequest`] for more.
    ///
    /// The watch opens when it is first polled. A request without a start begins at that moment; read
    /// first and start at the revision after the answer's to miss nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use futures_util::StreamExt;
    /// use quorate::{Client, KeyRange, WatchRequest};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let revision = client.put("cfg/limit", "10").await?;
    /// let request = WatchRequest::new(KeyRange::prefix("cfg/")).start(revision);
    /// let batch = client.watch(request).next().await.expect("a watch never just ends")?;
    /// assert_eq!(batch.events[0].key(), &"cfg/limit");
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, request: impl Into<WatchRequest>) -> Watch {
        let feed = Feed::new(self.link(), request.into(), Resume::Exactly);
        let batches = stream::unfold(Some(feed), |feed| async {
            let mut feed = feed?;
            loop {
                match feed.next().await {
                    Ok(Signal::Broken | Signal::Opened(_)) => {}
                    Ok(Signal::Batch(batch)) => return Some((Ok(batch), Some(feed))),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Watch {
            batches: batches.boxed(),
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Reads all changes of past revisions, from `first` to `last`, and perhaps some later ones.
pub(crate) async fn replay(
    link: &Link,
    keys: KeyRange,
    first: Revision,
    last: Revision,
) -> Result<Vec<Event>> {
    let runtime = link.runtime();
    let patience = link.settings().call_timeout;
    let mut feed = Feed::new(link, WatchRequest::new(keys).start(first), Resume::Exactly);
    let mut events: Vec<Event> = Vec::new();
    let mut is_open = false;
    let mut deadline = runtime.now() + patience;
    loop {
        let next = async {
            match is_open {
                true => feed.next_or_told(last).await,
                false => feed.next().await.map(Some),
            }
        };
        let what = "telling of the past";
        match bounded_by(&**runtime, deadline, patience, what, false, next).await? {
            Some(Signal::Opened(_)) => is_open = true,
            Some(Signal::Broken) => is_open = false,
            Some(Signal::Batch(batch)) => {
                events.extend(batch.events);
                deadline = runtime.now() + patience;
                if events.last().is_some_and(|event| event.revision() >= last) {
                    return Ok(events);
                }
            }
            None => return Ok(events),
        }
    }
}

/// What to do about the changes that happen while a feed is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Read them: the feed goes on after the last revision it saw.
    Exactly,
    /// Skip them: the feed begins anew, and its reader looks for itself after each
    /// [`Signal::Opened`]. A watch from now is served at once, one from the past only by and by.
    FromNow,
}

/// What a [`Feed`] tells.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A stream was opened; it tells every change after this header's revision.
    Opened(Header),
    /// Changes, at least one.
    Batch(WatchBatch),
    /// The stream broke or stayed silent; another will be opened.
    Broken,
}

/// A watch that is opened again whenever its stream breaks or falls silent.
pub(crate) struct Feed {
    link: Link,
    request: WatchRequest,
    resume: Resume,
    /// The first revision not seen yet; zero before the first stream, and always if the feed
    /// resumes from now.
    next: Revision,
    /// The newest revision that the store is known to have had: the start may lie in the future.
    seen: Revision,
    /// The cluster in which everything up to `seen` was seen; zero if that is not known.
    cluster_id: u64,
    /// How often the store had changed by then.
    changes: u64,
    open: Option<Open>,
    backoff: Backoff,
    /// When the next stream may be opened.
    not_before: Option<Moment>,
}

/// An open stream and what was heard of it.
struct Open {
    stream: Box<dyn WatchStream>,
    /// The answer that opened it, until that was told.
    created: Option<Header>,
    /// The revision up to which the server said on it that it has told all.
    told: Revision,
    heard: Moment,
    asked: Option<Moment>,
    /// Kept between polls, so that a caller that comes and goes does not start the wait anew.
    alarm: Option<BoxFuture<'static, ()>>,
}

impl Feed {
    pub(crate) fn new(link: &Link, request: WatchRequest, resume: Resume) -> Self {
        Self {
            link: link.clone(),
            next: request.start,
            seen: Revision::ZERO,
            request,
            resume,
            cluster_id: 0,
            changes: link.core.cluster_changes(),
            open: None,
            backoff: Backoff::new(link.runtime()),
            not_before: None,
        }
    }

    /// Says that the start was seen in this cluster: a store that is not as far was set back.
    pub(crate) fn within(self, cluster_id: u64) -> Self {
        Self {
            seen: self.next.previous(),
            cluster_id,
            ..self
        }
    }

    /// Waits for the next signal. An error is final: [`Compacted`](ErrorKind::Compacted), or
    /// [`ClusterChanged`](ErrorKind::ClusterChanged) if the store is not the one that it was, or what
    /// the store refuses for good.
    ///
    /// Cancel safe: nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Signal> {
        loop {
            let Some(open) = &mut self.open else {
                match self.open().await {
                    Ok(()) => continue,
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, keys = %self.request.keys, "watch not opened");
                        self.not_before =
                            Some(self.link.runtime().now() + self.backoff.next_pause());
                        return Ok(Signal::Broken);
                    }
                    Err(error) => return Err(error),
                }
            };
            if let Some(created) = open.created {
                match self.verify(created).await {
                    Ok(()) => {}
                    Err(error) if error.is_retryable() => return Ok(self.broken()),
                    Err(error) => {
                        self.open = None;
                        return Err(error);
                    }
                }
                self.cluster_id = created.cluster_id;
                if self.resume == Resume::Exactly && self.next == Revision::ZERO {
                    self.next = created.revision.next();
                }
                let started = created.revision.min(self.next.previous());
                self.seen = self.seen.max(started);
                if let Some(open) = &mut self.open {
                    open.created = None;
                }
                return Ok(Signal::Opened(created));
            }
            match open.next(&self.link).await {
                Some(Ok(mut batch)) => {
                    self.backoff.reset();
                    if batch.events.is_empty() {
                        open.told = open.told.max(batch.header.revision);
                    }
                    if self.resume == Resume::Exactly {
                        // A server that repeats itself after a reconnect is not repeated.
                        let repeats = planted(Mutant::EventTwice);
                        batch
                            .events
                            .retain(|event| repeats || event.revision() >= self.next);
                        if let Some(last) = batch.events.last() {
                            self.seen = last.revision();
                            self.next = last.revision().next();
                        }
                    }
                    if !batch.events.is_empty() {
                        return Ok(Signal::Batch(batch));
                    }
                }
                Some(Err(error)) if !error.is_retryable() => {
                    self.open = None;
                    return Err(error);
                }
                _ if planted(Mutant::WatchNotResumed) => return future::pending().await,
                broken => {
                    tracing::debug!(?broken, keys = %self.request.keys, "watch stream broke");
                    return Ok(self.broken());
                }
            }
        }
    }

    /// The next signal of a stream that is open, or `None` once nothing comes and the server says that
    /// all up to a revision is told, for which it is asked. Servers before etcd 3.4.25 and 3.5.8 say so
    /// too early, so changes come first however early it was said.
    ///
    /// Cancel safe, too; but the silence counts from the call.
    pub(crate) async fn next_or_told(&mut self, missed: Revision) -> Result<Option<Signal>> {
        loop {
            let runtime = self.link.runtime();
            let quiet = runtime.sleep_until(runtime.now() + QUIET);
            match select(pin!(self.next()), quiet).await {
                Either::Left((signal, _)) => return signal.map(Some),
                Either::Right(((), _)) => {}
            }
            if let Some(open) = &mut self.open {
                if open.told >= missed {
                    return Ok(None);
                }
                open.stream.request_progress();
            }
        }
    }

    /// Opens a stream, once it is time.
    async fn open(&mut self) -> Result<()> {
        let runtime = self.link.runtime();
        if let Some(not_before) = self.not_before {
            runtime.sleep_until(not_before).await;
            self.not_before = None;
        }
        let next = mutant::resume(self.next, self.cluster_id != 0);
        let request = self.request.clone().start(next);
        let watching = self.link.watch(request).await?;
        self.open = Some(Open {
            stream: watching.stream,
            created: Some(watching.created),
            told: Revision::ZERO,
            heard: runtime.now(),
            asked: None,
            alarm: None,
        });
        Ok(())
    }

    /// Gives up what was missed: the next stream begins with the present.
    pub(crate) fn skip(&mut self) {
        self.open = None;
        self.next = Revision::ZERO;
    }

    /// Gives up the stream.
    fn broken(&mut self) -> Signal {
        self.open = None;
        self.not_before = Some(self.link.runtime().now() + self.backoff.next_pause());
        Signal::Broken
    }

    /// Makes sure that a store which is behind what was seen only lags. One that was restored from a
    /// backup would say nothing until it is as far again, and then go on with other changes.
    async fn verify(&mut self, created: Header) -> Result<()> {
        if self.resume == Resume::FromNow {
            return Ok(());
        }
        let known = self.cluster_id != 0;
        if known && created.cluster_id != self.cluster_id {
            return Err(changed(format!(
                "the watch is of cluster {:x}, not {:x}",
                created.cluster_id, self.cluster_id
            )));
        }
        // A store may be behind what we saw, or only behind what others of this client did.
        let is_behind = created.revision < self.link.core.newest();
        if created.revision.next() >= self.next
            && !(known && is_behind)
            && self.changes == self.link.core.cluster_changes()
        {
            return Ok(());
        }
        let present = self.link.revision(&self.request.keys).await?;
        let was_exchanged = self.changes != self.link.core.cluster_changes();
        if known && (was_exchanged || present < self.seen) {
            return Err(changed(format!(
                "the store went back from revision {} to {present}",
                self.seen
            )));
        }
        Ok(())
    }
}

fn changed(message: String) -> Error {
    Error::new(ErrorKind::ClusterChanged, message)
}

impl Open {
    /// The next batch, or `None` if the stream ended or stays silent.
    async fn next(&mut self, link: &Link) -> Option<Result<WatchBatch>> {
        let runtime = link.runtime();
        loop {
            let due = match self.asked {
                None => self.heard + IDLE,
                Some(asked) => asked + PATIENCE,
            };
            let alarm = self.alarm.get_or_insert_with(|| runtime.sleep_until(due));
            match select(self.stream.next(), alarm).await {
                Either::Left((item, _)) => {
                    // The alarm stays set: when it rings it looks when the stream was last heard,
                    // which is cheaper than setting a new one for every batch.
                    self.heard = runtime.now();
                    self.asked = None;
                    return item;
                }
                Either::Right(((), _)) => {
                    self.alarm = None;
                    let now = runtime.now();
                    if now < due {
                        continue;
                    }
                    if self.asked.is_some() {
                        self.stream.distrust();
                        return None;
                    }
                    self.stream.request_progress();
                    self.asked = Some(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::recorder::{Recorder, header, kv};

    fn sign(revision: i64) -> WatchBatch {
        WatchBatch {
            header: header(revision),
            events: Vec::new(),
        }
    }

    fn change(revision: i64) -> WatchBatch {
        let mut kv = kv("key");
        kv.mod_revision = Revision(revision);
        let prev = None;
        WatchBatch {
            header: header(9),
            events: vec![Event::Put { kv, prev }],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_believed_to_have_told_all_only_once_nothing_comes() {
        let recorder = Recorder::new();
        let client = Client::with_backend(Arc::new(Arc::clone(&recorder)));
        let request = WatchRequest::new("key").start(Revision(3));
        let mut feed = Feed::new(client.link(), request, Resume::Exactly);
        feed.next().await.expect("it opens");
        // An answer to somebody else's question, too early.
        recorder.tell(sign(9));
        recorder.tell(change(4));
        let late = async {
            for revision in [5, 6] {
                tokio::time::sleep(QUIET * 2 / 3).await;
                recorder.tell(change(revision));
            }
        };
        let all = async {
            for revision in [4, 5, 6] {
                let signal = feed.next_or_told(Revision(9)).await.expect("a watch");
                assert!(
                    matches!(&signal, Some(Signal::Batch(batch)) if *batch == change(revision)),
                    "{signal:?}"
                );
            }
            assert!(
                feed.next_or_told(Revision(9))
                    .await
                    .expect("a watch")
                    .is_none()
            );
        };
        future::join(late, all).await;
        assert_eq!(recorder.lock().progress_requests, 0);

        // What a stream said holds for no other.
        recorder.lock().watcher = None;
        for _ in 0..2 {
            feed.next().await.expect("it breaks and opens again");
        }
        let asked = async {
            while recorder.lock().progress_requests == 0 {
                tokio::time::sleep(QUIET / 3).await;
            }
            recorder.tell(change(7));
            recorder.tell(sign(9));
        };
        let (signal, ()) = future::join(feed.next_or_told(Revision(9)), asked).await;
        assert!(matches!(signal, Ok(Some(Signal::Batch(_)))), "{signal:?}");
        assert!(
            feed.next_or_told(Revision(9))
                .await
                .expect("a watch")
                .is_none()
        );
    }
}

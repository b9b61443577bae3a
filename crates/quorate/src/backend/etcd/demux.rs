//! One stream to one member, which carries any number of watches: the task that reads and writes it.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryFutureExt as _, stream};
use quorate_engine::{Event, Header, KeyRange, Revision, WatchBatch};
use quorate_wire::etcdserverpb::{
    WatchCancelRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tonic::Response;

use super::{
    auth::Auth,
    buffer::Buffer,
    call::{Attempt, Caller},
    classify::{Failure, Remedy},
    convert::{event_from_wire, header_from_wire, watch_to_wire},
    mux::{Mux, Watcher},
    pool::Pool,
};
use crate::{Error, ErrorKind, backend::Watching};

/// How many requests may be on their way into the connection.
const REQUESTS_UNDER_WAY: usize = 16;

/// How long one request for progress serves all watches that ask.
const PROGRESS_SHARED: Duration = Duration::from_secs(1);

/// The id of an answer that is meant for no single watch.
const NO_WATCH: i64 = -1;

/// What the task knows of its stream.
pub(super) struct Demux {
    mux: Arc<Mux>,
    pool: Arc<Pool>,
    auth: Arc<Auth>,
    watches: HashMap<i64, Watch>,
    /// The watches that etcd has not confirmed, oldest first: it answers in order.
    unanswered: VecDeque<i64>,
    /// What is to be sent.
    outbox: VecDeque<WatchRequest>,
    last_id: i64,
    progress_asked: Option<Instant>,
}

/// One watch, as the task has it.
struct Watch {
    keys: KeyRange,
    buffer: Arc<Buffer>,
    /// Who opens it, until etcd has confirmed it.
    reply: Option<oneshot::Sender<Result<Watching, Failure>>>,
    /// Events of a revision whose last fragment is yet to come.
    held: Vec<Event>,
}

impl Demux {
    /// Carries the watches of `mux` until none is left or the stream fails.
    pub(super) fn run(
        mux: Arc<Mux>,
        attempt: Attempt,
        caller: &Caller,
    ) -> impl Future<Output = ()> + Send + 'static {
        let patience = caller.attempt_timeout;
        let mut demux = Self {
            mux,
            pool: Arc::clone(&caller.pool),
            auth: Arc::clone(&caller.auth),
            watches: HashMap::new(),
            unanswered: VecDeque::new(),
            outbox: VecDeque::new(),
            last_id: 0,
            progress_asked: None,
        };
        async move {
            if let Err(failure) = demux.serve(attempt, patience).await {
                demux.fail(failure);
            }
        }
    }

    async fn serve(&mut self, attempt: Attempt, patience: Duration) -> Result<(), Failure> {
        let (outgoing, mut requests) = mpsc::channel(REQUESTS_UNDER_WAY);
        let request = attempt.request(stream::poll_fn(move |context| requests.poll_recv(context)));
        let mut client = attempt.watch();
        // etcd answers nothing before the first request, so the stream opens with that.
        let open = async move { client.watch(request).await };
        let mut incoming = Box::pin(open.map_ok(Response::into_inner).try_flatten_stream());
        let mux = Arc::clone(&self.mux);
        let mut doubted = false;
        let mut silent_until = None;
        while self.collect()? {
            let silence = sleep_until(silent_until.unwrap_or_else(Instant::now));
            tokio::select! {
                permit = outgoing.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(request) = self.outbox.pop_front() {
                            permit.send(request);
                        }
                    }
                    // The stream has ended and is about to say why.
                    Err(_) => self.outbox.clear(),
                },
                answer = incoming.next() => {
                    silent_until = None;
                    match answer {
                        Some(Ok(answer)) => self.take(answer)?,
                        Some(Err(status)) => return Err(Failure::of(&status)),
                        None => return Err(Failure::unreachable("the watch stream ended")),
                    }
                }
                () = mux.wake.notified() => (),
                () = mux.connection.given_up.cancelled(), if !doubted => {
                    // A call failed on this connection. A sign of life clears the stream of doubt.
                    doubted = true;
                    silent_until = Some(Instant::now() + patience);
                    self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
                }
                () = silence, if silent_until.is_some() => return Err(Failure::unanswered(patience)),
            }
        }
        Ok(())
    }

    /// Takes what the watchers ask for; false, and nothing more is taken, once nobody watches.
    fn collect(&mut self) -> Result<bool, Failure> {
        let mux = Arc::clone(&self.mux);
        let mut inbox = mux.inbox();
        if let Some(failure) = inbox.distrusted.take() {
            return Err(failure);
        }
        for id in inbox.cancels.drain(..) {
            if self.watches.remove(&id).is_some() {
                self.send(RequestUnion::CancelRequest(WatchCancelRequest {
                    watch_id: id,
                }));
            }
        }
        for create in inbox.creates.drain(..) {
            self.last_id += 1;
            let request = watch_to_wire(&create.request, self.last_id);
            let watch = Watch {
                keys: KeyRange::from_wire(request.key.clone(), request.range_end.clone()),
                buffer: Arc::default(),
                reply: Some(create.reply),
                held: Vec::new(),
            };
            self.watches.insert(self.last_id, watch);
            self.unanswered.push_back(self.last_id);
            self.send(RequestUnion::CreateRequest(request));
        }
        let shared = |asked: Instant| asked.elapsed() < PROGRESS_SHARED;
        if mem::take(&mut inbox.progress) && !self.progress_asked.is_some_and(shared) {
            self.progress_asked = Some(Instant::now());
            self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        }
        // A stream that was just opened awaits its first watch.
        inbox.closed = self.watches.is_empty() && self.last_id > 0;
        Ok(!inbox.closed)
    }

    fn send(&mut self, request: RequestUnion) {
        self.outbox.push_back(WatchRequest {
            request_union: Some(request),
        });
    }

    /// Hands one answer to the watch that it is for.
    fn take(&mut self, mut answer: WatchResponse) -> Result<(), Failure> {
        let header = header_from_wire(answer.header.take())?;
        if answer.created {
            return self.created(header, &answer);
        }
        if answer.canceled {
            self.cancelled(&answer);
            return Ok(());
        }
        if answer.watch_id == NO_WATCH {
            self.progress_asked = None;
            let sign = WatchBatch {
                header,
                events: Vec::new(),
            };
            // A sign of life always finds room, or the room is full of life.
            let confirmed = self.watches.values().filter(|watch| watch.reply.is_none());
            confirmed.for_each(|watch| _ = watch.buffer.push(sign.clone()));
            return Ok(());
        }
        let Some(watch) = self.watches.get_mut(&answer.watch_id) else {
            // It was cancelled here while this was under way.
            return Ok(());
        };
        let mut events = mem::take(&mut watch.held);
        for event in answer.events {
            let event = event_from_wire(event)?;
            if !watch.keys.contains(event.key()) {
                return Err(Failure::garbled("a change of a key that nobody watches"));
            }
            events.push(event);
        }
        if answer.fragment {
            // The newest revision may go on in the next fragment; those before it are whole.
            let newest = events.last().map_or(Revision::ZERO, Event::revision);
            let whole = events.partition_point(|event| event.revision() < newest);
            watch.held = events.split_off(whole);
            if events.is_empty() {
                return Ok(());
            }
        }
        if !watch.buffer.push(WatchBatch { header, events }) {
            let message = "the watcher read too slowly, and was cut off";
            watch
                .buffer
                .end(Error::new(ErrorKind::Unavailable, message));
            self.watches.remove(&answer.watch_id);
            let watch_id = answer.watch_id;
            self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        }
        Ok(())
    }

    /// Tells who opens a watch that it is open, or why it is not.
    fn created(&mut self, header: Header, answer: &WatchResponse) -> Result<(), Failure> {
        let id = match answer.watch_id {
            id if self.unanswered.contains(&id) => id,
            // A refusal may not name the watch.
            _ if answer.canceled => self.unanswered.front().copied().unwrap_or(NO_WATCH),
            _ => {
                return Err(Failure::garbled(
                    "a watch that nobody asked for; is the endpoint etcd's grpc-proxy, which \
                     numbers watches by itself? Name the members instead",
                ));
            }
        };
        self.unanswered.retain(|&unanswered| unanswered != id);
        if answer.canceled {
            if let Some(reply) = self.watches.remove(&id).and_then(|watch| watch.reply) {
                // Who gave up waiting needs no answer.
                let _ = reply.send(Err(reason(answer)));
            }
        } else if let Some(watch) = self.watches.get_mut(&id)
            && let Some(reply) = watch.reply.take()
        {
            let watcher = Watcher {
                id,
                buffer: Arc::clone(&watch.buffer),
                mux: Arc::clone(&self.mux),
            };
            // If nobody waits any more the watcher is dropped, which cancels the watch.
            let _ = reply.send(Ok(Watching {
                created: header,
                stream: Box::new(watcher),
            }));
        }
        Ok(())
    }

    /// Ends a watch that the server ended.
    fn cancelled(&mut self, answer: &WatchResponse) {
        let watch_id = answer.watch_id;
        let Some(watch) = self.watches.remove(&watch_id) else {
            // The answer to a cancel request.
            return;
        };
        self.unanswered.retain(|&unanswered| unanswered != watch_id);
        if answer.compact_revision > 0 {
            // Until it is told so, etcd 3.5 goes on counting this watch as one that has not caught
            // up, and answers no request for progress on this stream.
            self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        }
        watch.finish(reason(answer));
    }

    /// Ends every watch, since the stream failed.
    fn fail(mut self, failure: Failure) {
        self.mux.inbox().closed = true;
        match failure.remedy {
            Remedy::Elsewhere => self.pool.failed(&self.mux.connection),
            Remedy::None => (),
            Remedy::Token => self.auth.reject(&self.mux.token),
        }
        let renews = failure.remedy == Remedy::Token && self.auth.has_user();
        for (_, watch) in self.watches.drain() {
            let mut failure = failure.clone();
            if renews && watch.reply.is_none() {
                // The next stream brings a new token.
                failure.kind = ErrorKind::Unavailable;
            }
            watch.finish(failure);
        }
    }
}

impl Drop for Demux {
    /// Ends the watches that are left if the backend is closed under them.
    fn drop(&mut self) {
        self.mux.inbox().closed = true;
        self.watches
            .drain()
            .for_each(|(_, watch)| watch.finish(Failure::closed()));
    }
}

impl Watch {
    /// Tells who reads it, or still opens it, why it ends.
    fn finish(self, failure: Failure) {
        match self.reply {
            Some(reply) => drop(reply.send(Err(failure))),
            None => self.buffer.end(failure.into_error(false)),
        }
    }
}

/// Why the server ended a watch.
fn reason(answer: &WatchResponse) -> Failure {
    match (answer.compact_revision, answer.cancel_reason.as_str()) {
        (oldest @ 1.., _) => Failure::compacted(Revision(oldest)),
        (_, "") => Failure::unreachable("the server cancelled the watch"),
        (_, reason) => Failure::of_text(reason),
    }
}

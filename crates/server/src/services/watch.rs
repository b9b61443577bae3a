//! The service Watch: streams that carry any number of watches.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use prost::Message;
use quorate_engine::{Error, Event, Header, Revision, Watcher};
use quorate_wire::etcdserverpb::{
    self as pb, WatchCancelRequest, WatchCreateRequest, WatchResponse, watch_request::RequestUnion,
    watch_server::Watch,
};
use tokio::time::{Sleep, sleep};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{
    access::{Need, caller::Caller},
    convert::{event_to_wire, header_to_wire, watch_from_wire},
    services::MAX_MESSAGE_BYTES,
    status::refused,
    store::{
        journal::Position,
        shared::{Shared, State},
    },
};

/// The id of no watch: etcd refuses a watch under it, and tells the progress of all.
const NO_WATCH: i64 = -1;

/// What the encoding of an event adds to it, at most.
const EVENT_OVERHEAD_BYTES: usize = 8;

pub(crate) struct WatchService {
    shared: Arc<Shared>,
}

impl WatchService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<BoxStream<WatchResponse>>, Status> {
        let (caller, requests) = Caller::part(request);
        let shared = Arc::clone(&self.shared);
        let stream = shared.lock().watches.open();
        let changes = Changes {
            stream,
            timer: Timer {
                interval: shared.progress_interval,
                sleep: None,
            },
            shared,
            caller,
            requests: Some(requests),
            options: HashMap::new(),
            replies: VecDeque::new(),
            batch: None,
            seen: Position::default(),
            waiting: None,
            wants_progress: false,
            is_turn_of_requests: false,
        };
        Ok(Response::new(Box::pin(changes)))
    }
}

/// The wait for the disk.
type Waiting = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// What a stream tells. It does everything when it is polled, which is when the transport has room:
/// requests are read and changes are looked up one at a time, so that nothing piles up for a client
/// that does not read.
struct Changes {
    shared: Arc<Shared>,
    stream: u64,
    /// Who is asked for his rights at each watch. A watch that he had the right to goes on whatever
    /// becomes of it, as in etcd.
    caller: Caller,
    /// None once the client has said that there will be no more.
    requests: Option<Streaming<pb::WatchRequest>>,
    options: HashMap<i64, Options>,
    /// What is to be sent before anything else: a reply, or one tiding of progress a watch.
    replies: VecDeque<WatchResponse>,
    batch: Option<Batch>,
    /// What must be on disk before the next message may leave.
    seen: Position,
    /// The wait for that, once it has begun.
    waiting: Option<Waiting>,
    /// Progress was asked for.
    wants_progress: bool,
    is_turn_of_requests: bool,
    timer: Timer,
}

/// What a client wants of a watch, beyond its changes.
struct Options {
    fragment: bool,
    /// Tell progress at intervals.
    progress_notify: bool,
    /// Nothing was told since the interval began.
    is_quiet: bool,
}

impl Stream for Changes {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            ready!(this.poll_durable(cx))?;
            if let Some(reply) = this.replies.pop_front() {
                return Poll::Ready(Some(Ok(reply)));
            }
            if let Some(response) = this.next_piece() {
                return Poll::Ready(Some(Ok(response)));
            }
            this.is_turn_of_requests = !this.is_turn_of_requests;
            let has_served = this.is_turn_of_requests && this.poll_request(cx)?;
            let has_news = has_served || this.look_up(cx) || this.poll_request(cx)?;
            if !has_news && !this.poll_timer(cx) {
                // Once the disk has failed nobody might wake it again.
                this.shared.check()?;
                return Poll::Pending;
            }
        }
    }
}

impl Changes {
    /// Waits until what was looked up is on disk.
    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.shared.is_durable(self.seen)? {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        let (shared, seen) = (&self.shared, self.seen);
        let waiting = self.waiting.get_or_insert_with(|| {
            let shared = Arc::clone(shared);
            Box::pin(async move { shared.durable(seen).await })
        });
        let waited = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(waited)
    }

    /// Looks at the store. What is found may be told once it is on disk.
    fn look<T>(&mut self, call: impl FnOnce(&mut State) -> T) -> T {
        let (found, seen) = self.shared.look(|state, _| call(state));
        self.seen = seen;
        found
    }

    /// Serves the next request, and tells whether there was one.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<bool, Status> {
        let Some(requests) = &mut self.requests else {
            return Ok(false);
        };
        let request = match Pin::new(requests).poll_next(cx) {
            Poll::Ready(Some(request)) => request?,
            Poll::Ready(None) => {
                // The watches go on until the client hangs up.
                self.requests = None;
                return Ok(false);
            }
            Poll::Pending => return Ok(false),
        };
        match request.request_union {
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request),
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::ProgressRequest(_)) => self.wants_progress = true,
            None => {
                return Err(Status::invalid_argument(
                    "a watch request without a content",
                ));
            }
        }
        Ok(true)
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let options = Options {
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            is_quiet: true,
        };
        let asked_id = request.watch_id;
        let watch = watch_from_wire(request);
        let stream = self.stream;
        let caller = &self.caller;
        let ((created, header), seen) = self.shared.look(|state, now| {
            let create = || -> Result<i64, String> {
                let watch = watch.ok_or("an unknown filter")?;
                if watch.start >= Revision::ZERO {
                    let permit = state.permit(now, caller, Need::Read(&watch.keys));
                    permit.map_err(denied)?;
                }
                let State { store, watches, .. } = state;
                let (watcher, _) = Watcher::new(store, watch).map_err(|it| it.to_string())?;
                let added = watches.add(stream, asked_id, watcher);
                Ok(added.ok_or("mvcc: duplicate watch ID provided on the WatchStream")?)
            };
            (create(), state.header())
        });
        self.seen = seen;
        let mut response = WatchResponse {
            header,
            created: true,
            ..WatchResponse::default()
        };
        match created {
            Ok(id) => {
                self.options.insert(id, options);
                response.watch_id = id;
            }
            Err(reason) => {
                response.watch_id = NO_WATCH;
                response.canceled = true;
                response.cancel_reason = reason;
            }
        }
        self.replies.push_back(response);
    }

    /// Ends a watch. One that is not there is passed over in silence, as etcd does.
    fn cancel(&mut self, WatchCancelRequest { watch_id }: WatchCancelRequest) {
        let stream = self.stream;
        let (removed, header) =
            self.look(|state| (state.watches.remove(stream, watch_id), state.header()));
        self.options.remove(&watch_id);
        if removed {
            self.replies.push_back(WatchResponse {
                header,
                watch_id,
                canceled: true,
                ..WatchResponse::default()
            });
        }
    }

    /// Looks for what there is to tell. If there is nothing, the next change wakes the stream.
    fn look_up(&mut self, cx: &mut Context<'_>) -> bool {
        let stream = self.stream;
        let waker = cx.waker().clone();
        let (told, header, _unneeded) = self.look(|state| {
            let State { store, watches, .. } = state;
            let told = watches.next(store, stream);
            let unneeded = match told {
                Some(_) => Some(waker),
                None => watches.wait(stream, waker),
            };
            (told, header_to_wire(store.header()), unneeded)
        });
        match told {
            Some((id, Ok(batch))) => {
                let options = self.options.get_mut(&id);
                self.batch = Some(Batch {
                    id,
                    header: batch.header,
                    events: batch.events.into(),
                    fragment: options.is_some_and(|options| {
                        options.is_quiet = false;
                        options.fragment
                    }),
                });
                true
            }
            Some((id, Err(refusal))) => {
                let oldest = match refusal {
                    Error::Compacted { oldest } => oldest,
                    _ => Revision::ZERO,
                };
                self.replies.push_back(compacted(header, id, oldest));
                true
            }
            // The sign of life comes after all that there was to tell.
            None if mem::take(&mut self.wants_progress) => {
                self.replies.push_back(progress(header, NO_WATCH));
                true
            }
            None => false,
        }
    }

    /// The next message of the batch that is being told.
    fn next_piece(&mut self) -> Option<WatchResponse> {
        let batch = self.batch.as_mut()?;
        let piece = batch.take();
        if batch.events.is_empty() {
            self.batch = None;
        }
        Some(piece)
    }

    /// Tells the watches that have been quiet for an interval how far they have come.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.options.values().any(|options| options.progress_notify) {
            self.timer.sleep = None;
            return false;
        }
        if self.timer.poll(cx).is_pending() {
            return false;
        }
        let Self {
            shared,
            options,
            replies,
            stream,
            seen,
            ..
        } = self;
        ((), *seen) = shared.look(|state, _| {
            let header = header_to_wire(state.store.header());
            for (&id, options) in options.iter_mut().filter(|(_, it)| it.progress_notify) {
                let was_quiet = mem::replace(&mut options.is_quiet, true);
                if was_quiet && state.watches.is_up_to_date(*stream, id) {
                    replies.push_back(progress(header, id));
                }
            }
        });
        true
    }
}

/// Ends the watches.
impl Drop for Changes {
    fn drop(&mut self) {
        let watching = self.shared.lock().watches.close(self.stream);
        drop(watching);
    }
}

/// Changes that are being told, in as many messages as their size asks for.
struct Batch {
    id: i64,
    header: Header,
    events: VecDeque<Event>,
    /// The client puts together what is parted within a revision.
    fragment: bool,
}

impl Batch {
    /// Whole revisions as far as they fit in a message. One that does not fit alone is parted, or
    /// goes as it is if the client does not want that.
    fn take(&mut self) -> WatchResponse {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut last = Revision::ZERO;
        let mut is_parted = false;
        while let Some(event) = self.events.pop_front() {
            let revision = event.revision();
            let encoded = event_to_wire(event.clone());
            let added = encoded.encoded_len() + EVENT_OVERHEAD_BYTES;
            let fits = events.is_empty() || bytes + added <= MAX_MESSAGE_BYTES;
            if !fits && (self.fragment || revision != last) {
                is_parted = revision == last;
                self.events.push_front(event);
                break;
            }
            bytes += added;
            last = revision;
            events.push(encoded);
        }
        WatchResponse {
            header: Some(header_to_wire(self.header)),
            watch_id: self.id,
            fragment: is_parted,
            events,
            ..WatchResponse::default()
        }
    }
}

/// What wakes a stream at intervals, as long as a watch of it wants that.
struct Timer {
    interval: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let interval = self.interval;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(interval)));
        let elapsed = sleep.as_mut().poll(cx);
        if elapsed.is_ready() {
            self.sleep = None;
        }
        elapsed
    }
}

/// Why a watch is refused to who may not have it: a status of gRPC, as Go prints it.
fn denied(refusal: Error) -> String {
    let status = refused(refusal);
    format!(
        "rpc error: code = {:?} desc = {}",
        status.code(),
        status.message()
    )
}

/// The end of a watch whose next change is gone. etcd's header then shows no revision.
fn compacted(header: pb::ResponseHeader, watch_id: i64, oldest: Revision) -> WatchResponse {
    WatchResponse {
        header: Some(pb::ResponseHeader {
            revision: 0,
            ..header
        }),
        watch_id,
        canceled: true,
        compact_revision: oldest.0,
        ..WatchResponse::default()
    }
}

fn progress(header: pb::ResponseHeader, watch_id: i64) -> WatchResponse {
    WatchResponse {
        header: Some(header),
        watch_id,
        ..WatchResponse::default()
    }
}

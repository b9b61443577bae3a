//! What goes between a client and its store, for the trace.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture};
use quorate::{
    Event, Granted, Header, LeaseId, LeaseStatus, Range, RangeResult, Result, Revision, Txn,
    TxnResult, WatchBatch, WatchRequest,
    backend::{
        Alarm, AuthRequest, AuthResponse, Backend, Beat, BeatStream, Member, Status, WatchStream,
        Watching,
    },
};

use super::{scheduler::MachineId, trace::Trace};

/// A store as a client sees it, with every answer in the trace.
#[derive(Debug)]
pub(crate) struct Wire {
    inner: Arc<dyn Backend>,
    end: End,
}

/// The client's end.
#[derive(Clone, Debug)]
struct End {
    client: MachineId,
    trace: Trace,
}

impl Wire {
    pub(crate) fn new(inner: Arc<dyn Backend>, client: MachineId, trace: &Trace) -> Self {
        let trace = trace.clone();
        let end = End { client, trace };
        Self { inner, end }
    }

    async fn call<T>(
        &self,
        what: impl fmt::Display,
        call: BoxFuture<'_, Result<T>>,
        answer: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        self.end.say(format_args!("> {what}"));
        let result = call.await;
        match &result {
            Ok(answered) => self.end.say(format_args!("< {what}: {}", answer(answered))),
            Err(error) => self.end.failed(&what, error),
        }
        result
    }
}

impl End {
    fn say(&self, what: fmt::Arguments<'_>) {
        self.trace.say(format_args!("{} {what}", self.client));
    }

    fn failed(&self, what: impl fmt::Display, error: &quorate::Error) {
        self.say(format_args!("< {what}: {error}"));
    }
}

impl Backend for Wire {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        let what = format!("range {}", request.keys.start);
        let call = self.inner.range(request);
        Box::pin(self.call(what, call, |answer| {
            format!("{} keys at {}", answer.kvs.len(), answer.header.revision)
        }))
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        let what = txn(&request);
        let call = self.inner.txn(request);
        Box::pin(self.call(what, call, |answer| {
            format!("{} at {}", answer.succeeded, answer.header.revision)
        }))
    }

    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>> {
        let call = self.inner.compact(revision, physical);
        Box::pin(self.call(format!("compact {revision}"), call, at))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        Box::pin(async move {
            let what = format!("watch {} from {}", request.keys.start, request.start);
            let call = self.inner.watch(request);
            let watching = self.call(&what, call, |watching| at(&watching.created));
            let Watching { created, stream } = watching.await?;
            let end = self.end.clone();
            let stream = Box::new(Told { stream, what, end });
            Ok(Watching { created, stream })
        })
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        let call = self.inner.grant(id, ttl);
        Box::pin(self.call(format!("grant {id}"), call, |granted| at(&granted.header)))
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>> {
        let call = self.inner.revoke(id);
        Box::pin(self.call(format!("revoke {id}"), call, at))
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        Box::pin(async move {
            let what = "keep alive".to_owned();
            let call = self.inner.keep_alive();
            let stream = self.call(&what, call, |_| "open".to_owned()).await?;
            let end = self.end.clone();
            let told = Told { stream, what, end };
            Ok(Box::new(told) as Box<dyn BeatStream>)
        })
    }

    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        let call = self.inner.lease_status(id, keys);
        Box::pin(self.call(format!("status of {id}"), call, |status| at(&status.header)))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        self.inner.leases()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        self.inner.members()
    }

    fn endpoints(&self) -> Vec<String> {
        self.inner.endpoints()
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        self.inner.status(endpoint)
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        self.inner.alarms()
    }

    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        self.inner.auth(request)
    }
}

fn at(header: &Header) -> String {
    format!("at {}", header.revision)
}

/// The keys that a transaction names.
fn txn(txn: &Txn) -> String {
    let mut text = "txn".to_owned();
    for compare in &txn.compares {
        text.push_str(&format!(" if {}", compare.keys.start));
    }
    for op in txn.success.iter().chain(&txn.failure) {
        text.push_str(&match op {
            quorate::Op::Put(put) => format!(" put {}", put.key),
            quorate::Op::Delete(delete) => format!(" delete {}", delete.keys.start),
            quorate::Op::Range(range) => format!(" range {}", range.keys.start),
            quorate::Op::Txn(inner) => format!(" ({})", self::txn(inner)),
        });
    }
    text
}

/// A stream whose items are in the trace.
struct Told<S: ?Sized> {
    stream: Box<S>,
    what: String,
    end: End,
}

impl<S: Stream<Item = Result<T>> + Unpin + ?Sized, T: Item> Stream for Told<S> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut *self.stream).poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(item))) => {
                let (what, text) = (&self.what, item.text());
                self.end.say(format_args!("< {what}: {text}"));
            }
            Poll::Ready(Some(Err(error))) => self.end.failed(&self.what, error),
            Poll::Ready(None) => self.end.say(format_args!("< {}: end", self.what)),
            Poll::Pending => {}
        }
        polled
    }
}

/// What streams tell.
trait Item {
    fn text(&self) -> String;
}

impl Item for WatchBatch {
    fn text(&self) -> String {
        let events = self.events.iter().map(|event| {
            let sign = match event {
                Event::Put { .. } => '+',
                Event::Delete { .. } => '-',
            };
            format!("{sign}{}@{}", event.key(), event.revision())
        });
        let events: Vec<_> = events.collect();
        format!("{} at {}", events.join(" "), self.header.revision)
    }
}

impl Item for Beat {
    fn text(&self) -> String {
        format!("{} lives {:?}", self.lease, self.ttl)
    }
}

impl WatchStream for Told<dyn WatchStream> {
    fn request_progress(&mut self) {
        self.stream.request_progress();
    }

    fn distrust(&mut self) {
        self.stream.distrust();
    }
}

impl BeatStream for Told<dyn BeatStream> {
    fn send(&mut self, lease: LeaseId) -> Result<()> {
        self.end.say(format_args!("> {}: {lease}", self.what));
        self.stream.send(lease)
    }

    fn distrust(&mut self) {
        self.stream.distrust();
    }
}

//! A backend under test, and short words for what the cases do with it.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use futures_util::StreamExt as _;

use crate::{
    Delete, ErrorKind, Event, Header, Key, KeyRange, KeyValue, LeaseId, Op, OpResult, Put, Range,
    RangeResult, Result, Revision, Txn, TxnResult, WatchRequest,
    backend::{Backend, Beat, BeatStream, WatchStream},
};

/// How long a case waits for what must come.
const SOON: Duration = Duration::from_secs(15);

/// A backend under test, and a prefix that no other case uses.
pub struct Subject {
    backend: Arc<dyn Backend>,
    prefix: String,
    /// Kept until the case is over.
    kept: Vec<Box<dyn Any>>,
}

impl Subject {
    /// Keeps something until the case is over, as the server that the backend talks to, or the turn to
    /// use it alone.
    #[must_use]
    pub fn keeping(mut self, what: impl Any) -> Self {
        self.kept.push(Box::new(what));
        self
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// A key, or any other name, of this case alone.
    pub(super) fn key(&self, name: &str) -> Key {
        format!("{}{name}", self.prefix).into()
    }

    /// A name of this case alone.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// All keys of this case.
    pub(super) fn all(&self) -> KeyRange {
        KeyRange::prefix(self.prefix.as_str())
    }

    /// From one key up to another.
    pub(super) fn between(&self, first: &str, end: &str) -> KeyRange {
        KeyRange::between(self.key(first), self.key(end))
    }

    pub(super) async fn txn(&self, txn: Txn) -> TxnResult {
        self.backend.txn(txn).await.unwrap()
    }

    /// Does one operation, unconditionally.
    pub(super) async fn apply(&self, op: impl Into<Op>) -> (OpResult, Header) {
        let mut done = self.txn(Txn::new().then(op)).await;
        assert!(done.succeeded, "no condition failed");
        assert_eq!(done.results.len(), 1);
        (done.results.remove(0), done.header)
    }

    /// Attempts one operation.
    pub(super) async fn attempt(&self, op: impl Into<Op>) -> Result<TxnResult> {
        self.backend.txn(Txn::new().then(op)).await
    }

    pub(super) async fn put(&self, name: &str, value: &str) -> Revision {
        let put = Put::new(self.key(name), value);
        self.apply(put).await.1.revision
    }

    pub(super) async fn put_with_lease(&self, name: &str, lease: LeaseId) -> Revision {
        let put = Put::new(self.key(name), "v").lease(lease);
        self.apply(put).await.1.revision
    }

    pub(super) async fn delete(&self, name: &str) -> Revision {
        let delete = Delete::new(self.key(name));
        self.apply(delete).await.1.revision
    }

    pub(super) async fn read(&self, range: impl Into<Range>) -> RangeResult {
        self.backend.range(range.into()).await.unwrap()
    }

    pub(super) async fn get(&self, name: &str) -> Option<KeyValue> {
        let mut found = self.read(self.key(name)).await;
        assert!(found.kvs.len() <= 1, "one key was asked for: {found:?}");
        assert_eq!(found.count, found.kvs.len() as i64);
        found.kvs.pop()
    }

    /// The names of the keys that were found, without the prefix.
    pub(super) fn names<'a>(&self, kvs: impl IntoIterator<Item = &'a KeyValue>) -> Vec<String> {
        kvs.into_iter().map(|kv| self.short(&kv.key)).collect()
    }

    /// The name that a key was made of.
    pub(super) fn short(&self, key: &Key) -> String {
        let text = key.to_string();
        let name = text.strip_prefix(&self.prefix);
        name.unwrap_or_else(|| panic!("{text} is no key of this case"))
            .to_owned()
    }

    /// Grants a lease with an id that nobody has.
    pub(super) async fn lease(&self, seconds: u64) -> LeaseId {
        let id = free_lease();
        let ttl = Duration::from_secs(seconds);
        let granted = self.backend.grant(id, ttl).await.unwrap();
        assert_eq!(granted.id, id);
        assert!(granted.ttl >= ttl, "a lease lasts as long as asked for");
        id
    }

    pub(super) async fn watch(&self, request: impl Into<WatchRequest>) -> Watched {
        let watching = self.backend.watch(request.into()).await.unwrap();
        Watched {
            created: watching.created,
            stream: watching.stream,
        }
    }

    /// The error of a watch that must not come about, or must end at once.
    pub(super) async fn refused_watch(&self, request: WatchRequest) -> crate::Error {
        match self.backend.watch(request).await {
            Ok(mut watching) => {
                let item = soon(watching.stream.next()).await;
                let error = item.expect("an error, not an end").expect_err("no batch");
                assert!(soon(watching.stream.next()).await.is_none(), "it ended");
                error
            }
            Err(error) => error,
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("backend", &self.backend)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl From<Arc<dyn Backend>> for Subject {
    fn from(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            prefix: format!("conformance-{:016x}/", fastrand::u64(..)),
            kept: Vec::new(),
        }
    }
}

impl<B: Backend> From<B> for Subject {
    fn from(backend: B) -> Self {
        Self::from(Arc::new(backend) as Arc<dyn Backend>)
    }
}

/// An open watch.
pub(super) struct Watched {
    pub(super) created: Header,
    pub(super) stream: Box<dyn WatchStream>,
}

impl Watched {
    /// The next events, those of one batch.
    pub(super) async fn batch(&mut self) -> Vec<Event> {
        loop {
            let batch = soon(self.stream.next()).await;
            let batch = batch.expect("the watch goes on").unwrap();
            if let Some(last) = batch.events.last() {
                let (last, store) = (last.revision(), batch.header.revision);
                assert!(last <= store, "a batch of {store} tells of {last}");
                return batch.events;
            }
        }
    }

    /// The next events, of as many batches as it takes.
    pub(super) async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.batch().await);
        }
        assert_eq!(events.len(), count, "more than was done: {events:?}");
        events
    }
}

/// Waits for what must come.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(SOON, future).await;
    outcome.unwrap_or_else(|_| panic!("nothing came within {SOON:?}"))
}

/// An id that no lease has.
pub(super) fn free_lease() -> LeaseId {
    LeaseId(fastrand::i64(1..))
}

/// The answer to one beat.
pub(super) async fn beat(beats: &mut dyn BeatStream, lease: LeaseId) -> Beat {
    beats.send(lease).unwrap();
    let beat = soon(beats.next()).await;
    let beat = beat.expect("the stream goes on").unwrap();
    assert_eq!(beat.lease, lease, "the answer is for the lease");
    beat
}

/// Checks a refusal: its kind, etcd's text, and that nothing was done.
#[track_caller]
pub(super) fn assert_refused<T: fmt::Debug>(answer: Result<T>, kind: ErrorKind, text: &str) {
    let error = answer.expect_err("a refusal");
    assert_eq!((error.kind(), &*error.to_string()), (kind, text));
    assert!(!error.is_indefinite() && !error.is_retryable());
}

/// The events in short: `+` and the name for a put, `-` for a deletion.
pub(super) fn brief(subject: &Subject, events: &[Event]) -> Vec<String> {
    let brief = |event: &Event| {
        let sign = match event {
            Event::Put { .. } => '+',
            Event::Delete { .. } => '-',
        };
        format!("{sign}{}", subject.short(event.key()))
    };
    events.iter().map(brief).collect()
}

//! One stream to one member, which carries any number of watches: the side of those who watch.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use futures_core::Stream;
use quorate_engine::{WatchBatch, WatchRequest};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    auth::Token,
    buffer::Buffer,
    call::{Attempt, Caller},
    classify::Failure,
    demux::Demux,
    pool::Connection,
};
use crate::{
    Result,
    backend::{WatchStream, Watching},
};

/// A stream, as seen by those who watch on it.
pub(super) struct Mux {
    pub(super) connection: Connection,
    pub(super) token: Token,
    inbox: Mutex<Inbox>,
    /// Tells the task that the inbox has changed.
    pub(super) wake: Notify,
}

/// What the stream's task is asked for.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) creates: Vec<Create>,
    pub(super) cancels: Vec<i64>,
    pub(super) progress: bool,
    pub(super) distrusted: Option<Failure>,
    /// The task takes nothing more.
    pub(super) closed: bool,
}

/// A watch to open.
pub(super) struct Create {
    pub(super) request: WatchRequest,
    pub(super) reply: oneshot::Sender<Result<Watching, Failure>>,
}

impl Mux {
    /// Opens a stream. It ends with its last watch, its connection or the backend.
    pub(super) fn open(attempt: &Attempt, caller: &Caller) -> Arc<Self> {
        let mux = Arc::new(Self {
            connection: attempt.connection.clone(),
            token: attempt.token.clone(),
            inbox: Mutex::default(),
            wake: Notify::new(),
        });
        caller
            .tasks
            .spawn(Demux::run(Arc::clone(&mux), attempt.clone(), caller));
        mux
    }

    /// Whether a new watch is better opened here than on another stream.
    pub(super) fn is_open(&self) -> bool {
        !self.connection.given_up.is_cancelled() && !self.inbox().closed
    }

    /// Opens a watch. A stream that does not answer is given up, with all that watch on it.
    pub(super) async fn create(
        &self,
        request: WatchRequest,
        deadline: Instant,
    ) -> Result<Watching, Failure> {
        let begun = Instant::now();
        let (reply, answer) = oneshot::channel();
        {
            let mut inbox = self.inbox();
            if inbox.closed {
                return Err(Failure::unreachable("the watch stream has ended"));
            }
            inbox.creates.push(Create { request, reply });
        }
        self.wake.notify_one();
        match timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(Failure::closed())),
            Err(_) => {
                let failure = Failure::unanswered(begun.elapsed());
                self.distrust(failure.clone());
                Err(failure)
            }
        }
    }

    fn distrust(&self, failure: Failure) {
        self.inbox().distrusted = Some(failure);
        self.wake.notify_one();
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox
            .lock()
            .expect("nothing panics while the lock is held")
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("url", &self.connection.url)
            .finish_non_exhaustive()
    }
}

/// One watch, as its consumer has it. Dropping it cancels the watch.
pub(super) struct Watcher {
    pub(super) id: i64,
    pub(super) buffer: Arc<Buffer>,
    pub(super) mux: Arc<Mux>,
}

impl Stream for Watcher {
    type Item = Result<WatchBatch>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.buffer.poll(context)
    }
}

impl WatchStream for Watcher {
    fn request_progress(&mut self) {
        self.mux.inbox().progress = true;
        self.mux.wake.notify_one();
    }

    fn distrust(&mut self) {
        self.mux
            .distrust(Failure::unreachable("the watch stream went silent"));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inbox = self.mux.inbox();
        if !inbox.closed {
            inbox.cancels.push(self.id);
            drop(inbox);
            self.mux.wake.notify_one();
        }
    }
}

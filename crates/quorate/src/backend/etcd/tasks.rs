//! Tasks that end with the backend, and work that many wait for.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::classify::Failure;
use crate::runtime::{Runtime as _, TokioRuntime};

/// Spawns tasks, and ends all of them when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    runtime: TokioRuntime,
    closed: CancellationToken,
}

impl Tasks {
    /// Runs `task` until it ends or the backend does. It must be called within a tokio runtime.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.runtime.spawn(Box::pin(async move {
            tokio::select! {
                biased;
                () = closed.cancelled() => (),
                () = task => (),
            }
        }));
    }

    /// Joins the work that is under way in `slot`, or begins it there. It goes on whoever of those who
    /// wait for it goes away; it should empty the slot when it is done.
    pub(super) fn join<T, F>(
        &self,
        slot: &mut Option<Flight<T>>,
        work: impl FnOnce() -> F,
    ) -> Flight<T>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        // What ended and is still here could not empty the slot: it ended with its runtime.
        let under_way = slot.take_if(|flight| flight.peek().is_none());
        let flight = under_way.unwrap_or_else(|| self.begin(work()));
        slot.insert(flight).clone()
    }

    fn begin<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Flight<T> {
        let (report, outcome) = oneshot::channel();
        self.spawn(async move {
            // Nobody may be waiting any more; what was achieved is kept elsewhere.
            let _ = report.send(work.await);
        });
        let abandoned = |_| Err(Failure::unreachable("the runtime that connected has ended"));
        outcome
            .map(move |told| told.unwrap_or_else(abandoned))
            .boxed()
            .shared()
    }
}

/// Runs a task that ends by itself: it may outlive the backend. To be called within a tokio runtime.
pub(super) fn outlive(task: impl Future<Output = ()> + Send + 'static) {
    TokioRuntime::new().spawn(Box::pin(task));
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// The outcome of work that is done once.
pub(super) type Flight<T> = Shared<BoxFuture<'static, Result<T, Failure>>>;

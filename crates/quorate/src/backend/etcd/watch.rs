//! Opens watches, all of them on one stream as long as that serves.

use std::sync::{Arc, Mutex, MutexGuard};

use quorate_engine::{Range, WatchRequest};
use tokio::time::Instant;

use super::{
    call::{Attempt, Caller, Kind},
    classify::{Failure, Remedy},
    convert::range_to_wire,
    mux::Mux,
};
use crate::{ErrorKind, Result, backend::Watching};

/// The stream that new watches are opened on. Former streams live as long as their watches.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Option<Arc<Mux>>>);

impl Watches {
    /// Opens a watch on the present stream, or on a new one wherever a member answers.
    pub(super) async fn open(&self, caller: &Caller, request: WatchRequest) -> Result<Watching> {
        let deadline = caller.deadline();
        if let Some(mux) = self.present() {
            let soon = deadline.min(Instant::now() + caller.attempt_timeout);
            match self.create(caller, &mux, &request, soon).await {
                Ok(watching) => return Ok(watching),
                Err(failure) if failure.remedy == Remedy::None => {
                    return Err(failure.into_error(false));
                }
                Err(_) => (),
            }
        }
        let attempt = |attempt: Attempt| {
            let request = &request;
            async move {
                let mux = self.present_or_open(caller, &attempt);
                self.create(caller, &mux, request, attempt.deadline).await
            }
        };
        caller.attempts(Kind::Read, deadline, attempt).await
    }

    async fn create(
        &self,
        caller: &Caller,
        mux: &Arc<Mux>,
        request: &WatchRequest,
        deadline: Instant,
    ) -> Result<Watching, Failure> {
        let created = mux.create(request.clone(), deadline).await;
        let Err(mut failure) = created else {
            caller.pool.succeeded(&mux.connection);
            return created;
        };
        let denied = failure.kind == ErrorKind::PermissionDenied && caller.auth.has_user();
        if denied && is_stale(caller, mux, request).await {
            failure.remedy = Remedy::Token;
        }
        if failure.remedy == Remedy::Token {
            // The token of a stream is that of its beginning: a new one takes a new stream.
            caller.auth.reject(&mux.token);
            self.retire(mux);
        }
        Err(failure)
    }

    fn present(&self) -> Option<Arc<Mux>> {
        self.state().as_ref().filter(|mux| mux.is_open()).cloned()
    }

    fn present_or_open(&self, caller: &Caller, attempt: &Attempt) -> Arc<Mux> {
        let mut present = self.state();
        if let Some(mux) = present.as_ref().filter(|mux| mux.is_open()) {
            return Arc::clone(mux);
        }
        let mux = Mux::open(attempt, caller);
        *present = Some(Arc::clone(&mux));
        mux
    }

    fn retire(&self, mux: &Arc<Mux>) {
        self.state().take_if(|present| Arc::ptr_eq(present, mux));
    }

    fn state(&self) -> MutexGuard<'_, Option<Arc<Mux>>> {
        self.0
            .lock()
            .expect("nothing panics while the lock is held")
    }
}

/// Whether a watch was denied for its stream's token rather than for its user: etcd 3.4 says the same
/// of both. A read tells, since it renews a token that is refused.
async fn is_stale(caller: &Caller, mux: &Mux, request: &WatchRequest) -> bool {
    if !caller.auth.is_present(&mux.token) {
        return true;
    }
    let probe = range_to_wire(Range::new(request.keys.clone()).count_only().serializable());
    let send = |attempt: Attempt| {
        let request = attempt.request_to_any(probe.clone());
        async move { attempt.kv().range(request).await }
    };
    // What is read does not matter, and is likely denied as well.
    let _ = caller.unary(Kind::Read, send).await;
    !caller.auth.is_present(&mux.token)
}

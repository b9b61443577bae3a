//! Makes the sessions of a client, and keeps the one that its recipes share.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, future::Shared};
use tokio::sync::oneshot;

use crate::{
    Error, ErrorKind, LeaseId, Moment, Result, Runtime, Session,
    backend::Backend,
    link::{Settings, bounded, bounded_by, lock},
    pulse::{Departure, Pulse},
    retry::Backoff,
    session::closed,
};

/// The sessions of one client.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Maker>);

struct Maker {
    backend: Arc<dyn Backend>,
    runtime: Arc<dyn Runtime>,
    settings: Settings,
    pulse: Arc<Pulse>,
    generations: AtomicU64,
    shared: Mutex<Option<SharedSession>>,
}

/// The shared session, possibly still being made.
type SharedSession = Shared<BoxFuture<'static, Result<Session>>>;

impl Sessions {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
    ) -> Self {
        let pulse = Pulse::new(
            Arc::clone(&backend),
            Arc::clone(&runtime),
            settings.call_timeout,
        );
        Self(Arc::new(Maker {
            backend,
            runtime,
            settings,
            pulse,
            generations: AtomicU64::new(0),
            shared: Mutex::new(None),
        }))
    }

    pub(crate) async fn shared(&self) -> Result<Session> {
        let Maker {
            runtime, settings, ..
        } = &*self.0;
        let give_up = runtime.now() + settings.call_timeout;
        let mut is_first = true;
        loop {
            let making = {
                let mut shared = lock(&self.0.shared);
                if let Some(Some(Ok(session))) = shared.as_ref().map(Shared::peek)
                    && session.is_lost()
                {
                    *shared = None;
                }
                shared
                    .get_or_insert_with(|| self.spawn_grant(self.0.settings.session_ttl).shared())
                    .clone()
            };
            let made = if is_first {
                making.clone().await
            } else {
                let (timeout, what) = (settings.call_timeout, "making of a session");
                let making = making.clone();
                bounded_by(&**runtime, give_up, timeout, what, false, making).await
            };
            is_first = false;
            match made {
                // Somebody closed it, or it was made too late for us.
                Ok(session) if session.is_lost() => {}
                Ok(session) => return Ok(session),
                Err(error) => {
                    self.forget_failed(&making);
                    return Err(error);
                }
            }
        }
    }

    /// Lets the next call make the shared session anew if this attempt failed, unless somebody does
    /// already. What only came too late for one caller is there for the others.
    fn forget_failed(&self, making: &SharedSession) {
        let mut shared = lock(&self.0.shared);
        if matches!(making.peek(), Some(Err(_)))
            && shared
                .as_ref()
                .is_some_and(|present| present.ptr_eq(making))
        {
            *shared = None;
        }
    }

    pub(crate) async fn create(&self, ttl: Duration) -> Result<Session> {
        self.spawn_grant(ttl).await
    }

    /// Closes the shared session and ends the task that keeps sessions alive once all are gone.
    pub(crate) async fn close(&self) -> Result<()> {
        let shared = lock(&self.0.shared).take();
        match shared.as_ref().and_then(Shared::peek) {
            Some(Ok(session)) => session.close().await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Grants a lease in a task of its own: if the caller goes away, the session that nobody wants is
    /// dropped, and so revoked.
    fn spawn_grant(&self, ttl: Duration) -> BoxFuture<'static, Result<Session>> {
        let maker = Arc::clone(&self.0);
        Box::pin(async move {
            let (reply, session) = oneshot::channel();
            let runtime = Arc::clone(&maker.runtime);
            runtime.spawn(Box::pin(async move {
                let _ = reply.send(maker.grant(ttl).await);
            }));
            session.await.unwrap_or_else(|_| Err(closed()))
        })
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Maker {
    /// Grants a lease with an id of our own choice, so that a grant without an answer can be asked for
    /// again, and revoked.
    async fn grant(&self, ttl: Duration) -> Result<Session> {
        let started = self.runtime.now();
        let give_up = started + self.settings.call_timeout;
        // An attempt with next to no time left would only hide why the others failed.
        let last_attempt = give_up - self.settings.call_timeout / 4;
        let mut backoff = Backoff::new(&self.runtime);
        let mut id = self.random_id();
        let mut first_sent = None;
        loop {
            let sent = self.runtime.now();
            let left = give_up.since(sent);
            let grant = self.backend.grant(id, ttl);
            match bounded(&*self.runtime, left, "grant of a lease", true, grant).await {
                Ok(granted) => return self.session(granted.id, sent, granted.ttl),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match first_sent {
                    // Ours, of an earlier attempt: it counts from the first, and for no longer than
                    // was asked for.
                    Some(first) => return self.session(id, first, ttl),
                    None => id = self.random_id(),
                },
                Err(error) => {
                    if error.is_indefinite() {
                        first_sent.get_or_insert(sent);
                    }
                    if !error.is_retryable() || self.runtime.now() >= last_attempt {
                        if first_sent.is_some() {
                            self.pulse.depart(Departure::new(id, ttl, None));
                            self.pulse.start();
                        }
                        return Err(error);
                    }
                    let wake = self.runtime.now() + backoff.next_pause();
                    self.runtime.sleep_until(wake.min(last_attempt)).await;
                }
            }
        }
    }

    fn session(&self, id: LeaseId, sent: Moment, ttl: Duration) -> Result<Session> {
        let session = Session::granted(
            id,
            self.generations.fetch_add(1, Ordering::Relaxed),
            sent,
            ttl,
            &self.settings,
            &self.pulse,
        );
        self.pulse.arrive(&session);
        if session.deadline() <= sent {
            let message = format!("drift and margin leave nothing of a time to live of {ttl:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if session.is_lost() {
            let message = "a lease was granted, but too late to rely on it";
            return Err(Error::new(ErrorKind::Timeout, message));
        }
        Ok(session)
    }

    /// A positive number; zero would let the server choose.
    fn random_id(&self) -> LeaseId {
        LeaseId(((self.runtime.random() >> 1) as i64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, backend::Memory};

    #[tokio::test(start_paused = true)]
    async fn a_session_that_came_too_late_for_one_caller_is_kept_for_the_others() {
        let client = Client::with_backend(Arc::new(Memory::new()));
        let sessions = &client.link().core.sessions;
        let session = sessions.shared().await.expect("a session");
        let making = lock(&sessions.0.shared).clone().expect("it was made");
        sessions.forget_failed(&making);
        let again = sessions.shared().await.expect("a session");
        assert_eq!(again.lease(), session.lease());
    }
}

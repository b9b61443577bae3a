//! Sessions: a lease kept alive, and the moment until which its owner may rely on it.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, future, future::select};
use tokio::sync::{oneshot, watch};

use crate::{
    Client, Error, ErrorKind, LeaseId, Loss, Moment, Result, Runtime,
    link::{Link, Settings, bounded, lock},
    mutant::{Mutant, planted},
    pulse::{Departure, Pulse},
};

/// A lease kept alive, under which keys are held.
///
/// Every [`Client`] has one that its recipes share; [`Client::session`] gives it,
/// [`Client::session_with_ttl`] makes another. Clones are the same session.
///
/// The session is over for its owner *before* the server can end the lease: its deadline is counted
/// from the moment when the last confirmed beat was **sent**, less what two clocks may drift apart, on
/// a clock that goes on while the machine is suspended. Lost is final, whatever answer comes late.
///
/// When the last clone is dropped (guards hold one) the lease is revoked, best effort; if that fails
/// the lease ends by itself.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

/// What a [`Session`] can still promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Its beats are answered.
    Live,
    /// A beat is overdue. What is held is held until the deadline; an answer before it brings the
    /// session back to life.
    Suspended,
    /// It is over for good.
    Lost(Loss),
}

struct Inner {
    id: LeaseId,
    generation: u64,
    settings: Settings,
    timing: Mutex<Timing>,
    /// The state, whenever it changes. The deadline changes with each beat, and is not told here, so
    /// that thousands of guards are not woken by each.
    state: watch::Sender<SessionState>,
    /// The deadline, for those few who follow it.
    deadlines: watch::Sender<Moment>,
    /// Numbers the keys made under this lease.
    keys: AtomicU64,
    /// Whether the lease was left to its time. Shared with the task that sends the beats, which may
    /// look when the session is gone.
    left: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    /// The granted time to live.
    ttl: Duration,
    /// When the last beat that was confirmed had been sent.
    confirmed: Moment,
    deadline: Moment,
    state: SessionState,
}

impl Client {
    /// The session that the recipes of this client share, made when it is first asked for, and anew
    /// after it was lost.
    ///
    /// # Errors
    ///
    /// As [`Client::session_with_ttl`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped: the session is made all the same, for the next call.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Put, SessionState};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let session = client.session().await?;
    /// client.put_with(Put::new("workers/7", "idle").lease(session.lease())).await?;
    /// assert_eq!(session.state(), SessionState::Live);
    /// assert!(session.remaining() > session.ttl() / 2);
    /// session.close().await?; // and with it the key
    /// assert_eq!(client.get("workers/7").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn session(&self) -> Result<Session> {
        self.link().session(None).await
    }

    /// A session of its own with this time to live, rounded up to whole seconds; the server may
    /// raise it.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) or [`Unavailable`](ErrorKind::Unavailable) if no member granted
    /// the lease within the call's deadline; what was granted without an answer is revoked.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is revoked.
    pub async fn session_with_ttl(&self, ttl: Duration) -> Result<Session> {
        self.link().session(Some(ttl)).await
    }
}

impl Link {
    /// The shared session, or with a time to live one of its own.
    pub(crate) async fn session(&self, ttl: Option<Duration>) -> Result<Session> {
        match ttl {
            None => self.core.sessions.shared().await,
            Some(ttl) => self.core.sessions.create(ttl).await,
        }
    }
}

impl Session {
    /// The lease. Keys put under it live as long as the session.
    pub fn lease(&self) -> LeaseId {
        self.0.id
    }

    /// How many sessions this client made before this one: a session that replaces a lost one has a
    /// higher number.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The time to live that the server granted.
    pub fn ttl(&self) -> Duration {
        lock(&self.0.timing).ttl
    }

    /// The state at this moment, by the clock rather than by what was last noticed.
    pub fn state(&self) -> SessionState {
        self.0.look(self.runtime().now())
    }

    /// Whether the session is lost.
    pub fn is_lost(&self) -> bool {
        matches!(self.state(), SessionState::Lost(_))
    }

    /// How long what is held under this session may still be relied on if no further beat is
    /// confirmed; zero once it is lost.
    pub fn remaining(&self) -> Duration {
        let now = self.runtime().now();
        match self.0.look(now) {
            SessionState::Lost(_) => Duration::ZERO,
            SessionState::Live | SessionState::Suspended => {
                lock(&self.0.timing).deadline.since(now)
            }
        }
    }

    /// Completes when the session is lost, at its deadline at the latest (after a suspend of the
    /// machine: within a second), and tells why.
    ///
    /// The future does not keep the session alive, and can be kept and cloned.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        let weak = self.downgrade();
        let runtime = Arc::clone(self.runtime());
        let mut changes = self.0.state.subscribe();
        let lost: BoxFuture<'static, Loss> = Box::pin(async move {
            while let Some(deadline) = weak.deadline() {
                let alarm = runtime.sleep_until(deadline);
                // Timers may be late: each poll reads the clock for itself.
                let over = future::poll_fn(|_| match weak.loss() {
                    Some(_) => Poll::Ready(()),
                    None => Poll::Pending,
                });
                tokio::select! {
                    biased;
                    () = over => break,
                    _ = changes.changed() => {}
                    () = alarm => {}
                }
            }
            weak.loss().unwrap_or(Loss::Closed)
        });
        lost.shared()
    }

    /// Waits until the state is another than `known`, and returns it.
    pub async fn state_changed(&self, known: SessionState) -> SessionState {
        let mut changes = self.0.state.subscribe();
        loop {
            let state = self.state();
            if state != known {
                return state;
            }
            // The sender lives as long as the session, so this cannot fail while we hold it.
            let _ = changes.changed().await;
        }
    }

    /// The moment at which the session is over unless a beat is confirmed before.
    pub fn deadline(&self) -> Moment {
        lock(&self.0.timing).deadline
    }

    /// Waits until the deadline is another than `known` or the session is lost, and returns the
    /// deadline; for those who must pass it on.
    pub async fn deadline_changed(&self, known: Moment) -> Moment {
        let mut deadlines = self.0.deadlines.subscribe();
        let changed = deadlines.wait_for(|deadline| *deadline != known);
        select(Box::pin(changed), Box::pin(self.0.lost_by_signal())).await;
        self.deadline()
    }

    /// Ends the session: what is held under it is lost at once, and the lease revoked.
    ///
    /// # Errors
    ///
    /// If no member confirmed the revocation within the call's deadline; the lease then ends by
    /// itself, and attempts go on until it must have.
    ///
    /// # Cancel safety
    ///
    /// The session is lost as soon as the future is polled, and the lease is revoked even if the
    /// future is dropped.
    pub async fn close(&self) -> Result<()> {
        self.0.lose(Loss::Closed);
        let (reply, confirmed) = oneshot::channel();
        self.0
            .pulse
            .depart(Departure::new(self.0.id, self.ttl(), Some(reply)));
        // If the session was lost before, the task may have ended.
        self.0.pulse.start();
        let confirmed = async { confirmed.await.unwrap_or_else(|_| Err(closed())) };
        let Settings { call_timeout, .. } = self.0.settings;
        bounded(
            &**self.runtime(),
            call_timeout,
            "close of a session",
            true,
            confirmed,
        )
        .await
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        self.0.pulse.runtime()
    }

    /// A session on a lease that was asked for at `sent` and granted with `ttl`.
    pub(crate) fn granted(
        id: LeaseId,
        generation: u64,
        sent: Moment,
        ttl: Duration,
        settings: &Settings,
        pulse: &Arc<Pulse>,
    ) -> Self {
        let deadline = deadline(settings, sent, ttl);
        let timing = Timing {
            ttl,
            confirmed: sent,
            deadline,
            state: SessionState::Live,
        };
        Self(Arc::new(Inner {
            id,
            generation,
            settings: settings.clone(),
            timing: Mutex::new(timing),
            state: watch::Sender::new(SessionState::Live),
            deadlines: watch::Sender::new(deadline),
            keys: AtomicU64::new(0),
            left: Arc::default(),
            pulse: Arc::clone(pulse),
        }))
    }

    /// A number that no other key under this lease has had.
    pub(crate) fn next_key(&self) -> u64 {
        self.0.keys.fetch_add(1, Ordering::Relaxed)
    }

    /// Completes when somebody notices the loss; without a timer of its own, unlike
    /// [`Session::lost`]. The task that sends the beats notices at the deadline.
    pub(crate) async fn lost_by_signal(&self) -> Loss {
        self.0.lost_by_signal().await
    }

    /// Leaves the lease to its time, and what is held under it: from now on it is neither beaten nor
    /// revoked. An error if the session is lost already.
    pub(crate) fn leave(&self) -> Result<(), Loss> {
        let now = self.runtime().now();
        if let SessionState::Lost(loss) = self.0.look(now) {
            return Err(loss);
        }
        // Whoever latches a loss does so under this lock and looks at the mark thereafter: the loss
        // is either seen here, or its finder sees the mark and revokes nothing.
        let timing = lock(&self.0.timing);
        if let SessionState::Lost(loss) = timing.state {
            return Err(loss);
        }
        self.0.left.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the lease was left to its time, for who may look when the session is gone.
    pub(crate) fn left(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.left)
    }

    /// Takes note that the server knows the lease no more.
    pub(crate) fn revoked(&self) {
        self.0.lose(Loss::Revoked);
    }

    /// When the last confirmed beat was sent.
    pub(crate) fn confirmed(&self) -> Moment {
        lock(&self.0.timing).confirmed
    }

    /// The state at `now`; what the clock decides is latched.
    pub(crate) fn look(&self, now: Moment) -> SessionState {
        self.0.look(now)
    }

    /// Has a task run that was begun under this session and has nobody to run it. It needs no runtime here.
    pub(crate) fn adopt(&self, task: BoxFuture<'static, ()>) {
        self.0.pulse.adopt(task);
    }

    /// Takes note of a confirmed beat. `sent` is when it was sent.
    pub(crate) fn confirm(&self, sent: Moment, ttl: Duration) {
        self.0.confirm(sent, ttl);
    }

    /// Takes note that the server ended the lease.
    pub(crate) fn expired(&self) {
        self.0.lose(Loss::Expired);
    }

    /// Takes note that nobody sends beats any more.
    pub(crate) fn abandon(&self) {
        self.0.lose(Loss::Closed);
    }

    /// Takes note that a beat is overdue.
    pub(crate) fn suspend(&self) {
        self.0.suspend();
    }

    pub(crate) fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }
}

/// A session as the task sees it that keeps it alive: it must not keep it from being dropped.
#[derive(Debug)]
pub(crate) struct WeakSession(std::sync::Weak<Inner>);

impl WeakSession {
    pub(crate) fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session)
    }

    fn deadline(&self) -> Option<Moment> {
        self.upgrade().map(|session| session.deadline())
    }

    /// How the session was lost, by the clock at this moment; one that was dropped was closed.
    fn loss(&self) -> Option<Loss> {
        match self.upgrade().map(|session| session.state()) {
            None => Some(Loss::Closed),
            Some(SessionState::Lost(loss)) => Some(loss),
            Some(SessionState::Live | SessionState::Suspended) => None,
        }
    }

    /// As [`Session::lost_by_signal`].
    pub(crate) async fn lost_by_signal(&self) -> Loss {
        let Some(mut changes) = self.upgrade().map(|session| session.0.state.subscribe()) else {
            return Loss::Closed;
        };
        let lost = changes.wait_for(|state| matches!(state, SessionState::Lost(_)));
        match lost.await.as_deref() {
            Ok(SessionState::Lost(loss)) => *loss,
            _ => Loss::Closed,
        }
    }
}

impl Inner {
    fn look(&self, now: Moment) -> SessionState {
        let mut timing = lock(&self.timing);
        if now >= timing.deadline && !matches!(timing.state, SessionState::Lost(_)) {
            // A beat that was overdue was being tried: nobody answered. Otherwise this process did
            // not run when it should have beaten.
            let loss = match timing.state {
                SessionState::Suspended => Loss::Unreachable,
                SessionState::Live | SessionState::Lost(_) => Loss::Expired,
            };
            self.change(&mut timing, SessionState::Lost(loss));
        }
        timing.state
    }

    fn confirm(&self, sent: Moment, ttl: Duration) {
        let now = self.pulse.runtime().now();
        // Decide by the clock first: an answer that comes after the deadline is too late, even if
        // nobody has looked since.
        if matches!(self.look(now), SessionState::Lost(_)) {
            return;
        }
        let mut timing = lock(&self.timing);
        if matches!(timing.state, SessionState::Lost(_)) {
            return;
        }
        let sent = if planted(Mutant::DeadlineFromReceipt) {
            now
        } else {
            sent
        };
        timing.ttl = ttl;
        timing.confirmed = timing.confirmed.max(sent);
        timing.deadline = timing.deadline.max(deadline(&self.settings, sent, ttl));
        let deadline = timing.deadline;
        self.change(&mut timing, SessionState::Live);
        drop(timing);
        self.deadlines.send_replace(deadline);
    }

    fn suspend(&self) {
        let mut timing = lock(&self.timing);
        if timing.state == SessionState::Live {
            self.change(&mut timing, SessionState::Suspended);
        }
    }

    fn lose(&self, loss: Loss) {
        let mut timing = lock(&self.timing);
        if !matches!(timing.state, SessionState::Lost(_)) {
            self.change(&mut timing, SessionState::Lost(loss));
        }
    }

    /// Sets the state and tells it, in the order of the changes since the timing is locked.
    fn change(&self, timing: &mut Timing, state: SessionState) {
        if timing.state == state {
            return;
        }
        timing.state = state;
        tracing::debug!(lease = %self.id, ?state, "session");
        self.state.send_replace(state);
    }

    async fn lost_by_signal(&self) -> Loss {
        let mut changes = self.state.subscribe();
        loop {
            if let SessionState::Lost(loss) = *changes.borrow_and_update() {
                return loss;
            }
            // The sender is in `self`: this cannot fail.
            let _ = changes.changed().await;
        }
    }
}

/// The lease is revoked by the task that kept it alive: this needs no runtime, and cannot fail.
impl Drop for Inner {
    fn drop(&mut self) {
        let Timing { ttl, state, .. } = *lock(&self.timing);
        if matches!(state, SessionState::Lost(_)) {
            self.pulse.look_at(self.id);
        } else if !self.left.load(Ordering::SeqCst) {
            self.pulse.depart(Departure::new(self.id, ttl, None));
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("lease", &format_args!("{}", self.id))
            .field("generation", &self.generation)
            .field("state", &lock(&self.timing).state)
            .finish_non_exhaustive()
    }
}

/// Until when a lease may be relied on whose beat, sent at `sent`, was confirmed.
///
/// Both clocks may be off by the drift, ours slow and the server's fast, hence twice.
pub(crate) fn deadline(settings: &Settings, sent: Moment, ttl: Duration) -> Moment {
    if planted(Mutant::NoDriftMargin) {
        return sent + ttl;
    }
    let margin = settings
        .margin
        .unwrap_or_else(|| (ttl / 50).max(Duration::from_millis(50)));
    let reliable = ttl
        .mul_f64((1.0 - 2.0 * settings.drift).max(0.0))
        .saturating_sub(margin);
    sent + reliable
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed")
}

//! The task that keeps all sessions of a client alive on one stream, and ends them: the only place
//! that sends beats.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, future, stream::FuturesUnordered};
use tokio::sync::{Notify, oneshot};

use crate::{
    ErrorKind, LeaseId, Moment, Result, Runtime,
    backend::{Backend, Beat, BeatStream},
    link::{bounded, lock},
    retry::{Backoff, fraction},
    session::{Session, SessionState, WeakSession},
};

/// Where sessions report to the task: those that come, those that go.
pub(crate) struct Pulse {
    backend: Arc<dyn Backend>,
    runtime: Arc<dyn Runtime>,
    call_timeout: Duration,
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// For the task, which shares the ownership.
    this: std::sync::Weak<Self>,
}

/// What the task has yet to take over.
#[derive(Default)]
struct Waiting {
    arrivals: Vec<Arrival>,
    departures: Vec<Departure>,
    /// Leases of sessions that were dropped when they were lost.
    lost: Vec<LeaseId>,
    /// Tasks that nobody runs any more.
    orphans: Vec<BoxFuture<'static, ()>>,
    /// Whether the task runs. It ends when it has nothing to do.
    running: bool,
}

/// A lease to be kept alive.
struct Arrival {
    lease: LeaseId,
    ttl: Duration,
    session: WeakSession,
    left: Arc<AtomicBool>,
}

/// A lease to be revoked.
pub(crate) struct Departure {
    lease: LeaseId,
    /// After this time the lease is over without our help.
    ttl: Duration,
    /// Who wants to know.
    reply: Option<oneshot::Sender<Result<()>>>,
}

impl Departure {
    pub(crate) fn new(
        lease: LeaseId,
        ttl: Duration,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) -> Self {
        Self { lease, ttl, reply }
    }
}

impl Pulse {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        runtime: Arc<dyn Runtime>,
        call_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            backend,
            runtime,
            call_timeout,
            waiting: Mutex::default(),
            wake: Notify::new(),
            this: std::sync::Weak::clone(this),
        })
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Keeps a session alive from now on. Runs where tasks can be spawned.
    pub(crate) fn arrive(&self, session: &Session) {
        let arrival = Arrival {
            lease: session.lease(),
            ttl: session.ttl(),
            session: session.downgrade(),
            left: session.left(),
        };
        lock(&self.waiting).arrivals.push(arrival);
        self.start();
    }

    /// Revokes a lease as soon as the task runs. It runs as long as there is a session that is not
    /// lost; otherwise [`Pulse::start`] it.
    pub(crate) fn depart(&self, departure: Departure) {
        lock(&self.waiting).departures.push(departure);
        self.wake.notify_one();
    }

    /// Looks at a lease whose session was lost and is dropped, which may not be due for long.
    pub(crate) fn look_at(&self, lease: LeaseId) {
        let mut waiting = lock(&self.waiting);
        if waiting.running {
            waiting.lost.push(lease);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Has a task run of somebody who went away. Without a session that is not lost there is nothing left
    /// for it to do.
    pub(crate) fn adopt(&self, orphan: BoxFuture<'static, ()>) {
        let mut waiting = lock(&self.waiting);
        if waiting.running {
            waiting.orphans.push(orphan);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Starts the task unless it runs.
    pub(crate) fn start(&self) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let runs = std::mem::replace(&mut lock(&self.waiting).running, true);
        if !runs {
            // Not under the lock: a runtime that is ending drops the task right here.
            self.runtime.spawn(Box::pin(Beater::new(this).run()));
        }
        self.wake.notify_one();
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

/// The task itself.
struct Beater {
    pulse: Arc<Pulse>,
    leases: BTreeMap<LeaseId, Heart>,
    /// When to look at which lease next.
    due: BTreeSet<(Moment, LeaseId)>,
    channel: Channel,
    backoff: Backoff,
    revocations: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Whether it ended for want of work, rather than being torn down.
    ended: bool,
}

/// One lease's beats.
struct Heart {
    session: WeakSession,
    /// Whether the lease was left to its time; looked at after the session, whatever that showed.
    left: Arc<AtomicBool>,
    ttl: Duration,
    /// When the beat on the present stream was sent that is not answered yet. While there is one no
    /// other is sent, so an answer is always that of the oldest beat.
    unanswered: Option<Moment>,
    /// When to beat next.
    next_beat: Moment,
    /// Its place in the order of what is due.
    due: Moment,
}

/// The stream that the beats go over.
enum Channel {
    /// There is none until then.
    Closed { until: Moment },
    /// It is being opened, in vain at the latest then.
    Opening {
        until: Moment,
        future: BoxFuture<'static, Result<Box<dyn BeatStream>>>,
    },
    /// Beats can be sent.
    Open(Box<dyn BeatStream>),
}

/// What the task woke up for.
enum Woken {
    Answer(Option<Result<Beat>>),
    Opened(Result<Box<dyn BeatStream>>),
    /// Somebody came or went, a revocation ended, or it is time.
    Look,
}

impl Beater {
    fn new(pulse: Arc<Pulse>) -> Self {
        let backoff = Backoff::new(&pulse.runtime);
        let channel = Channel::Closed {
            until: pulse.runtime.now(),
        };
        Self {
            pulse,
            leases: BTreeMap::new(),
            due: BTreeSet::new(),
            channel,
            backoff,
            revocations: FuturesUnordered::new(),
            ended: false,
        }
    }

    async fn run(mut self) {
        loop {
            self.take_over();
            self.attend();
            if self.is_idle() {
                self.ended = true;
                return;
            }
            match self.wait().await {
                Woken::Answer(Some(Ok(beat))) => self.answered(beat),
                Woken::Answer(broken) => {
                    tracing::debug!(?broken, "keepalive stream broke");
                    self.retry_later();
                }
                Woken::Opened(Ok(stream)) => {
                    self.channel = Channel::Open(stream);
                    self.look_at_all();
                }
                Woken::Opened(Err(error)) => {
                    tracing::debug!(%error, "keepalive stream not opened");
                    self.retry_later();
                }
                Woken::Look => {}
            }
        }
    }

    /// Takes over who came and who went since the last look.
    fn take_over(&mut self) {
        let (arrivals, departures, lost, orphans) = {
            let mut waiting = lock(&self.pulse.waiting);
            (
                std::mem::take(&mut waiting.arrivals),
                std::mem::take(&mut waiting.departures),
                std::mem::take(&mut waiting.lost),
                std::mem::take(&mut waiting.orphans),
            )
        };
        for orphan in orphans {
            self.pulse.runtime.spawn(orphan);
        }
        for arrival in arrivals {
            let Arrival {
                lease,
                ttl,
                session: weak,
                left,
            } = arrival;
            let Some(session) = weak.upgrade() else {
                // Dropped already. If we end before it says so itself, nobody hears it.
                let is_left = left.load(Ordering::SeqCst);
                if !is_left && departures.iter().all(|departure| departure.lease != lease) {
                    self.revoke(Departure::new(lease, ttl, None));
                }
                continue;
            };
            let next_beat = self.next_beat(&session, ttl);
            let heart = Heart {
                session: weak,
                left,
                ttl,
                unanswered: None,
                next_beat,
                due: next_beat,
            };
            // A backend may grant one lease twice; what is due without a heart is due for ever.
            self.forget(lease);
            self.due.insert((heart.due, lease));
            self.leases.insert(lease, heart);
        }
        for departure in departures {
            self.forget(departure.lease);
            self.revoke(departure);
        }
        let now = self.pulse.runtime.now();
        for lease in lost {
            // The stream is not silent, or that shows when the next answer is due.
            self.look_at(lease, now);
        }
    }

    /// Looks at every lease that is due, and sees to it that there is a stream.
    fn attend(&mut self) {
        let now = self.pulse.runtime.now();
        let mut silent = false;
        while let Some((at, lease)) = self.due.first().copied()
            && at <= now
        {
            silent |= self.look_at(lease, now);
        }
        if silent {
            if let Channel::Open(stream) = &mut self.channel {
                stream.distrust();
            }
            self.disconnect(now);
        }
        if let Channel::Opening { until, .. } = &self.channel
            && now >= *until
        {
            self.disconnect(now);
        }
        if let Channel::Closed { until } = &self.channel
            && now >= *until
            && !self.leases.is_empty()
        {
            let backend = Arc::clone(&self.pulse.backend);
            let future = Box::pin(async move { backend.keep_alive().await });
            self.channel = Channel::Opening {
                until: now + self.shortest_patience(),
                future,
            };
        }
    }

    fn look_at_all(&mut self) {
        let now = self.pulse.runtime.now();
        let leases: Vec<_> = self.leases.keys().copied().collect();
        for lease in leases {
            self.look_at(lease, now);
        }
    }

    /// Looks at one lease: is it lost, is an answer overdue, is a beat due? Returns whether the
    /// stream is silent.
    fn look_at(&mut self, lease: LeaseId, now: Moment) -> bool {
        let Some(heart) = self.leases.get_mut(&lease) else {
            return false;
        };
        let alive = heart.session.upgrade();
        let alive = alive.filter(|session| !matches!(session.look(now), SessionState::Lost(_)));
        if heart.left.load(Ordering::SeqCst) {
            self.forget(lease);
            return false;
        }
        let Some(session) = alive else {
            // The server may not know yet, and others wait for it. After a `close`, or a drop whose
            // departure is on the way, one revocation of two finds nothing.
            let ttl = heart.ttl;
            self.forget(lease);
            self.revoke(Departure::new(lease, ttl, None));
            return false;
        };
        let patience = patience(heart.ttl);
        let silent = heart.unanswered.is_some_and(|sent| now >= sent + patience);
        let overdue = heart.next_beat + patience;
        if now >= overdue {
            session.suspend();
        }
        let mut again = None;
        if now >= heart.next_beat
            && heart.unanswered.is_none()
            && let Channel::Open(stream) = &mut self.channel
        {
            match stream.send(lease) {
                Ok(()) => heart.unanswered = Some(now),
                Err(error) => {
                    // There were too many at once, or the stream is about to tell that it broke.
                    tracing::debug!(%error, "beat not sent");
                    again = Some(now + patience / 8);
                }
            }
        }
        let deadline = session.deadline();
        let answer_due = heart.unanswered.map(|sent| sent + patience);
        let at = [Some(heart.next_beat), Some(overdue), answer_due, again]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .fold(deadline, Moment::min);
        self.due.remove(&(heart.due, lease));
        heart.due = at;
        self.due.insert((at, lease));
        silent
    }

    /// Drops the stream. Beats that were not answered are sent again on the next one at once.
    fn disconnect(&mut self, until: Moment) {
        self.channel = Channel::Closed { until };
        for heart in self.leases.values_mut() {
            if let Some(sent) = heart.unanswered.take() {
                heart.next_beat = heart.next_beat.min(sent);
            }
        }
    }

    /// Drops the stream and opens the next one after a pause, which is short enough to leave the
    /// most impatient lease several attempts.
    fn retry_later(&mut self) {
        let pause = self.backoff.next_pause().min(self.shortest_patience() / 2);
        let until = self.pulse.runtime.now() + pause;
        self.disconnect(until);
    }

    fn answered(&mut self, beat: Beat) {
        let Some(heart) = self.leases.get_mut(&beat.lease) else {
            return;
        };
        let Some(sent) = heart.unanswered.take() else {
            return;
        };
        let Some(session) = heart.session.upgrade() else {
            return;
        };
        self.backoff.reset();
        if beat.ttl.is_zero() {
            session.expired();
            self.forget(beat.lease);
            return;
        }
        session.confirm(sent, beat.ttl);
        let next_beat = self.next_beat(&session, beat.ttl);
        if let Some(heart) = self.leases.get_mut(&beat.lease) {
            heart.ttl = beat.ttl;
            heart.next_beat = next_beat;
        }
        self.look_at(beat.lease, self.pulse.runtime.now());
    }

    /// The next beat is due a third of the time to live after the last confirmed one was sent, but
    /// half-way to the deadline at the latest; or up to a tenth of that sooner. Leases that are due at
    /// about the same time are due at the same time: their beats go together.
    fn next_beat(&self, session: &Session, ttl: Duration) -> Moment {
        let confirmed = session.confirmed();
        let pause = (ttl / 3).min(session.deadline().since(confirmed) / 2);
        let together = pause / 40;
        let sooner = fraction(pause / 10 - together, self.pulse.runtime.random());
        (confirmed + pause - sooner).rounded_down(together)
    }

    fn shortest_patience(&self) -> Duration {
        let shortest = self.leases.values().map(|heart| heart.ttl).min();
        patience(shortest.unwrap_or(self.pulse.call_timeout))
    }

    fn forget(&mut self, lease: LeaseId) {
        if let Some(heart) = self.leases.remove(&lease) {
            self.due.remove(&(heart.due, lease));
        }
    }

    /// Revokes a lease, and goes on trying until it must have ended by itself.
    fn revoke(&self, departure: Departure) {
        let Departure { lease, ttl, reply } = departure;
        let pulse = Arc::clone(&self.pulse);
        self.revocations.push(Box::pin(async move {
            let give_up = pulse.runtime.now() + ttl;
            let mut backoff = Backoff::new(&pulse.runtime);
            let result = loop {
                let revoke = pulse.backend.revoke(lease);
                let what = "revocation of a lease";
                match bounded(&*pulse.runtime, pulse.call_timeout, what, true, revoke).await {
                    Ok(_) => break Ok(()),
                    Err(error) if error.kind() == ErrorKind::NotFound => break Ok(()),
                    Err(error) if !error.is_retryable() => break Err(error),
                    Err(error) if pulse.runtime.now() >= give_up => break Err(error),
                    Err(_) => backoff.pause().await,
                }
            };
            if let Some(reply) = reply {
                let _ = reply.send(result);
            }
        }));
    }

    /// Whether there is nothing left to do; if so the task counts as ended.
    fn is_idle(&self) -> bool {
        if !self.leases.is_empty() || !self.revocations.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.pulse.waiting);
        let idle = waiting.arrivals.is_empty()
            && waiting.departures.is_empty()
            && waiting.orphans.is_empty();
        if idle {
            waiting.running = false;
        }
        idle
    }

    async fn wait(&mut self) -> Woken {
        let runtime = &self.pulse.runtime;
        let opening_ends = match &self.channel {
            // Without a lease there is nothing to open a stream for.
            _ if self.leases.is_empty() => None,
            Channel::Closed { until } | Channel::Opening { until, .. } => Some(*until),
            Channel::Open(_) => None,
        };
        let look_at = self.due.first().map(|(at, _)| *at);
        let alarm = match look_at.into_iter().chain(opening_ends).min() {
            Some(at) => runtime.sleep_until(at),
            None => future::pending().boxed(),
        };
        let channel = async {
            match &mut self.channel {
                Channel::Closed { .. } => future::pending().await,
                Channel::Opening { future, .. } => Woken::Opened(future.await),
                Channel::Open(stream) => Woken::Answer(stream.next().await),
            }
        };
        tokio::select! {
            biased;
            woken = channel => woken,
            Some(()) = self.revocations.next(), if !self.revocations.is_empty() => Woken::Look,
            () = self.pulse.wake.notified() => Woken::Look,
            () = alarm => Woken::Look,
        }
    }
}

/// If the task is torn down with its runtime, or by a panic, nobody keeps the sessions alive; later
/// sessions have another.
impl Drop for Beater {
    fn drop(&mut self) {
        if !self.ended {
            let mut waiting = lock(&self.pulse.waiting);
            waiting.running = false;
            let orphans = std::mem::take(&mut waiting.orphans);
            let arrivals = std::mem::take(&mut waiting.arrivals);
            drop(waiting);
            drop(orphans);
            for arrival in arrivals {
                if let Some(session) = arrival.session.upgrade() {
                    session.abandon();
                }
            }
        }
        for heart in self.leases.values() {
            if let Some(session) = heart.session.upgrade() {
                session.abandon();
            }
        }
    }
}

/// How long a beat may stay unanswered before another stream is tried.
fn patience(ttl: Duration) -> Duration {
    ttl / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, backend::recorder::Recorder};

    #[tokio::test(start_paused = true)]
    async fn thousands_of_leases_that_are_due_at_once_live_on() {
        const SESSIONS: usize = 40_000;

        let client = Client::connect("mem:").await.expect("a store in memory");
        let ttl = Duration::from_secs(10);
        let sessions = (0..SESSIONS).map(|_| client.session_with_ttl(ttl));
        let sessions = future::try_join_all(sessions).await.expect("leases");
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < 2 * ttl {
            tokio::time::sleep(ttl / 100).await;
            let live = |session: &Session| session.state() == SessionState::Live;
            assert!(sessions.iter().all(live), "after {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beats_of_many_leases_go_together() {
        const SESSIONS: usize = 200;

        let recorder = Recorder::new();
        let client = Client::with_backend(Arc::new(Arc::clone(&recorder)));
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let session = client.session_with_ttl(Duration::from_secs(10)).await;
            sessions.push(session.expect("a lease"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (mut beats, mut times) = (0, 0);
        while beats < 2 * SESSIONS {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let sent = recorder.lock().beats.len();
            times += usize::from(sent > beats);
            beats = sent;
        }
        assert!(
            times < beats / 4,
            "{beats} beats were sent at {times} times"
        );
        assert!(sessions.iter().all(|session| !session.is_lost()));
    }
}

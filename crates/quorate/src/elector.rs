//! The managed elector: campaigns again after every loss, and runs a task only while it leads.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Compare, Election, Error, ErrorKind, Key, Leader, Leadership, Result, Revision, Session,
    SessionState,
    claim::Holding,
    link::Link,
    mutant::{Mutant, planted},
    retry::Backoff,
};

/// How long a task may take to stop before that is reported.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an elector knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderState {
    /// We lead.
    Leading {
        /// The fencing token of this leadership.
        token: Revision,
        /// A beat of our session is overdue: we lead on until its deadline, and lose the leadership
        /// then unless a server answers.
        at_risk: bool,
    },
    /// Somebody else leads.
    Following {
        /// Who.
        leader: Leader,
    },
    /// Nobody is known to lead.
    NoLeader,
}

/// A candidate that never gives up: it campaigns again after every loss, until it is dropped or stopped.
///
/// Its state can be read at any time and awaited. Dropping it resigns, best effort; [`Elector::stop`]
/// does so and waits.
#[derive(Debug)]
#[must_use = "an elector resigns when it is dropped"]
pub struct Elector {
    states: LeaderStates,
    stop: CancellationToken,
    stopped: CancellationToken,
    /// The term that we lead, or led last.
    term: watch::Receiver<Option<Term>>,
    _resign: DropGuard,
}

/// What an [`Elector`] knows, for who follows it apart from its owner. See [`Elector::states`].
#[derive(Clone, Debug)]
pub struct LeaderStates {
    state: watch::Receiver<LeaderState>,
    /// Why the elector gave up, if it did.
    failure: Arc<OnceLock<Error>>,
}

/// One term of leadership, as the task sees it that runs during it.
#[derive(Clone)]
pub struct Term {
    token: Revision,
    fence: Compare,
    key: Key,
    link: Link,
    stop: CancellationToken,
    holding: Holding,
}

impl Election {
    /// Campaigns in the background, again after every loss.
    ///
    /// Call it where tokio runs.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// let client = quorate::Client::connect("mem:").await?;
    /// let mut elector = client.election("cleaner").elector();
    /// let token = elector.leading().await?;
    /// let leader = client.election("cleaner").leader().await?;
    /// assert_eq!(leader.map(|leader| leader.token), Some(token));
    /// elector.stop().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn elector(&self) -> Elector {
        let (sender, state) = watch::channel(LeaderState::NoLeader);
        let stop = CancellationToken::new();
        let stopped = CancellationToken::new();
        let failure = Arc::new(OnceLock::new());
        let (terms, term) = watch::channel(None);
        let task = {
            let election = self.clone();
            let stop = stop.clone();
            let ended = stopped.clone().drop_guard();
            let failure = Arc::clone(&failure);
            async move {
                let idle = |term: Term| {
                    terms.send_replace(Some(term.clone()));
                    async move { term.stopping().await }
                };
                // It has no task that could end, so this ends only when it is told to stop.
                if let Err(error) = campaign_for_ever(&election, &sender, &stop, idle).await {
                    tracing::error!(%error, "the elector gave up");
                    let _ = failure.set(error);
                }
                drop(ended);
            }
        };
        self.link().runtime().spawn(Box::pin(task));
        Elector {
            states: LeaderStates { state, failure },
            _resign: stop.clone().drop_guard(),
            stop,
            stopped,
            term,
        }
    }

    /// Runs `task` whenever we lead, until it ends by itself: then resigns and returns what it
    /// returned.
    ///
    /// When leading ends while the task runs, the task is asked to stop ([`Term::stopping`]) and
    /// awaited before we campaign again: never do two run at once here. One that does not stop is
    /// reported in the log after 10 s, and nothing is started beside it; meanwhile only the
    /// [fence](Term::fence) protects what it writes.
    ///
    /// # Errors
    ///
    /// What cannot be overcome by campaigning again, such as a missing permission.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the task, and then we resign, best effort.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// let client = quorate::Client::connect("mem:").await?;
    /// let token = client.election("cleaner").run(|term| async move { term.token() }).await?;
    /// assert!(token > quorate::Revision::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<F, T>(&self, task: impl FnMut(Term) -> F) -> Result<T>
    where
        F: Future<Output = T>,
    {
        let (state, _) = watch::channel(LeaderState::NoLeader);
        let never = CancellationToken::new();
        match campaign_for_ever(self, &state, &never, task).await? {
            Some(output) => Ok(output),
            None => Err(Error::new(ErrorKind::Closed, "the elector was stopped")),
        }
    }
}

impl Elector {
    /// What is known now. `Leading` may be out of date by as much as this process is: check the token
    /// or the fence where it matters.
    pub fn state(&self) -> LeaderState {
        self.states.state.borrow().clone()
    }

    /// Whether we lead.
    pub fn is_leading(&self) -> bool {
        matches!(*self.states.state.borrow(), LeaderState::Leading { .. })
    }

    /// The term in which we lead, with its fence; `None` while we do not.
    pub fn term(&self) -> Option<Term> {
        let term = self.term.borrow().clone();
        term.filter(Term::is_held)
    }

    /// Waits until the state is another than when this was last called (at first: than
    /// [`LeaderState::NoLeader`]), and returns it. States in between may be skipped.
    ///
    /// # Errors
    ///
    /// Why the elector gave up, once it has: what cannot be overcome by campaigning again.
    ///
    /// # Cancel safety
    ///
    /// No state is lost if the future is dropped.
    pub async fn changed(&mut self) -> Result<LeaderState> {
        self.states.changed().await
    }

    /// Follows what it knows, apart from this: its next state is that which differs from what was told
    /// here last. It does not keep the elector.
    pub fn states(&self) -> LeaderStates {
        self.states.clone()
    }

    /// Waits until we lead, and returns the token.
    ///
    /// # Errors
    ///
    /// Why the elector gave up, once it has: what cannot be overcome by campaigning again.
    pub async fn leading(&mut self) -> Result<Revision> {
        let leading = self
            .states
            .state
            .wait_for(|state| matches!(state, LeaderState::Leading { .. }));
        let token = match leading.await.as_deref() {
            Ok(LeaderState::Leading { token, .. }) => Some(*token),
            _ => None,
        };
        token.ok_or_else(|| self.states.ended())
    }

    /// Stops campaigning, resigns if we lead, and waits until that is done.
    ///
    /// # Errors
    ///
    /// Why the elector had given up before, if it had.
    ///
    /// # Cancel safety
    ///
    /// It stops even if the future is dropped.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.stopped.cancelled().await;
        match self.states.failure.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl LeaderStates {
    /// Waits until the state is another than was last told here, and tells it. States in between may be
    /// skipped.
    ///
    /// # Errors
    ///
    /// Why the elector gave up, once it has; [`Closed`](ErrorKind::Closed) once it was stopped or
    /// dropped.
    ///
    /// # Cancel safety
    ///
    /// No state is lost if the future is dropped.
    pub async fn changed(&mut self) -> Result<LeaderState> {
        match self.state.changed().await {
            Ok(()) => Ok(self.state.borrow_and_update().clone()),
            Err(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> Error {
        let stopped = || Error::new(ErrorKind::Closed, "the elector has stopped");
        self.failure.get().cloned().unwrap_or_else(stopped)
    }
}

impl Term {
    /// The fencing token of this leadership.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// A condition for transactions that holds only during this term.
    pub fn fence(&self) -> Compare {
        self.fence.clone()
    }

    /// The key that stands for this leadership.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether we still lead, by the clock at this moment.
    pub fn is_held(&self) -> bool {
        !self.stop.is_cancelled() && self.holding.is_held()
    }

    /// Completes when the task should stop, since the term is over: whatever ended it.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// A value in etcd that only this term's leader reads and writes.
    pub fn fenced(&self, key: impl Into<Key>) -> crate::Fenced {
        crate::Fenced::new(&self.link, self.fence.clone(), key.into())
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("key", &self.key)
            .field("token", &self.token)
            .finish()
    }
}

/// Campaigns, runs the task while leading, and begins again, until the task ends by itself (then what
/// it returned) or `stop` is cancelled (then `None`).
async fn campaign_for_ever<F, T>(
    election: &Election,
    state: &watch::Sender<LeaderState>,
    stop: &CancellationToken,
    mut task: impl FnMut(Term) -> F,
) -> Result<Option<T>>
where
    F: Future<Output = T>,
{
    let mut backoff = Backoff::new(election.link().runtime());
    loop {
        let leadership = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            leadership = campaign(election, state) => leadership,
        };
        match leadership {
            Ok(leadership) => {
                backoff.reset();
                if let Some(ended) = lead(election, leadership, state, stop, &mut task).await {
                    return Ok(ended);
                }
            }
            Err(error) => {
                state.send_if_modified(|state| tell(state, LeaderState::NoLeader));
                if election.is_doomed() || !is_passing(&error) {
                    return Err(error);
                }
                tracing::debug!(%error, "campaign failed");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            () = backoff.pause() => {}
        }
    }
}

/// Whether the next campaign, with a session and a place of its own, may succeed.
fn is_passing(error: &Error) -> bool {
    let new_begin = matches!(error.kind(), ErrorKind::ClusterChanged | ErrorKind::Lost);
    new_begin || error.is_retryable()
}

/// Campaigns, and tells who leads meanwhile.
async fn campaign(election: &Election, state: &watch::Sender<LeaderState>) -> Result<Leadership> {
    let session = election.open_session().await?;
    let key = election.new_key(&session);
    let follow = async {
        let mut leaders = election.observe();
        while let Some(Ok(leader)) = leaders.next().await {
            let seen = match leader {
                // Whether we lead ourselves is for the campaign to say.
                Some(leader) if leader.key == key => continue,
                Some(leader) => LeaderState::Following { leader },
                None => LeaderState::NoLeader,
            };
            state.send_if_modified(|state| tell(state, seen));
        }
        future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        leadership = election.campaign_as(&session, key.clone()) => leadership,
        () = follow => Err(Error::new(ErrorKind::Internal, "an endless wait ended")),
    }
}

/// Runs the task during one term. `None` if the term ended before the task did: campaign again.
async fn lead<F, T>(
    election: &Election,
    leadership: Leadership,
    state: &watch::Sender<LeaderState>,
    stop: &CancellationToken,
    task: &mut impl FnMut(Term) -> F,
) -> Option<Option<T>>
where
    F: Future<Output = T>,
{
    let token = leadership.token();
    let ending = CancellationToken::new();
    // However this ends, who has a clone of the term is told, before anybody else can lead.
    let _ending = ending.clone().drop_guard();
    let term = Term {
        token,
        fence: leadership.fence(),
        key: leadership.key().clone(),
        link: election.link().clone(),
        stop: ending.clone(),
        holding: leadership.holding(),
    };
    // Before the state is told, so that who is told that we lead finds the term.
    let work = task(term);
    state.send_if_modified(|state| {
        tell(
            state,
            LeaderState::Leading {
                token,
                at_risk: false,
            },
        )
    });
    tokio::pin!(work);
    let lost = leadership.lost();
    let session = leadership.session().clone();
    let watch_risk = tell_risk(&session, token, state);
    tokio::pin!(watch_risk);
    tokio::select! {
        biased;
        loss = lost.clone() => tracing::info!(%token, %loss, "leadership lost"),
        () = stop.cancelled() => {}
        output = &mut work => {
            ending.cancel();
            state.send_if_modified(|state| tell(state, LeaderState::NoLeader));
            // If nobody confirms it the lease ends it.
            let _ = leadership.resign().await;
            return Some(Some(output));
        }
        () = &mut watch_risk => {}
    }
    state.send_if_modified(|state| tell(state, LeaderState::NoLeader));
    ending.cancel();
    if !planted(Mutant::TaskNotJoined) {
        join(election, token, work).await;
    }
    if stop.is_cancelled() && lost.now_or_never().is_none() {
        let _ = leadership.resign().await;
    }
    stop.is_cancelled().then_some(None)
}

/// Tells when the session is suspended, and when it recovers. Never ends.
async fn tell_risk(session: &Session, token: Revision, state: &watch::Sender<LeaderState>) {
    let mut known = SessionState::Live;
    loop {
        known = session.state_changed(known).await;
        match known {
            SessionState::Lost(_) => return future::pending().await,
            SessionState::Live | SessionState::Suspended => {
                let at_risk = known == SessionState::Suspended;
                state
                    .send_if_modified(|state| tell(state, LeaderState::Leading { token, at_risk }));
            }
        }
    }
}

/// Waits for the task to stop, however long it takes, and reports one that takes too long.
async fn join<T>(election: &Election, token: Revision, work: impl Future<Output = T>) {
    let runtime = election.link().runtime();
    tokio::pin!(work);
    loop {
        let alarm = runtime.sleep_until(runtime.now() + PATIENCE);
        tokio::select! {
            biased;
            _ = &mut work => return,
            () = alarm => {
                tracing::error!(%token, "the leader's task goes on though it was asked to stop");
            }
        }
    }
}

fn tell(state: &mut LeaderState, next: LeaderState) -> bool {
    let changed = *state != next;
    *state = next;
    changed
}

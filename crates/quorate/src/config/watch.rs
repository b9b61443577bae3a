//! A configuration that is followed: the task that does it, and the handle that owns the task.

use std::{fmt, future, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Config, WhenDown};
use crate::{
    Changes, Error, ErrorKind, Event, Key, Moment, Present, Result, Revision, Snapshot,
    WatchRequest,
    observation::{News, Observation, Start},
};

/// A configuration that is followed: the last good value, at any time and without waiting.
///
/// A task follows the store, and ends when this is dropped; the watch on the store is closed then.
#[must_use = "a configuration is followed until its watch is dropped"]
pub struct ConfigWatch<T> {
    state: watch::Receiver<State<T>>,
    /// What was told of the state's counters.
    accepted: u64,
    refused: u64,
}

/// What [`ConfigWatch::next`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update<T> {
    /// Another value was taken over.
    Changed(Arc<T>),
    /// What is there now was refused: the last good value stays.
    Rejected(Arc<Rejected>),
}

/// A document that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its key. Below a prefix, the key that is to blame if it is one, else the prefix.
    pub key: Key,
    /// The revision of its write; below a prefix, the revision at which the keys stood like this.
    pub revision: Revision,
    /// What is wrong with it.
    pub reason: Rejection,
}

/// Why a document was refused. As text it tells what has to be corrected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// There is none: the key was deleted, or the last key below the prefix.
    Deleted,
    /// The validator refuses the value.
    Invalid(String),
    /// It cannot be decoded, or not as this type.
    Undecodable(String),
}

/// What the task tells the handle.
struct State<T> {
    value: Arc<T>,
    revision: Revision,
    /// How many values were taken over since the first.
    accepted: u64,
    /// What is there now, if that is no value.
    rejected: Option<Arc<Rejected>>,
    /// How often it was told that something is no value.
    refused: u64,
    stale: bool,
    /// Why the task ended.
    end: Option<Error>,
}

impl<T> ConfigWatch<T> {
    /// The last good value.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.state.borrow().value)
    }

    /// The revision of the last good value: that of its write; below a prefix, one at which the keys
    /// stood like this. [Zero](Revision::ZERO) for the default value.
    pub fn revision(&self) -> Revision {
        self.state.borrow().revision
    }

    /// Whether the store may know better: there is no connection as far as is known, or the value is
    /// the cache's and nothing was heard of the store yet. A connection that is silent is noticed after
    /// a few seconds.
    pub fn is_stale(&self) -> bool {
        self.state.borrow().stale
    }

    /// What is there now, if it was refused.
    pub fn rejected(&self) -> Option<Arc<Rejected>> {
        self.state.borrow().rejected.clone()
    }

    /// Waits until there is a value, or a refused document, that was not told yet. States in between
    /// may be skipped; the last one never is.
    ///
    /// # Errors
    ///
    /// What the store refuses for good, such as a missing permission. It is final, and the value is
    /// stale from then on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Update<T>> {
        loop {
            {
                let state = self.state.borrow_and_update();
                if self.accepted != state.accepted {
                    self.accepted = state.accepted;
                    return Ok(Update::Changed(Arc::clone(&state.value)));
                }
                if self.refused != state.refused {
                    self.refused = state.refused;
                    if let Some(rejected) = &state.rejected {
                        return Ok(Update::Rejected(Arc::clone(rejected)));
                    }
                }
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
            }
            if self.state.changed().await.is_err() {
                let message = "the configuration is followed no more: its task has ended";
                return Err(Error::new(ErrorKind::Closed, message));
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for ConfigWatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("ConfigWatch")
            .field("current", &state.value)
            .field("revision", &state.revision)
            .field("rejected", &state.rejected)
            .field("stale", &state.stale)
            .finish_non_exhaustive()
    }
}

impl Rejected {
    pub(super) fn into_error(self) -> Error {
        let kind = match self.reason {
            Rejection::Deleted => ErrorKind::NotFound,
            Rejection::Invalid(_) | Rejection::Undecodable(_) => ErrorKind::InvalidData,
        };
        let message = match self.reason {
            Rejection::Deleted => format!("there is no configuration {}", self.key),
            _ => self.to_string(),
        };
        Error::new(kind, message)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            revision,
            reason,
        } = self;
        write!(f, "{key} at revision {revision}: {reason}")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted => f.write_str("it was deleted"),
            Self::Invalid(why) => write!(f, "the value is not valid: {why}"),
            Self::Undecodable(why) => f.write_str(why),
        }
    }
}

/// Gets the first value as the configuration says, and leaves a task that follows it.
pub(super) async fn begin<T, L>(config: Config<T, L>) -> Result<ConfigWatch<T>>
where
    T: DeserializeOwned + Send + Sync + 'static,
    L: 'static,
{
    let cached = config.when_down == WhenDown::UseCache;
    if cached && config.cache.is_none() {
        let message = "there is no cache to use while the store is down: name its file";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let runtime = Arc::clone(config.client.link().runtime());
    let timeout = config.client.link().settings().call_timeout;
    let mut follower = Follower::new(config);
    let heard = if follower.config.when_down == WhenDown::Wait {
        follower.hear().await
    } else {
        let deadline = runtime.sleep_until(runtime.now() + timeout);
        match select(std::pin::pin!(follower.hear()), deadline).await {
            Either::Left((heard, _)) => heard,
            Either::Right(((), _)) => {
                let message = format!("no answer in {timeout:?}");
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    };
    let first = match heard {
        Ok(()) => follower.first().await,
        Err(error) if cached && error.is_retryable() => follower.cached(error).await,
        Err(error) => Err(error),
    };
    let state = first.map_err(|error| error.context(format!("config {}", follower.config.name)))?;
    let (sender, state) = watch::channel(state);
    runtime.spawn(Box::pin(follower.run(sender)));
    Ok(ConfigWatch {
        state,
        accepted: 0,
        refused: 0,
    })
}

/// What follows a configuration.
struct Follower<T, L> {
    config: Config<T, L>,
    observation: Observation,
    /// What the store has.
    present: Present,
    /// The revision at which it was told so.
    at: Revision,
    connected: bool,
    /// What was judged last.
    judged: Present,
    /// Whether that was ever what the store had.
    caught_up: bool,
}

/// Changes that are not taken over yet.
#[derive(Clone, Copy)]
struct Pending {
    first: Moment,
    last: Moment,
}

impl Pending {
    /// How many quiet times a change waits at most.
    const LONGEST: u32 = 5;

    fn due(self, quiet: Duration) -> Moment {
        let latest = self.first + quiet.saturating_mul(Self::LONGEST);
        latest.min(self.last + quiet)
    }
}

impl<T, L> Follower<T, L>
where
    T: DeserializeOwned + Send + Sync + 'static,
    L: 'static,
{
    fn new(config: Config<T, L>) -> Self {
        let request = WatchRequest::new(config.keys());
        Self {
            observation: Observation::new(config.client.link(), request, Start::Snapshot),
            config,
            present: Present::new(),
            at: Revision::ZERO,
            connected: true,
            judged: Present::new(),
            caught_up: false,
        }
    }

    /// Waits until the store has told its state.
    async fn hear(&mut self) -> Result<()> {
        loop {
            match self.observation.next().await? {
                News::Reset(snapshot) => {
                    self.reset(snapshot);
                    return Ok(());
                }
                News::Changes(changes) => self.apply(&changes),
                News::Current(current) => self.connected = current,
            }
        }
    }

    /// The first state, from what the store has told.
    async fn first(&mut self) -> Result<State<T>> {
        self.caught_up = true;
        self.judged.clone_from(&self.present);
        let revision = self.config.revision(&self.present, self.at);
        match self.config.decode(&self.present) {
            Ok(value) => {
                self.keep(revision).await;
                Ok(State::new(value, revision))
            }
            Err(refusal) => {
                let rejected = refusal.reject(&self.config, revision);
                let refused = rejected.reason != Rejection::Deleted;
                if refused && self.config.when_down == WhenDown::UseCache {
                    let (_, mut state) = self.load(rejected.clone().into_error()).await?;
                    state.reject(rejected);
                    return Ok(state);
                }
                self.config
                    .default_or(rejected)
                    .map(|value| State::new(value, Revision::ZERO))
            }
        }
    }

    /// The first state, from the cache because the store did not answer.
    async fn cached(&mut self, error: Error) -> Result<State<T>> {
        let (cached, mut state) = self.load(error).await?;
        self.judged = cached;
        state.stale = true;
        Ok(state)
    }

    /// Reads the cache, because of an error.
    async fn load(&mut self, error: Error) -> Result<(Present, State<T>)> {
        let Some(cache) = self.config.cache.clone() else {
            return Err(error);
        };
        let path = cache.path().to_owned();
        let unusable = |why: &dyn fmt::Display| {
            let message = format!("{error}; and the cache {} {why}", path.display());
            Error::new(ErrorKind::InvalidData, message)
        };
        match cache.load(&self.config).await {
            Ok(Some((revision, documents))) => match self.config.decode(&documents) {
                Ok(value) => {
                    tracing::warn!(%error, key = %self.config.name, "beginning with the cache");
                    Ok((documents, State::new(value, revision)))
                }
                Err(refusal) => {
                    let rejected = refusal.reject(&self.config, revision);
                    Err(unusable(&format_args!("is refused: {rejected}")))
                }
            },
            Ok(None) => Err(error.context(format!("there is no cache {} yet", path.display()))),
            Err(why) => Err(unusable(&why)),
        }
    }

    /// Follows until the handle is dropped.
    async fn run(mut self, state: watch::Sender<State<T>>) {
        let runtime = Arc::clone(self.config.client.link().runtime());
        let mut pending: Option<Pending> = None;
        loop {
            let due = pending.map(|pending| pending.due(self.config.debounce));
            let quiet = async {
                match due {
                    Some(due) => runtime.sleep_until(due).await,
                    None => future::pending().await,
                }
            };
            let news = tokio::select! {
                biased;
                () = state.closed() => return,
                () = quiet => {
                    pending = None;
                    self.judge(&state).await;
                    continue;
                }
                news = self.observation.next() => news,
            };
            match news {
                Ok(News::Current(current)) => {
                    self.connected = current;
                    self.tell_stale(&state);
                    continue;
                }
                Ok(News::Reset(snapshot)) => self.reset(snapshot),
                Ok(News::Changes(changes)) => {
                    self.apply(&changes);
                    while let Some(changes) = self.observation.take_ready() {
                        self.apply(&changes);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, key = %self.config.name, "configuration not followed");
                    if pending.is_some() {
                        self.judge(&state).await;
                    }
                    state.send_modify(|state| {
                        state.stale = true;
                        state.end = Some(error);
                    });
                    return;
                }
            }
            let now = runtime.now();
            let first = pending.map_or(now, |pending| pending.first);
            pending = Some(Pending { first, last: now });
        }
    }

    fn reset(&mut self, snapshot: Snapshot) {
        self.at = snapshot.revision;
        self.present = snapshot
            .kvs
            .into_iter()
            .map(|kv| (kv.key.clone(), kv))
            .collect();
    }

    fn apply(&mut self, changes: &Changes) {
        self.at = changes.revision();
        for event in changes {
            match event {
                Event::Put { kv, .. } => self.present.insert(kv.key.clone(), kv.clone()),
                Event::Delete { key, .. } => self.present.remove(key),
            };
        }
    }

    /// Takes over what is there, if it is another than before and good.
    async fn judge(&mut self, state: &watch::Sender<State<T>>) {
        self.caught_up = true;
        self.tell_stale(state);
        if is_same(&self.judged, &self.present) {
            return;
        }
        self.judged.clone_from(&self.present);
        let revision = self.config.revision(&self.present, self.at);
        match self.config.decode(&self.present) {
            Ok(value) => {
                tracing::info!(key = %self.config.name, %revision, "configuration taken over");
                state.send_modify(|state| state.accept(value, revision));
                self.keep(revision).await;
            }
            Err(refusal) => {
                let rejected = refusal.reject(&self.config, revision);
                tracing::warn!(%rejected, "configuration refused: the last good one stays");
                state.send_modify(|state| state.reject(rejected));
            }
        }
    }

    /// Writes the cache.
    async fn keep(&mut self, revision: Revision) {
        let Some(cache) = self.config.cache.clone() else {
            return;
        };
        let path = cache.path().to_owned();
        if let Err(error) = cache.store(&self.config, revision, &self.present).await {
            tracing::warn!(%error, path = %path.display(), "configuration not cached");
        }
    }

    fn tell_stale(&self, state: &watch::Sender<State<T>>) {
        let stale = !(self.connected && self.caught_up);
        state.send_if_modified(|state| std::mem::replace(&mut state.stale, stale) != stale);
    }
}

impl<T> State<T> {
    fn new(value: T, revision: Revision) -> Self {
        Self {
            value: Arc::new(value),
            revision,
            accepted: 0,
            rejected: None,
            refused: 0,
            stale: false,
            end: None,
        }
    }

    fn accept(&mut self, value: T, revision: Revision) {
        self.value = Arc::new(value);
        self.revision = revision;
        self.accepted += 1;
        self.rejected = None;
    }

    fn reject(&mut self, rejected: Rejected) {
        let is_default = self.revision == Revision::ZERO && rejected.reason == Rejection::Deleted;
        self.rejected = (!is_default).then(|| Arc::new(rejected));
        self.refused += 1;
    }
}

/// Whether nothing was written between two states.
fn is_same(before: &Present, now: &Present) -> bool {
    before.len() == now.len()
        && before.values().zip(now.values()).all(|(before, now)| {
            (&before.key, before.mod_revision, &before.value)
                == (&now.key, now.mod_revision, &now.value)
        })
}

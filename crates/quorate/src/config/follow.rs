//! The task that follows a configuration: what it begins with, when it takes a change over, and what it
//! does with one.

use std::{fmt, future, pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Config, ConfigWatch, Rejection, WhenDown, watch::State};
use crate::{
    Changes, Error, ErrorKind, Event, Moment, Present, Result, Revision, Snapshot, WatchRequest,
    observation::{News, Observation, Whole},
};

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
        match select(pin!(follower.hear()), deadline).await {
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
    let name = &follower.config.name;
    let mut state = first.map_err(|error| error.context(format!("config {name}")))?;
    state.stale = follower.is_stale();
    let (sender, state) = watch::channel(state);
    runtime.spawn(Box::pin(follower.run(sender)));
    Ok(ConfigWatch::new(state))
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
            observation: Observation::of_latest(config.client.link(), request, Whole),
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
        let (cached, state) = self.load(error).await?;
        self.judged = cached;
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
        if is_same(&self.judged, &self.present) {
            self.tell_stale(state);
            return;
        }
        self.judged.clone_from(&self.present);
        let revision = self.config.revision(&self.present, self.at);
        let (decoded, stale) = (self.config.decode(&self.present), self.is_stale());
        match decoded {
            Ok(value) => {
                tracing::info!(key = %self.config.name, %revision, "configuration taken over");
                state.send_modify(|state| {
                    state.accept(value, revision);
                    state.stale = stale;
                });
                self.keep(revision).await;
            }
            Err(refusal) => {
                let rejected = refusal.reject(&self.config, revision);
                tracing::warn!(%rejected, "configuration refused: the last good one stays");
                state.send_modify(|state| {
                    state.reject(rejected);
                    state.stale = stale;
                });
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

    fn is_stale(&self) -> bool {
        !(self.connected && self.caught_up)
    }

    fn tell_stale(&self, state: &watch::Sender<State<T>>) {
        let stale = self.is_stale();
        state.send_if_modified(|state| std::mem::replace(&mut state.stale, stale) != stale);
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

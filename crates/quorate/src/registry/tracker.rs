//! Trackers: the instances of a service as they come and go.

use std::{collections::VecDeque, fmt, sync::Arc};

use tokio::sync::watch;

use super::{Instance, Instances, Picker, Service, Strategy, layout::Place};
use crate::{
    Changes, Error, ErrorKind, KeyRange, Result, WatchRequest,
    link::Link,
    observation::{News, Observation},
};

/// How many ids of changed instances are remembered. Who has not looked since then compares all.
const REMEMBERED: usize = 8192;

/// What became of an instance, since its reader last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Joined(Arc<str>, Arc<Instance>),
    /// It is gone.
    Left(Arc<str>),
    /// It tells something else.
    Updated(Arc<str>, Arc<Instance>),
}

/// Follows the instances of a service. See [`Service::track`].
///
/// A task keeps it up to date whether or not anybody reads, so [`snapshot`](Tracker::snapshot) needs no
/// wait. While the store cannot be reached the instances last known stay, and
/// [`is_stale`](Tracker::is_stale) says so. It follows for ever: across disconnects, and where history
/// was compacted away meanwhile, or thousands of changes are to be made up for, it reads all anew, of
/// which a reader learns only what differs.
///
/// Clones share the task and each have a position of their own: they are told what has changed since
/// *their* last look. Who is slow is not told states that have passed, never ends on one of them, and
/// makes nothing queue: a small log says what has changed since, and who is further behind compares. The
/// task ends with the last clone.
#[derive(Clone)]
#[must_use = "a tracker ends when it is dropped"]
pub struct Tracker {
    state: watch::Receiver<State>,
    /// What this reader was told.
    told: Instances,
    /// The changes up to which `told` and `due` go.
    seen: u64,
    /// The ids of what may have changed, and is to be told.
    due: VecDeque<Arc<str>>,
    link: Link,
    name: Arc<str>,
}

/// What the task knows.
#[derive(Default)]
struct State {
    instances: Instances,
    /// The ids of the instances that changed last, the newest at the end.
    log: VecDeque<Arc<str>>,
    /// How many changes there were in all.
    count: u64,
    stale: bool,
    failure: Option<Error>,
}

impl Service {
    /// Tracks the instances from now on. When it returns the tracker knows them all, as of a revision
    /// that is not before the call; it waits for a store that cannot be reached.
    ///
    /// All trackers of a service in one client share one watch on the server.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a name that cannot be; what the store refuses
    /// for good.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Change, Instance};
    ///
    /// # let client = quorate::Client::connect("mem:").await?;
    /// let api = client.service("api");
    /// let mut tracker = api.track().await?;
    /// assert!(tracker.snapshot().is_empty());
    ///
    /// let registration = api.register("api-7", Instance::new("10.0.0.7:8080")).await?;
    /// let Change::Joined(id, instance) = tracker.next().await? else { unreachable!() };
    /// assert_eq!((&*id, &*instance.address), ("api-7", "10.0.0.7:8080"));
    ///
    /// registration.release().await?;
    /// assert_eq!(tracker.next().await?, Change::Left(id));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn track(&self) -> Result<Tracker> {
        let place = self.place()?;
        let link = self.client().link().clone();
        let request = WatchRequest::new(KeyRange::prefix(place.prefix()));
        let mut observation = Observation::of_latest(&link, request, place.clone());
        let mut stale = false;
        let instances = loop {
            match observation.next().await? {
                News::Reset(instances) => break instances,
                News::Current(current) => stale = !current,
                News::Changes(_) => {}
            }
        };
        let state = State {
            instances,
            stale,
            ..State::default()
        };
        let told = state.instances.clone();
        let (sender, state) = watch::channel(state);
        let task = follow(observation, place, sender);
        link.runtime().spawn(Box::pin(task));
        Ok(Tracker {
            state,
            told,
            seen: 0,
            due: VecDeque::new(),
            link,
            name: self.name().into(),
        })
    }
}

impl Tracker {
    /// The instances now. This is a look: [`next`](Tracker::next) tells what changes afterwards.
    pub fn snapshot(&mut self) -> Instances {
        let state = self.state.borrow();
        self.told = state.instances.clone();
        self.seen = state.count;
        self.due.clear();
        self.told.clone()
    }

    /// The instances now, without it being a look of this reader.
    pub fn peek(&self) -> Instances {
        self.state.borrow().instances.clone()
    }

    /// Whether the store cannot be reached, or has not told yet what was missed meanwhile, so that the
    /// instances may have changed unseen. A connection that is silent is noticed after a few seconds.
    pub fn is_stale(&self) -> bool {
        self.state.borrow().stale
    }

    /// Waits until the tracker is stale, or is not, other than `known`; returns which. To wait for this
    /// and for a [change](Tracker::next) at once, use a clone.
    ///
    /// # Errors
    ///
    /// As [`Tracker::next`].
    pub async fn stale_changed(&self, known: bool) -> Result<bool> {
        let mut state = self.state.clone();
        let changed = state.wait_for(|state| state.stale != known).await;
        changed.map(|state| state.stale).map_err(|_| self.ended())
    }

    /// Waits for the next change since this reader's last look, and tells it.
    ///
    /// What was told before and what is told now make up the present state of the instance, whatever
    /// became of it between. To follow all, begin with a [`snapshot`](Tracker::snapshot).
    ///
    /// # Errors
    ///
    /// What the store refuses for good, such as a permission that was taken away; then the tracker is
    /// stale for ever.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.take_change() {
                return Ok(change);
            }
            self.wait().await?;
        }
    }

    /// Waits until something may have changed since this reader's last look, and looks: returns the
    /// instances then. What changed and changed back shows no difference.
    ///
    /// # Errors
    ///
    /// As [`Tracker::next`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn changed(&mut self) -> Result<Instances> {
        while self.due.is_empty() && self.state.borrow().count == self.seen {
            self.wait().await?;
        }
        Ok(self.snapshot())
    }

    /// Picks instances to call, as the strategy says.
    pub fn picker(&self, strategy: Strategy) -> Picker {
        Picker::new(self.clone(), strategy)
    }

    /// The next change, if there is one.
    pub(crate) fn take_change(&mut self) -> Option<Change> {
        let latest = self.collect();
        while let Some(id) = self.due.pop_front() {
            let change = match (self.told.get(&id), latest.get(&id)) {
                (Some(before), Some(now)) if before == now => continue,
                (None, None) => continue,
                (None, Some(now)) => Change::Joined(id, Arc::clone(now)),
                (Some(_), Some(now)) => Change::Updated(id, Arc::clone(now)),
                (Some(_), None) => Change::Left(id),
            };
            self.told.tell(&change);
            return Some(change);
        }
        None
    }

    /// Notes what may have changed since, once all before is told. Returns the present state.
    fn collect(&mut self) -> Instances {
        let state = self.state.borrow();
        let latest = state.instances.clone();
        if self.due.is_empty() && self.seen != state.count {
            let new = usize::try_from(state.count - self.seen).unwrap_or(usize::MAX);
            self.seen = state.count;
            match state.log.len().checked_sub(new) {
                Some(known) => self.due.extend(state.log.range(known..).cloned()),
                None => {
                    drop(state);
                    self.due.extend(self.told.differing(&latest));
                }
            }
        }
        latest
    }

    async fn wait(&mut self) -> Result<()> {
        let changed = self.state.changed().await;
        changed.map_err(|_| self.ended())
    }

    fn ended(&self) -> Error {
        let ended = || Error::new(ErrorKind::Closed, "the tracker's task has ended");
        let state = self.state.borrow();
        state.failure.clone().unwrap_or_else(ended)
    }

    /// The instances as this reader knows them.
    #[cfg(feature = "tonic")]
    pub(crate) fn told(&self) -> &Instances {
        &self.told
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("service", &self.name)
            .field("instances", &self.state.borrow().instances.len())
            .field("stale", &self.is_stale())
            .finish_non_exhaustive()
    }
}

/// Follows the service for as long as anybody reads.
async fn follow(mut observation: Observation<Place>, place: Place, state: watch::Sender<State>) {
    loop {
        let news = tokio::select! {
            biased;
            () = state.closed() => return,
            news = observation.next() => news,
        };
        match news {
            Ok(News::Reset(now)) => state.send_modify(|state| state.replace(now)),
            Ok(News::Changes(changes)) => state.send_modify(|state| {
                state.apply(&place, &changes);
                while let Some(changes) = observation.take_ready() {
                    state.apply(&place, &changes);
                }
            }),
            Ok(News::Current(current)) => state.send_modify(|state| state.stale = !current),
            Err(error) => {
                tracing::error!(%error, prefix = %place.prefix(), "the tracker gave up");
                state.send_modify(|state| {
                    state.stale = true;
                    state.failure = Some(error);
                });
                return;
            }
        }
    }
}

impl State {
    fn apply(&mut self, place: &Place, changes: &Changes) {
        for event in changes {
            if let Some(id) = self.instances.apply(place, event) {
                self.note(id);
            }
        }
    }

    fn replace(&mut self, now: Instances) {
        let changed = self.instances.replace(now);
        changed.into_iter().for_each(|id| self.note(id));
    }

    fn note(&mut self, id: Arc<str>) {
        if self.log.len() == REMEMBERED {
            self.log.pop_front();
        }
        self.log.push_back(id);
        self.count += 1;
    }
}

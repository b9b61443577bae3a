//! Pickers: which instance to call next.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use super::{
    Instance, Tracker,
    pool::{Picked, Pool},
};
use crate::{Moment, Runtime, link::lock};

/// How a [`Picker`] spreads calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// In turn among those that never failed; if there is none, the one whose last failure is longest
    /// ago: it stays with what works.
    LeastRecentlyFailed,
    /// By chance, each as likely as any other.
    Random,
    /// In turn.
    RoundRobin,
    /// In proportion to the weights, as evenly spread over time as chance would not be.
    Weighted,
}

/// Picks instances of a service, and keeps away from those that were reported to fail.
///
/// An instance that drains or has no weight is never picked, whatever the strategy: nothing new comes
/// to it. One that was [reported to fail](Pick::failed) is in quarantine: half a second at first and
/// twice as long each time, up to 30 s, in part by chance. When that is over it is tried with one pick,
/// and only when that [succeeded](Pick::succeeded), or was dropped, come others. If all are in
/// quarantine, the one that failed longest ago is picked rather than none. An instance that leaves, or
/// changes its address, leaves its past behind.
///
/// Clones share all of this. A pick costs time that grows with the logarithm of the instances.
#[derive(Clone)]
pub struct Picker {
    pool: Arc<Mutex<Pool>>,
    runtime: Arc<dyn Runtime>,
}

/// An instance that was picked to be called. Tell what came of it, if that is known.
#[must_use = "a pick is an instance to call"]
pub struct Pick {
    picker: Picker,
    picked: Picked,
    told: bool,
}

impl Picker {
    pub(super) fn new(tracker: Tracker, strategy: Strategy) -> Self {
        let runtime = Arc::clone(tracker.link().runtime());
        let pool = Pool::new(tracker, strategy, runtime.random());
        Self {
            pool: Arc::new(Mutex::new(pool)),
            runtime,
        }
    }

    /// The next instance to call, of those that are there now; `None` if there is none that could be.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Instance, Strategy};
    ///
    /// # let client = quorate::Client::connect("mem:").await?;
    /// let api = client.service("api");
    /// let a = api.register("a", Instance::new("10.0.0.7:8080")).await?;
    /// let b = api.register("b", Instance::new("10.0.0.8:8080")).await?;
    /// let picker = api.track().await?.picker(Strategy::RoundRobin);
    ///
    /// let pick = picker.pick().expect("there are two");
    /// let refused = pick.id().to_owned();
    /// pick.failed();
    /// assert_ne!(picker.pick().expect("there is another").id(), refused);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pick(&self) -> Option<Pick> {
        let random = self.runtime.random();
        let picked = lock(&self.pool).pick(self.runtime.now(), random)?;
        Some(Pick {
            picker: self.clone(),
            picked,
            told: false,
        })
    }

    fn now(&self) -> Moment {
        self.runtime.now()
    }
}

impl Pick {
    /// The id.
    pub fn id(&self) -> &str {
        &self.picked.id
    }

    /// The instance, as it was when it was picked.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.picked.instance
    }

    /// Tells that the instance could not be called, or did not answer: it goes into quarantine.
    ///
    /// Failures of calls that were begun before the last failure was told are one failure.
    pub fn failed(mut self) {
        self.told = true;
        let (now, random) = (self.picker.now(), self.picker.runtime.random());
        lock(&self.picker.pool).failed(&self.picked, now, random);
    }

    /// Tells that the instance answered: its failures are forgotten.
    pub fn succeeded(mut self) {
        self.told = true;
        lock(&self.picker.pool).succeeded(&self.picked);
    }

    #[cfg(feature = "tonic")]
    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.picked.id
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if !self.told {
            lock(&self.picker.pool).dropped(&self.picked);
        }
    }
}

impl fmt::Debug for Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker").finish_non_exhaustive()
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("id", &self.picked.id)
            .field("instance", &self.picked.instance)
            .finish_non_exhaustive()
    }
}

//! Services: their instances register, and their clients track who is there.

mod instance;
mod instances;
mod layout;
mod picker;
mod pool;
mod registration;
mod shares;
mod tracker;

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;

use self::layout::{Place, SERVICES};
pub use self::{
    instance::Instance,
    instances::Instances,
    layout::Layout,
    picker::{Pick, Picker, Strategy},
    registration::Registration,
    tracker::{Change, Tracker},
};
use crate::{Client, KeyRange, Range, Result, observation::Gather as _};

/// A service by its name: where its instances register, and where they are found. It touches nothing
/// until one does.
///
/// # On the wire
///
/// Each instance is an [ephemeral key](crate::Ephemeral), by default
/// `services/NAME/ID -> {"address":"host:port","metadata":{},"weight":1,"draining":false}`; see
/// [`Layout`] for what other programs write.
///
/// # Guarantees
///
/// - An instance is found from when [`Service::register`] returns until its registration is released or
///   dropped, or its process dies: then it is gone when the lease ends.
/// - A registration that is deleted by somebody, or lost with its session, comes back by itself.
/// - A [`Tracker`] is complete from the beginning, and agrees with the store soon after whatever kept
///   it from that has ended.
/// - A value that cannot be understood costs its own instance and nothing else:
///   [`Instances::malformed`] tells of it.
#[derive(Clone, Debug)]
#[must_use = "a service does nothing until an instance registers or somebody tracks it"]
pub struct Service {
    client: Client,
    name: String,
    root: Option<String>,
    layout: Layout,
    ttl: Option<Duration>,
    takes_over: bool,
}

impl Client {
    /// The service of a name, which is not empty and has no slash in it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Instance};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let api = client.service("api");
    /// let here = Instance::new("10.0.0.7:8080").meta("zone", "b");
    /// let _registration = api.register("api-7", here).await?;
    ///
    /// let mut tracker = api.track().await?; // complete when this returns
    /// for (id, instance) in tracker.snapshot().iter() {
    ///     println!("{id} is at {}", instance.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn service(&self, name: impl Into<String>) -> Service {
        Service {
            client: self.clone(),
            name: name.into(),
            root: None,
            layout: Layout::default(),
            ttl: None,
            takes_over: false,
        }
    }

    /// The names of the services that have instances, each with their number. Those of the default
    /// layout and root are found: any other key may be anything.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn services(&self) -> Result<BTreeMap<String, usize>> {
        let keys = Range::new(KeyRange::prefix(SERVICES)).keys_only();
        let mut pages = self.pages(keys);
        let mut services = BTreeMap::new();
        while let Some(page) = pages.try_next().await? {
            for kv in page.kvs {
                let path = kv.key.as_str().and_then(|key| key.strip_prefix(SERVICES));
                if let Some((name, id)) = path.and_then(|path| path.split_once('/'))
                    && !name.is_empty()
                    && !id.is_empty()
                    && !id.contains('/')
                {
                    *services.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(services)
    }
}

/// Where and how.
impl Service {
    /// What stands before the name in the keys, with a slash after it: `services/` if nothing else is
    /// said, or nothing in a layout that others share.
    pub fn root(self, root: impl Into<String>) -> Self {
        Self {
            root: Some(root.into()),
            ..self
        }
    }

    /// How instances are written. In a layout that others share the name may have slashes in it.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Registers under a session with this time to live, rounded up to whole seconds, rather than under
    /// the client's shared session. What asks for the same time in a client shares it.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Registers even if the id is taken, as it is for up to the time to live after a process died that
    /// comes back under the same id. Whoever had it loses it for good.
    pub fn take_over(self) -> Self {
        Self {
            takes_over: true,
            ..self
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the instances once. To see them change there is [`Service::track`].
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a name that cannot
    /// be.
    pub async fn instances(&self) -> Result<Instances> {
        let place = self.place()?;
        let mut pages = self.client.pages(KeyRange::prefix(place.prefix()));
        let mut instances = Instances::default();
        while let Some(page) = pages.try_next().await? {
            place.add(&mut instances, page.header.revision, page.kvs);
        }
        Ok(instances)
    }

    fn place(&self) -> Result<Place> {
        Place::new(self.layout, self.root.as_deref(), &self.name)
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

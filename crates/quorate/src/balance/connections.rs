//! The connections to instances, each opened when it is first used.

use std::{collections::HashMap, sync::Arc};

use tonic::transport;

use super::Options;
use crate::{Change, Pick, Tracker};

/// The connections to the instances of a service.
pub(super) struct Connections {
    /// Tells which to let go of.
    tracker: Tracker,
    open: HashMap<Arc<str>, Open>,
}

struct Open {
    address: String,
    channel: transport::Channel,
}

impl Connections {
    pub(super) fn new(tracker: Tracker) -> Self {
        Self {
            tracker,
            open: HashMap::new(),
        }
    }

    pub(super) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The connection to the address of a pick.
    pub(super) fn get(
        &mut self,
        pick: &Pick,
        options: &Options,
    ) -> Result<transport::Channel, transport::Error> {
        self.close_former();
        let address = &pick.instance().address;
        if let Some(open) = self.open.get(pick.id())
            && open.address == *address
        {
            return Ok(open.channel.clone());
        }
        let channel = options.endpoint(address)?.connect_lazy();
        let present = self.tracker.told().get(pick.id());
        // Nobody would tell when to close it if the instance left or moved since it was picked.
        if present.is_some_and(|instance| instance.address == *address) {
            let open = Open {
                address: address.clone(),
                channel: channel.clone(),
            };
            self.open.insert(Arc::clone(pick.shared_id()), open);
        }
        Ok(channel)
    }

    /// Lets go of the connections to addresses that are not told any more. What runs on them goes on.
    fn close_former(&mut self) {
        while let Some(change) = self.tracker.take_change() {
            let (id, address) = match &change {
                Change::Joined(id, instance) | Change::Updated(id, instance) => {
                    (id, Some(&instance.address))
                }
                Change::Left(id) => (id, None),
            };
            if self
                .open
                .get(id)
                .is_some_and(|open| Some(&open.address) != address)
            {
                self.open.remove(id);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // tests stand outside the client and its runtime
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Client, Instance, Strategy};

    #[tokio::test]
    async fn who_left_or_moved_since_it_was_picked_is_not_kept() {
        let client = Client::connect("mem:").await.unwrap();
        let api = client.service("api");
        let mut a = api.register("a", Instance::new("h:1")).await.unwrap();
        let tracker = api.track().await.unwrap();
        let picker = tracker.picker(Strategy::RoundRobin);
        let mut connections = Connections::new(tracker.clone());
        let known = async |address: Option<&str>| {
            while tracker.peek().get("a").map(|a| &*a.address) != address {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let addresses = |connections: &Connections| -> Vec<String> {
            let open = connections.open.values();
            open.map(|open| open.address.clone()).collect()
        };
        let options = Options::new();
        let former = picker.pick().unwrap();
        a.set(Instance::new("h:2")).await.unwrap();
        known(Some("h:2")).await;
        connections.get(&former, &options).unwrap();
        assert!(addresses(&connections).is_empty());
        let present = picker.pick().unwrap();
        connections.get(&present, &options).unwrap();
        assert_eq!(addresses(&connections), ["h:2"]);
        connections.get(&former, &options).unwrap();
        assert_eq!(addresses(&connections), ["h:2"]);
        a.release().await.unwrap();
        known(None).await;
        connections.get(&present, &options).unwrap();
        assert!(addresses(&connections).is_empty());
    }
}

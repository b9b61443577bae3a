//! The worlds that recipes are tested in: the in-memory store on paused time, and a real etcd.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quorate::{
    Client, ConnectOptions,
    backend::{
        Backend, Memory, Namespace,
        etcd::{Etcd, EtcdOptions},
        fault::{Fault, Faults},
    },
};

use super::etcd;

/// A store that any number of participants use, each over its own faulty connection.
pub struct World(Kind);

enum Kind {
    Memory(Arc<dyn Backend>),
    /// The keys of one test, in the etcd that all share.
    Etcd(Vec<u8>),
    /// An etcd of its own, for tests that look at all leases, or compact.
    EtcdAlone(etcd::Cluster),
}

/// A client, and what can go wrong between it and the store.
pub struct Participant {
    pub client: Client,
    pub faults: Faults,
}

impl World {
    pub fn memory() -> Self {
        Self(Kind::Memory(Arc::new(Memory::new())))
    }

    pub fn etcd() -> Self {
        static TESTS: AtomicU64 = AtomicU64::new(0);
        let number = TESTS.fetch_add(1, Ordering::Relaxed);
        Self(Kind::Etcd(
            format!("test-{}-{number}/", std::process::id()).into(),
        ))
    }

    pub fn etcd_alone() -> Self {
        Self(Kind::EtcdAlone(etcd::Cluster::builder().start()))
    }

    pub fn join(&self) -> Participant {
        self.join_with(ConnectOptions::memory())
    }

    /// Joins as the options say, but for the store.
    pub fn join_with(&self, options: ConnectOptions) -> Participant {
        let backend: Arc<dyn Backend> = match &self.0 {
            Kind::Memory(store) => Arc::clone(store),
            Kind::Etcd(prefix) => {
                let etcd = connect(etcd::shared());
                Arc::new(Namespace::new(etcd, prefix.as_slice()))
            }
            Kind::EtcdAlone(cluster) => connect(cluster.endpoint(0)),
        };
        let fault = Fault::new(backend);
        let faults = fault.faults();
        Participant {
            client: Client::with_backend_and(Arc::new(fault), options),
            faults,
        }
    }

    /// Whether time is virtual here, so that it can be told exactly and costs nothing.
    pub fn is_virtual(&self) -> bool {
        matches!(self.0, Kind::Memory(_))
    }

    /// A client to which nothing happens.
    pub fn observer(&self) -> Client {
        self.join().client
    }
}

fn connect(endpoint: String) -> Arc<dyn Backend> {
    let options = EtcdOptions {
        endpoints: vec![endpoint],
        ..Default::default()
    };
    Arc::new(Etcd::new(options).unwrap())
}

/// Makes two tests of one body: on the in-memory store with paused time, and on a real etcd, which with
/// `alone` before the tests is each test's own.
#[macro_export]
macro_rules! scenarios {
    (alone $($tests:tt)*) => { scenarios! { @on etcd_alone $($tests)* } };
    (@on $etcd:ident $($(#[$attribute:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        $($(#[$attribute])* async fn $name($world: $crate::support::world::World) $body)*

        mod memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name($crate::support::world::World::memory()).await;
                }
            )*
        }

        mod etcd {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::support::world::World::$etcd()).await;
                }
            )*
        }
    };
    ($($tests:tt)*) => { scenarios! { @on etcd $($tests)* } };
}

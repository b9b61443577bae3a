//! Who registers instances, and gives them up.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use quorate::{Error, ErrorKind, Instance, Registration};
use tokio::time::{sleep, timeout};

use super::{Registry, SERVICE};
use crate::simulate::{
    cut::cut_after,
    recipes::history::{History, Past},
    scheduler::MachineId,
    world::{World, lock},
};

/// An instance that is registered.
pub(super) struct Registered {
    id: String,
    /// Whether nobody else registers under this id.
    private: bool,
    /// Absent while it is set or released.
    registration: Mutex<Option<Registration>>,
}

impl Registered {
    /// What is believed to stand does.
    pub(super) fn look(&self, world: &World, past: &Past) {
        let registration = lock(&self.registration);
        let Some(registration) = &*registration else {
            return;
        };
        if !self.private {
            return;
        }
        let stands = past.get(registration.key(), past.revision());
        let token = registration.token();
        // Who is asked may notice what it would not have, so only who has no key is.
        if stands.is_none_or(|kv| kv.create_revision != token) && registration.is_held() {
            let key = registration.key();
            let what = format_args!("{key} is held by {token}, and there is {stands:?}");
            world.broken("I9", what);
        }
    }

    /// What should be found, unless it is over.
    pub(super) fn living(&self) -> Option<(String, Instance)> {
        let registration = lock(&self.registration);
        let registration = registration.as_ref()?;
        let lost = registration.lost().now_or_never().is_some();
        (!lost).then(|| (self.id.clone(), registration.instance().clone()))
    }

    /// Gives it up, one way or the other; what is confirmed is gone.
    pub(super) async fn release(&self, world: &World, history: &History) {
        let Some(registration) = lock(&self.registration).take() else {
            return;
        };
        let (key, token) = (registration.key().clone(), registration.token());
        match registration.release().await {
            Ok(()) => {
                world.count("released");
                let past = history.now();
                let stands = past.get(&key, past.revision());
                if stands.is_some_and(|kv| kv.create_revision == token) {
                    world.broken("I9", format_args!("{key} is released, and stands"));
                }
            }
            Err(error) => expected(world, &error),
        }
    }
}

/// Registers instances again and again.
pub(super) struct Owner {
    registry: Arc<Registry>,
    world: Arc<World>,
    client: MachineId,
    name: String,
    random: fastrand::Rng,
    /// Makes every address another.
    count: u64,
}

impl Owner {
    pub(super) fn new(
        registry: &Arc<Registry>,
        world: &Arc<World>,
        client: MachineId,
        worker: u64,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            world: Arc::clone(world),
            client,
            name: format!("{client}-{worker}"),
            random,
            count: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let mut registered: Option<Arc<Registered>> = None;
        while self.world.storms() {
            match registered.take() {
                None => registered = self.register().await,
                Some(it) => match self.random.u8(..10) {
                    0 => self.leave(&it).await,
                    1 if self.random.u8(..8) == 0 => {
                        self.close().await;
                        registered = Some(it);
                    }
                    _ if it.living().is_none() => {
                        self.world.count("over");
                        self.leave(&it).await;
                    }
                    1..4 => {
                        self.set(&it).await;
                        registered = Some(it);
                    }
                    _ => registered = Some(it),
                },
            }
            sleep(Duration::from_millis(self.random.u64(..800))).await;
        }
    }

    async fn register(&mut self) -> Option<Arc<Registered>> {
        let private = self.random.u8(..4) != 0;
        let id = match private {
            true => self.name.clone(),
            false => "shared".to_owned(),
        };
        let client = self.world.members[self.client].client();
        let mut service = client.service(SERVICE);
        // Our own last one may not be gone yet.
        if private || self.random.bool() {
            service = service.take_over();
        }
        if self.random.u8(..4) == 0 {
            service = service.ttl(self.world.schedule.ttl);
        }
        let instance = self.instance();
        let steps = (self.random.u8(..5) == 0).then(|| self.random.u32(1..20));
        let patience = Duration::from_millis(self.random.u64(1..6000));
        let register = cut_after(steps, service.register(id.clone(), instance));
        let registration = match timeout(patience, register).await {
            Ok(Some(Ok(registration))) => registration,
            Ok(Some(Err(error))) if error.kind() == ErrorKind::AlreadyExists => {
                if private {
                    self.world
                        .broken("I9", format_args!("{id} is nobody's: {error}"));
                }
                return None;
            }
            Ok(Some(Err(error))) => {
                expected(&self.world, &error);
                return None;
            }
            Ok(None) | Err(_) => return None,
        };
        self.world.count("registered");
        let registered = Arc::new(Registered {
            id,
            private,
            registration: Mutex::new(Some(registration)),
        });
        lock(&self.registry.registered).push(Arc::clone(&registered));
        Some(registered)
    }

    /// Tells clients something else, and may not wait until that is written.
    async fn set(&mut self, registered: &Registered) {
        let instance = self.instance();
        let Some(mut registration) = lock(&registered.registration).take() else {
            return;
        };
        let patience = Duration::from_millis(self.random.u64(1..2000));
        match timeout(patience, registration.set(instance)).await {
            Ok(Ok(())) => self.world.count("set"),
            Ok(Err(error)) => expected(&self.world, &error),
            Err(_) => {}
        }
        lock(&registered.registration).replace(registration);
    }

    /// Closes the client: what it has registered by its shared session is over for good.
    async fn close(&mut self) {
        let client = self.world.members[self.client].client();
        let steps = (self.random.u8(..3) == 0).then(|| self.random.u32(1..8));
        self.world.count("closed clients");
        if let Some(Err(error)) = cut_after(steps, client.close()).await {
            expected(&self.world, &error);
        }
    }

    async fn leave(&mut self, registered: &Arc<Registered>) {
        let way = self.random.u8(..4);
        if way == 0 {
            let registration = lock(&registered.registration).take();
            if let Some(registration) = registration {
                let steps = Some(self.random.u32(1..8));
                drop(cut_after(steps, registration.release()).await);
            }
        } else if way == 1 {
            registered
                .release(&self.world, self.registry.history())
                .await;
        } else {
            drop(lock(&registered.registration).take());
        }
        lock(&self.registry.registered).retain(|other| !Arc::ptr_eq(other, registered));
    }

    fn instance(&mut self) -> Instance {
        self.count += 1;
        Instance::new(format!("{}:{}", self.name, self.count))
            .meta("zone", "b")
            .weight(self.random.u32(..3))
            .draining(self.random.u8(..4) == 0)
    }
}

fn expected(world: &World, error: &Error) {
    let kinds = [ErrorKind::Lost, ErrorKind::Timeout, ErrorKind::Unavailable];
    world.expect(error, &kinds);
}

//! Who tracks the instances, and picks some.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate::{
    Change, Error, ErrorKind, Instance, Instances, KeyRange, KeyValue, Picker, Revision, Strategy,
    Tracker,
};
use tokio::time::{sleep, timeout};

use super::{AGREES, PREFIX, SERVICE, decode, instance};
use crate::simulate::{
    cut::cut_after, recipes::history::History, scheduler::MachineId, world::World,
};

const STRATEGIES: [Strategy; 4] = [
    Strategy::LeastRecentlyFailed,
    Strategy::Random,
    Strategy::RoundRobin,
    Strategy::Weighted,
];

/// A tracker, and what it may tell next.
pub(super) struct Follower {
    world: Arc<World>,
    history: Arc<History>,
    client: MachineId,
    random: fastrand::Rng,
    tracker: Option<Tracker>,
    picker: Option<Picker>,
    /// What was told change by change.
    told: BTreeMap<String, Instance>,
    /// The newest revision that was shown.
    seen: Revision,
}

impl Follower {
    pub(super) fn new(
        world: &Arc<World>,
        history: &Arc<History>,
        client: MachineId,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            client,
            random,
            tracker: None,
            picker: None,
            told: BTreeMap::new(),
            seen: Revision::ZERO,
        }
    }

    /// Tracks until the storm is over.
    pub(super) async fn run(mut self) -> Self {
        while self.world.storms() {
            match self.random.u8(..12) {
                _ if self.tracker.is_none() => self.track().await,
                0 if self.random.u8(..4) == 0 => self.tracker = None,
                0 | 1 => self.read_once().await,
                2 => self.snapshot(),
                3 => self.changed().await,
                4..7 => self.pick(),
                _ => self.follow().await,
            }
            let pause = if self.random.u8(..10) == 0 { 4000 } else { 300 };
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
        }
        self
    }

    /// Waits until all is known, and nothing else is.
    pub(super) async fn agree(&mut self) {
        if self.tracker.is_none() {
            self.track_patiently(AGREES, None).await;
        }
        let history = Arc::clone(&self.history);
        let agreed = async {
            loop {
                let Some(tracker) = &mut self.tracker else {
                    return self.world.broken("I12", format_args!("nothing is tracked"));
                };
                let patience = Duration::from_millis(100);
                let change = timeout(patience, tracker.next()).await;
                let stale = tracker.is_stale();
                if let Ok(change) = change {
                    self.told(change);
                    continue;
                }
                let present = {
                    let past = history.now();
                    decode(&past, past.revision())
                };
                if !stale && present.into_iter().eq(self.told.clone()) {
                    return;
                }
            }
        };
        if timeout(AGREES, agreed).await.is_err() {
            let stale = self.tracker.as_ref().map(Tracker::is_stale);
            let past = history.now();
            let present = decode(&past, past.revision());
            let told = &self.told;
            let what = format_args!("{present:?} is tracked as {told:?}, stale: {stale:?}");
            self.world.broken("I8", what);
        }
        self.snapshot();
        for _ in 0..4 {
            self.pick();
        }
        if let Some(picker) = &self.picker {
            let picked = picker.pick().map(|pick| pick.id().to_owned());
            let eligible = |it: &Instance| !it.draining && it.weight > 0;
            let right = match &picked {
                Some(id) => self.told.get(id).is_some_and(eligible),
                None => !self.told.values().any(eligible),
            };
            if !right {
                let told = &self.told;
                let what = format_args!("{picked:?} is picked from {told:?}");
                self.world.broken("I8", what);
            }
        }
    }

    async fn track(&mut self) {
        let patience = Duration::from_millis(self.random.u64(1..5000));
        let steps = (self.random.u8(..5) == 0).then(|| self.random.u32(1..12));
        self.track_patiently(patience, steps).await;
    }

    async fn track_patiently(&mut self, patience: Duration, steps: Option<u32>) {
        let since = self.world.store.revision();
        let service = self.world.members[self.client].client().service(SERVICE);
        match timeout(patience, cut_after(steps, service.track())).await {
            Ok(Some(Ok(tracker))) => {
                self.world.count("tracked");
                let strategy = STRATEGIES[self.random.usize(..STRATEGIES.len())];
                self.picker = Some(tracker.picker(strategy));
                self.tracker = Some(tracker);
                self.seen = since;
                self.snapshot();
            }
            Ok(Some(Err(error))) => self.world.broken("I8", format_args!("{error}")),
            Ok(None) | Err(_) => {}
        }
    }

    /// What is shown is a state that there was, and not older than the one shown before.
    fn snapshot(&mut self) {
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        let snapshot = tracker.snapshot();
        let at = snapshot.revision();
        if at < self.seen {
            let seen = self.seen;
            self.world
                .broken("I8", format_args!("the instances of {at} after {seen}"));
        }
        self.seen = at;
        self.told = self.stood(&snapshot);
        self.world.count("snapshots");
    }

    fn stood(&self, snapshot: &Instances) -> BTreeMap<String, Instance> {
        let shown = snapshot.iter();
        let shown: Vec<_> = shown
            .map(|(id, it)| (id.to_string(), (**it).clone()))
            .collect();
        let past = self.history.now();
        let at = snapshot.revision();
        if at > past.revision() || decode(&past, at) != shown {
            self.world.broken(
                "I7",
                format_args!("the instances were not so at {at}: {shown:?}"),
            );
        }
        shown.into_iter().collect()
    }

    async fn changed(&mut self) {
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        let patience = Duration::from_millis(self.random.u64(..1000));
        match timeout(patience, tracker.changed()).await {
            Ok(Ok(snapshot)) => {
                self.told = self.stood(&snapshot);
                self.seen = self.seen.max(snapshot.revision());
            }
            Ok(Err(error)) => self.world.broken("I8", format_args!("{error}")),
            Err(_) => {}
        }
    }

    /// Reads some changes.
    async fn follow(&mut self) {
        let patience = Duration::from_millis(self.random.u64(..500));
        for _ in 0..self.random.u8(1..6) {
            let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..4));
            let Some(tracker) = &mut self.tracker else {
                return;
            };
            match timeout(patience, cut_after(steps, tracker.next())).await {
                Ok(Some(change)) => self.told(change),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// What changes fits what was told before, and there was such an instance.
    fn told(&mut self, change: Result<Change, Error>) {
        self.world.count("changes");
        let (right, what) = match &change {
            Ok(Change::Joined(id, it)) => {
                let before = self.told.insert(id.to_string(), (**it).clone());
                (before.is_none() && self.was(id, it), "joined")
            }
            Ok(Change::Updated(id, it)) => {
                let before = self.told.insert(id.to_string(), (**it).clone());
                let differs = before.is_some_and(|before| before != **it);
                (differs && self.was(id, it), "updated")
            }
            Ok(Change::Left(id)) => (self.told.remove(&**id).is_some(), "left"),
            Err(_) => (false, "failed"),
        };
        if !right {
            self.world
                .broken("I7", format_args!("it cannot have {what}: {change:?}"));
        }
    }

    /// Whether there ever was such an instance. Each has an address of its own, which is found faster
    /// than all are decoded.
    fn was(&self, id: &str, it: &Instance) -> bool {
        let past = self.history.now();
        let key = format!("{PREFIX}{id}").into();
        let alike = |kv: &KeyValue| {
            kv.value
                .as_str()
                .is_some_and(|text| text.contains(&it.address))
        };
        past.values(&key)
            .any(|kv| alike(kv) && instance(&kv.value).as_ref() == Some(it))
    }

    fn pick(&mut self) {
        let Some(pick) = self.picker.as_ref().and_then(Picker::pick) else {
            return;
        };
        self.world.count("picks");
        let it = pick.instance();
        if it.draining || it.weight == 0 || !self.was(pick.id(), it) {
            self.world.broken("I8", format_args!("{it:?} is picked"));
        }
        match self.random.u8(..3) {
            0 => pick.failed(),
            1 => pick.succeeded(),
            _ => drop(pick),
        }
    }

    /// Reads the instances once, and their number.
    async fn read_once(&mut self) {
        let since = self.world.store.revision();
        let client = self.world.members[self.client].client();
        match client.service(SERVICE).instances().await {
            Ok(instances) if instances.revision() >= since => drop(self.stood(&instances)),
            Ok(instances) => {
                let at = instances.revision();
                self.world
                    .broken("I16", format_args!("a read since {since} is of {at}"));
            }
            Err(error) => self.expected(&error),
        }
        let since = self.world.store.revision();
        match client.services().await {
            Ok(services) => {
                let count = services.get(SERVICE).copied().unwrap_or(0);
                let past = self.history.now();
                let keys = KeyRange::prefix(PREFIX);
                let mut moments = past.moments(&keys, since, past.revision());
                if !moments.any(|at| past.present(&keys, at).len() == count) {
                    self.world.broken(
                        "I16",
                        format_args!("there never were {count} since {since}"),
                    );
                }
            }
            Err(error) => self.expected(&error),
        }
    }

    fn expected(&self, error: &Error) {
        let kinds = [
            ErrorKind::Compacted,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
        ];
        self.world.expect(error, &kinds);
    }
}

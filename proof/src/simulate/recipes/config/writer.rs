//! Who writes configurations.

use std::{sync::Arc, time::Duration};

use quorate::{Client, Config, Delete, Error, ErrorKind, KeyRange, Op};
use tokio::time::{sleep, timeout};

use super::document::{self, KEY, Limits, PREFIX, Place, field};
use crate::simulate::{
    cut::cut_after, recipes::history::History, scheduler::MachineId, world::World,
};

pub(super) struct Writer {
    world: Arc<World>,
    history: Arc<History>,
    client: MachineId,
    name: String,
    random: fastrand::Rng,
    count: u64,
}

impl Writer {
    pub(super) fn new(
        world: &Arc<World>,
        history: &Arc<History>,
        client: MachineId,
        worker: u64,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            client,
            name: format!("{client}.{worker}"),
            random,
            count: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        let config: Config<Limits> = client.config(KEY).validate(Limits::check);
        while self.world.storms() {
            match self.random.u8(..12) {
                0 | 1 => self.set(&config).await,
                2..5 => self.update(&config).await,
                5 | 6 => self.get(&client, &config).await,
                7 => self.spoil(&client).await,
                _ => self.set_fields(&client).await,
            }
            sleep(Duration::from_millis(self.random.u64(..800))).await;
        }
    }

    /// Sets a value; one that is not valid is refused before it is written.
    async fn set(&mut self, config: &Config<Limits>) {
        let limit = self.random.u32(..5);
        let limits = Limits::new(&self.name(), self.count, limit);
        let set = self.patiently(config.set(&limits)).await;
        match set {
            Some(Ok(revision)) => {
                self.world.count("set");
                let past = self.history.now();
                let stands = past.present(&KeyRange::key(KEY), revision);
                if Place::Document.decode(&stands) != Some(limits) {
                    self.world
                        .broken("I10", format_args!("{stands:?} was set at {revision}"));
                }
            }
            Some(Err(error)) if limit == 0 && error.kind() == ErrorKind::InvalidArgument => {
                self.world.count("refused");
            }
            Some(Err(error)) => self.expected(&error),
            None => {}
        }
    }

    /// Counts by one.
    async fn update(&mut self, config: &Config<Limits>) {
        let name = self.name();
        let update = config.update(|limits| {
            limits.count += 1;
            limits.by.name.clone_from(&name);
        });
        match self.patiently(update).await {
            Some(Ok(revision)) => {
                self.world.count("updated");
                let past = self.history.now();
                let key = KeyRange::key(KEY);
                let now = Place::Document.decode(&past.present(&key, revision));
                let before = Place::Document.decode(&past.present(&key, revision.previous()));
                let expected = before.map(|before| Limits {
                    count: before.count + 1,
                    ..Limits::new(&name, 0, before.limit)
                });
                if now.is_none() || now != expected {
                    let what = format_args!("at {revision} it is {now:?}, not {expected:?}");
                    self.world.broken("I10", what);
                }
            }
            Some(Err(error)) => self.absent_or_bad(&error),
            None => {}
        }
    }

    /// Reads what is there.
    async fn get(&mut self, client: &Client, config: &Config<Limits>) {
        let since = self.world.store.revision();
        let place = match self.random.bool() {
            true => Place::Document,
            false => Place::Fields,
        };
        let got = match place {
            Place::Document => self.patiently(config.get()).await,
            Place::Fields => {
                let fields = client.config_prefix::<Limits>(PREFIX);
                let fields = fields.validate(Limits::check);
                self.patiently(fields.get()).await
            }
        };
        let got = match got {
            Some(Ok(limits)) => Some(limits),
            Some(Err(error)) if is_absent_or_bad(&error) => None,
            Some(Err(error)) => return self.expected(&error),
            None => return,
        };
        self.world.count("reads");
        let past = self.history.now();
        let keys = place.keys();
        let mut moments = past.moments(&keys, since, past.revision());
        if !moments.any(|at| place.decode(&past.present(&keys, at)) == got) {
            self.world
                .broken("I16", format_args!("it was never {got:?} since {since}"));
        }
    }

    /// Writes what is no configuration, or deletes it.
    async fn spoil(&mut self, client: &Client) {
        let bad = document::text(&self.name(), self.count, 0);
        let txn = match self.random.u8(..6) {
            0 => client.txn().then(Op::put(KEY, "{")),
            1 => client.txn().then(Op::put(KEY, bad)),
            2 => client.txn().then(Op::delete(KEY)),
            3 => client.txn().then(Op::put(field("limit"), "none")),
            4 => client.txn().then(Op::delete(field("count"))),
            _ => client.txn().then(Delete::new(KeyRange::prefix(PREFIX))),
        };
        if let Some(Err(error)) = self.patiently(txn.commit()).await {
            self.expected(&error);
        }
    }

    /// Writes all fields at once, or one.
    async fn set_fields(&mut self, client: &Client) {
        let (name, limit) = (self.name(), self.random.u32(..5));
        let mut txn = client
            .txn()
            .then(Op::put(field("limit"), limit.to_string()));
        if self.random.u8(..3) > 0 {
            txn = txn
                .then(Op::put(field("count"), self.count.to_string()))
                .then(Op::put(field("by/name"), name));
        }
        if let Some(Err(error)) = self.patiently(txn.commit()).await {
            self.expected(&error);
        }
    }

    async fn patiently<T>(
        &mut self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let steps = (self.random.u8(..5) == 0).then(|| self.random.u32(1..10));
        let patience = Duration::from_millis(self.random.u64(1..4000));
        timeout(patience, cut_after(steps, call))
            .await
            .ok()
            .flatten()
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.name, self.count)
    }

    fn absent_or_bad(&self, error: &Error) {
        if !is_absent_or_bad(error) {
            self.expected(error);
        }
    }

    fn expected(&self, error: &Error) {
        let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable];
        self.world.expect(error, &kinds);
    }
}

pub(super) fn is_absent_or_bad(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound)
}

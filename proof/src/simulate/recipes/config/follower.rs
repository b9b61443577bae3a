//! Who follows a configuration.

use std::{sync::Arc, time::Duration};

use quorate::{ConfigWatch, Error, ErrorKind, Rejected, Rejection, Revision, Update, WhenDown};
use tokio::time::{sleep, timeout};

use super::{
    document::{KEY, Limits, PREFIX, Place},
    writer::is_absent_or_bad,
};
use crate::simulate::{
    cut::cut_after, recipes::history::History, scheduler::MachineId, world::World,
};

/// A watch of a configuration, and what it may show next.
pub(super) struct Follower {
    world: Arc<World>,
    history: Arc<History>,
    client: MachineId,
    random: fastrand::Rng,
    place: Place,
    /// Whether there is a value where nothing was written yet.
    default: bool,
    watch: Option<ConfigWatch<Limits>>,
    /// The revision of the value that was shown last.
    seen: Revision,
}

impl Follower {
    pub(super) fn new(
        world: &Arc<World>,
        history: &Arc<History>,
        client: MachineId,
        mut random: fastrand::Rng,
    ) -> Self {
        let place = match random.bool() {
            true => Place::Document,
            false => Place::Fields,
        };
        Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            client,
            default: random.bool(),
            random,
            place,
            watch: None,
            seen: Revision::ZERO,
        }
    }

    /// Follows until the storm is over.
    pub(super) async fn run(mut self) -> Self {
        while self.world.storms() {
            match self.random.u8(..12) {
                _ if self.watch.is_none() => self.begin().await,
                0 if self.random.u8(..3) == 0 => self.watch = None,
                0..4 => self.show(),
                _ => self.look().await,
            }
            let pause = if self.random.u8(..10) == 0 { 4000 } else { 400 };
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
        }
        self
    }

    async fn begin(&mut self) {
        let client = self.world.members[self.client].client();
        let debounce = match self.random.u8(..3) {
            0 => Duration::from_millis(self.random.u64(1..500)),
            _ => Duration::ZERO,
        };
        let when_down = match self.random.bool() {
            true => WhenDown::Wait,
            false => WhenDown::Fail,
        };
        let since = self.world.store.revision();
        let patience = Duration::from_millis(self.random.u64(1..5000));
        let steps = (self.random.u8(..5) == 0).then(|| self.random.u32(1..10));
        // The two layouts are two types.
        macro_rules! begin {
            ($config:expr) => {{
                let mut config = $config
                    .validate(Limits::check)
                    .debounce(debounce)
                    .when_down(when_down);
                if self.default {
                    config = config.default_value(default());
                }
                timeout(patience, cut_after(steps, config.watch())).await
            }};
        }
        let begun = match self.place {
            Place::Document => begin!(client.config::<Limits>(KEY)),
            Place::Fields => begin!(client.config_prefix::<Limits>(PREFIX)),
        };
        match begun {
            Ok(Some(Ok(watch))) => {
                self.world.count("followed");
                self.seen = Revision::ZERO;
                self.is_newest(since, &watch.current());
                self.watch = Some(watch);
                self.show();
            }
            Ok(Some(Err(error))) if is_absent_or_bad(&error) => {}
            Ok(Some(Err(error))) => self.expected(&error),
            Ok(None) | Err(_) => {}
        }
    }

    /// What it begins with was there since it was asked for.
    fn is_newest(&self, since: Revision, limits: &Limits) {
        let past = self.history.now();
        let keys = self.place.keys();
        let right = past.moments(&keys, since, past.revision()).any(|at| {
            let present = past.present(&keys, at);
            match self.place.decode(&present) {
                Some(stood) => stood == *limits,
                None => self.default && present.is_empty() && *limits == default(),
            }
        });
        if !right {
            self.world.broken(
                "I16",
                format_args!("it was not so since {since}: {limits:?}"),
            );
        }
    }

    /// What is shown is valid, was there, and is not older than what was shown before.
    fn show(&mut self) {
        let Some(watch) = &self.watch else {
            return;
        };
        self.world.count("shown");
        let (limits, at) = (watch.current(), watch.revision());
        let is_default = at == Revision::ZERO && self.default && *limits == default();
        if !is_default {
            let past = self.history.now();
            let stood = past.present(&self.place.keys(), at);
            if at > past.revision() || self.place.decode(&stood).as_ref() != Some(&*limits) {
                self.world
                    .broken("I7", format_args!("it was not so at {at}: {limits:?}"));
            }
        }
        if limits.check().is_err() && !is_default {
            self.world
                .broken("I7", format_args!("it is not valid: {limits:?}"));
        }
        if at < self.seen {
            let seen = self.seen;
            self.world
                .broken("I7", format_args!("{at} is shown after {seen}"));
        }
        if let Some(rejected) = watch.rejected() {
            self.rejected(&rejected);
        }
        self.seen = at;
    }

    fn rejected(&self, rejected: &Rejected) {
        let past = self.history.now();
        let at = rejected.revision;
        let present = past.present(&self.place.keys(), at);
        if at > past.revision() || !self.place.is_refused(&present, &rejected.reason) {
            self.world
                .broken("I7", format_args!("{present:?} is refused: {rejected}"));
        }
    }

    /// Reads an update, if there is one soon.
    pub(super) async fn look(&mut self) {
        let patience = Duration::from_millis(self.random.u64(..400));
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..4));
        if self.watch.is_none() {
            self.begin().await;
        }
        let Some(watch) = &mut self.watch else {
            return;
        };
        match timeout(patience, cut_after(steps, watch.next())).await {
            Ok(Some(Ok(Update::Changed(limits)))) => {
                self.world.count("changes");
                let shown = self.watch.as_ref().map(ConfigWatch::current);
                if shown.is_some_and(|shown| shown != limits) {
                    self.world
                        .broken("I7", format_args!("{limits:?} is told and not shown"));
                }
            }
            Ok(Some(Ok(Update::Rejected(rejected)))) => {
                self.world.count("rejections");
                self.rejected(&rejected);
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => self.world.broken("I8", format_args!("{error}")),
            Ok(None) | Err(_) => {}
        }
        self.show();
    }

    /// Whether it shows what the store has, or refuses that and keeps the last good one.
    pub(super) fn agrees(&mut self) -> Result<(), String> {
        let past = self.history.now();
        let (keys, now) = (self.place.keys(), past.revision());
        let present = past.present(&keys, now);
        let good = self.place.decode(&present);
        let changed = past.moments(&keys, Revision::ZERO, now).last();
        let Some(watch) = &self.watch else {
            // It cannot begin with what is bad.
            let begins = good.is_some() || (present.is_empty() && self.default);
            return match begins {
                true => Err(format!("{:?} is not followed", self.place)),
                false => Ok(()),
            };
        };
        let (limits, at, rejected) = (watch.current(), watch.revision(), watch.rejected());
        let is_default = at == Revision::ZERO && present.is_empty();
        let agrees = match &good {
            Some(good) => good == &*limits && rejected.is_none() && Some(at) >= changed,
            // Deleted again it is as it was.
            None => {
                let refused = rejected.as_ref();
                let gone = present.is_empty();
                is_default
                    || refused.is_some_and(|it| {
                        Some(it.revision) >= changed || (gone && it.reason == Rejection::Deleted)
                    })
            }
        };
        match agrees && !watch.is_stale() {
            true => Ok(()),
            false => Err(format!(
                "at {now} it is {good:?}, changed at {changed:?}; shown is {limits:?} of {at}, \
                 refused {rejected:?}, stale: {}",
                watch.is_stale()
            )),
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

fn default() -> Limits {
    Limits::new("default", 0, 1)
}

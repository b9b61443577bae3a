//! An observer, and what it may tell next.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::StreamExt;
use quorate::{Changes, Client, Event, Observed, Observer, Revision, Snapshot};
use tokio::time::timeout;

use super::sight::Sight;
use crate::simulate::{
    cut::cut_after,
    recipes::history::{History, Past},
    world::World,
};

/// How long it may take to agree with the store once all is well: a silent watch is noticed after 7.5 s.
const AGREES: Duration = Duration::from_secs(15);

pub(super) struct Subject {
    world: Arc<World>,
    history: Arc<History>,
    sight: Sight,
    observer: Observer,
    expects: Expects,
    until_deleted: bool,
    /// Whether the key was there, or may have been.
    seen: bool,
    /// What was told was the deletion that it ends with.
    over: bool,
    ended: bool,
}

/// What may be told next.
#[derive(Clone, Copy, Debug)]
enum Expects {
    /// The state of a moment not before this.
    State(Revision),
    /// Every change after this revision.
    After(Revision),
    /// Every change after some revision, not before the first, and not after the second, which is known
    /// once it was opened.
    AfterNow(Revision, Option<Revision>),
    /// Every change that is kept, as all from this revision on were at the beginning; if it was opened,
    /// certainly those after the second.
    Oldest(Revision, Option<Revision>),
}

impl Subject {
    pub(super) fn new(
        world: &Arc<World>,
        history: &Arc<History>,
        client: &Client,
        random: &mut fastrand::Rng,
    ) -> Self {
        let sight = Sight::draw(random);
        let past = history.now();
        let now = past.revision();
        let mut observer = client.observe(sight.keys.clone());
        let expects = match random.u8(..6) {
            0 => {
                let from = random.i64(past.oldest().0.max(3) - 2..=now.0 + 4);
                let from = Revision(from);
                observer = observer.from(from);
                Expects::After(from.previous())
            }
            1 => {
                observer = observer.from_now();
                Expects::AfterNow(now, None)
            }
            2 => {
                observer = observer.from_oldest();
                Expects::Oldest(past.oldest(), None)
            }
            _ => Expects::State(now),
        };
        drop(past);
        let until_deleted = sight.keys.is_single() && random.bool();
        let mut subject = Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            observer: subject(observer, &sight),
            sight,
            expects,
            until_deleted,
            seen: !matches!(expects, Expects::State(_)),
            over: false,
            ended: false,
        };
        if until_deleted {
            subject.observer = subject.observer.until_deleted();
        }
        subject
    }

    /// Drops the observer, and makes another that goes on after what was told last.
    pub(super) fn resume(self, client: &Client) -> Self {
        let Expects::After(told) = self.expects else {
            return self;
        };
        if self.until_deleted {
            return self;
        }
        self.world.count("resumed");
        let observer = client.observe(self.sight.keys.clone()).from(told.next());
        Self {
            observer: subject(observer, &self.sight),
            ..self
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads what is told, and gives up at some time.
    pub(super) async fn read(&mut self, random: &mut fastrand::Rng) {
        let patience = Duration::from_millis(random.u64(..400));
        for _ in 0..random.u8(1..8) {
            let steps = (random.u8(..4) == 0).then(|| random.u32(1..8));
            if random.u8(..6) == 0 {
                let opened = cut_after(steps, self.observer.opened());
                if let Ok(Some(opened)) = timeout(patience, opened).await {
                    self.opened(opened);
                }
                continue;
            }
            let told = timeout(patience, cut_after(steps, self.observer.next())).await;
            match told {
                Ok(Some(told)) => self.told(told),
                Ok(None) => self.world.count("cut reads"),
                Err(_) => return,
            }
            if self.ended {
                return;
            }
        }
    }

    /// Reads all that is left to be told, now that all is well.
    pub(super) async fn finish(&mut self) {
        let rest = async {
            let opened = self.observer.opened().await;
            self.opened(opened);
            while !self.is_up_to_date() {
                let told = self.observer.next().await;
                self.told(told);
            }
        };
        if timeout(AGREES, rest).await.is_err() {
            let Self { sight, expects, .. } = self;
            let now = self.history.now().revision();
            let what = format_args!("{sight:?} is not told all up to {now}: {expects:?}");
            self.world.broken("I8", what);
        }
    }

    fn is_up_to_date(&self) -> bool {
        let past = self.history.now();
        let told = match self.expects {
            _ if self.ended => return true,
            _ if self.over || self.is_deleted(&past) => return false,
            Expects::After(told) | Expects::AfterNow(_, Some(told)) => told,
            Expects::Oldest(_, Some(_)) => past.oldest().previous(),
            Expects::State(_) | Expects::AfterNow(..) | Expects::Oldest(..) => return false,
        };
        self.sight.next_after(&past, told).is_none()
    }

    fn opened(&mut self, opened: Result<(), quorate::Error>) {
        if let Err(error) = opened {
            let what = format_args!("an observer failed: {error}");
            self.world.broken("I7", what);
        }
        let now = self.history.now().revision();
        if let Expects::AfterNow(_, late @ None) | Expects::Oldest(_, late @ None) =
            &mut self.expects
        {
            *late = Some(now);
        }
    }

    /// Everything that must be true of what is told.
    fn told(&mut self, told: Option<Result<Observed, quorate::Error>>) {
        if self.over && told.is_some() {
            let what = format_args!("something is told after the deletion: {told:?}");
            self.world.broken("I7", what);
        }
        match told {
            Some(Ok(Observed::Reset(all))) => self.reset(&all),
            Some(Ok(Observed::Changes(changes))) => self.changed(&changes),
            Some(Err(error)) => {
                let what = format_args!("an observer failed: {error}");
                self.world.broken("I7", what);
                self.ended = true;
            }
            None => {
                let silently = self.may_be_deleted(&self.history.now());
                if !self.over && !silently {
                    let what = format_args!("an observer just ended: {:?}", self.expects);
                    self.world.broken("I7", what);
                }
                self.world.count("ended");
                self.ended = true;
            }
        }
    }

    fn reset(&mut self, all: &Snapshot) {
        let past = self.history.now();
        let broken = |what: fmt::Arguments<'_>| self.world.broken("I7", what);
        self.world.count("resets");
        if all.revision > past.revision() || all.kvs != past.present(&self.sight.keys, all.revision)
        {
            broken(format_args!(
                "the keys were not so at {}: {:?}",
                all.revision, all.kvs
            ));
        }
        let (told, first) = match self.expects {
            Expects::State(since) => (since, true),
            Expects::After(told) | Expects::AfterNow(told, _) => (told, false),
            Expects::Oldest(oldest, _) => (oldest.previous(), false),
        };
        if all.revision < told.min(past.revision()) {
            broken(format_args!("the state of {} after {told}", all.revision));
        }
        if !first {
            self.world.count("later resets");
            let oldest = past.oldest();
            if told.next() >= oldest {
                let expects = self.expects;
                broken(format_args!(
                    "a reset, all is kept from {oldest} on, expected is {expects:?}"
                ));
            }
        }
        self.over = self.until_deleted && self.seen && all.kvs.is_empty();
        self.seen |= !all.kvs.is_empty();
        drop(past);
        self.expects = Expects::After(all.revision);
    }

    fn changed(&mut self, changes: &Changes) {
        let past = self.history.now();
        let revision = changes.revision();
        let broken = |what: fmt::Arguments<'_>| self.world.broken("I7", what);
        self.world.count("changes");
        let next = |after| self.sight.next_after(&past, after);
        match self.expects {
            Expects::State(_) => broken(format_args!("changes before the state")),
            Expects::After(told) => {
                let next = next(told);
                if Some(revision) != next {
                    broken(format_args!(
                        "{revision} is told after {told}, not {next:?}"
                    ));
                }
            }
            Expects::AfterNow(early, late) => {
                let latest = late.and_then(next).unwrap_or(revision);
                if revision <= early || revision > latest {
                    broken(format_args!("{revision} is told first, not {latest}"));
                }
            }
            Expects::Oldest(_, late) => {
                let kept = next(past.oldest().previous()).unwrap_or(revision);
                let later = late.and_then(next).unwrap_or(revision);
                if revision > kept.min(later) {
                    broken(format_args!(
                        "{revision} is not the oldest: {kept}, {later}"
                    ));
                }
            }
        }
        self.sight
            .check(&self.world, &past, revision, changes.events());
        let last = changes.events().last();
        self.over = self.until_deleted && matches!(last, Some(Event::Delete { .. }));
        self.seen = true;
        drop(past);
        self.expects = Expects::After(revision);
    }

    /// Whether the next change, which is not told, is the deletion at which it ends.
    fn is_deleted(&self, past: &Past) -> bool {
        let Expects::After(told) = self.expects else {
            return false;
        };
        let next = self.deletions().next_after(past, told);
        let only_puts = self.until_deleted && !self.sight.deletions;
        only_puts && next.is_some_and(|next| past.present(&self.sight.keys, next).is_empty())
    }

    /// Whether such a deletion may have been the first change for one that told nothing yet.
    fn may_be_deleted(&self, past: &Past) -> bool {
        let since = match self.expects {
            Expects::State(_) | Expects::After(_) => return self.is_deleted(past),
            Expects::AfterNow(early, _) => early,
            Expects::Oldest(..) => Revision::ZERO,
        };
        let only_puts = self.until_deleted && !self.sight.deletions;
        let mut moments = past.moments(&self.sight.keys, since, past.revision());
        only_puts && moments.any(|at| at > since && past.present(&self.sight.keys, at).is_empty())
    }

    /// What it would see if it were told the deletions, too.
    fn deletions(&self) -> Sight {
        Sight {
            deletions: true,
            ..self.sight.clone()
        }
    }
}

/// The observer that tells what the sight sees.
fn subject(mut observer: Observer, sight: &Sight) -> Observer {
    if !sight.deletions {
        observer = observer.puts_only();
    }
    if !sight.puts {
        observer = observer.deletes_only();
    }
    if sight.prev {
        observer = observer.prev_kv();
    }
    observer
}

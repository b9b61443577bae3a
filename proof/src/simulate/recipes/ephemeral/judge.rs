//! What must be true of ephemeral keys, by what is seen of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use quorate::{
    EphemeralState, Event, KeyRange, KeyValue, Loss, Op, Revision, Txn, backend::Backend,
};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

use super::{ALL, BY_HAND, Books, Ephemeral, Guard, Incarnation, Owned, Phase, RECREATION, Tag};
use crate::simulate::world::{CALL, World, lock};

impl Books {
    /// Somebody changed a key: it must not be another's.
    pub(super) fn changed(&mut self, world: &World, event: Event) {
        let at = event.revision();
        let path = event.key().to_string();
        if self.timed.contains_key(&path) || path.starts_with("e/timed/") {
            return;
        }
        let known = self.paths.entry(path.clone()).or_default();
        let by_hand = self.by_hand.contains(&at);
        let before = known.present.take();
        let Event::Put { kv, .. } = event else {
            if let Some(gone) = before
                && !by_hand
                && world.schedule.assumed
                && !is_explained(world, &self.guards, &path, gone)
            {
                world.broken(
                    "I14",
                    format_args!("somebody deleted {path} at {at}, {gone:?}"),
                );
            }
            return;
        };
        let tag = Tag::of(&kv);
        let writer = tag.map(|tag| tag.guard);
        known.writers.insert(writer, at);
        known.present = Some(Incarnation {
            created: kv.create_revision,
            lease: kv.lease,
            tag,
        });
        if by_hand {
            return;
        }
        if kv.lease.is_none() {
            world.broken("I9", format_args!("{path} has no lease at {at}"));
        }
        let Some(before) = before.filter(|before| before.created == kv.create_revision) else {
            world.count("made");
            return;
        };
        match (before.tag, tag) {
            (Some(former), Some(tag)) if former.client == tag.client => {
                let undone = tag.number < former.number && tag.number != 0;
                if undone && tag.guard == former.guard {
                    world.broken(
                        "I10",
                        format_args!("{tag:?} undid {former:?} of {path} at {at}"),
                    );
                }
            }
            (former, tag) => {
                let what = format_args!("{tag:?} overwrote {former:?} of {path} at {at}");
                world.broken("I14", what);
            }
        }
    }
}

impl Ephemeral {
    /// Does something to keys in nobody's name; the store answers at once.
    pub(super) fn by_hand(&self, world: &World, op: Op, when: &[quorate::Compare]) {
        let mut txn = Txn::new().then(op);
        for compare in when {
            txn = txn.when(compare.clone());
        }
        let answer = unconstrained(world.store.txn(txn)).now_or_never();
        if let Some(Ok(answer)) = answer {
            lock(&self.books).by_hand.insert(answer.header.revision);
        }
    }

    pub(super) fn leave_guard(&self, guard: u64) {
        let mut books = lock(&self.books);
        books.made.remove(&guard);
        if let Some(guard) = books.guards.get_mut(&guard) {
            guard.phase = Phase::Left;
        }
    }

    /// Follows the states of a key to their end.
    pub(super) async fn follow(self: Arc<Self>, world: Arc<World>, owned: Weak<Owned>) {
        let Some((guard, mut states)) = owned
            .upgrade()
            .map(|owned| (owned.guard, owned.key.states()))
        else {
            return;
        };
        let mut last = Revision::ZERO;
        let mut state = states.current();
        loop {
            match state {
                EphemeralState::Present { token } if token < last => {
                    world.broken("I14", format_args!("{token} comes after {last}"));
                }
                EphemeralState::Present { token } => {
                    last = token;
                    world.count("present");
                }
                EphemeralState::Lost(loss) => {
                    self.lost(&world, guard, loss);
                    if let Ok(state) = timeout(CALL, states.changed()).await {
                        world.broken("I14", format_args!("{state:?} comes after {loss:?}"));
                    }
                    return;
                }
                _ => world.count("gaps"),
            }
            state = states.changed().await;
        }
    }

    /// A key was told to be lost: there must have been a reason.
    fn lost(&self, world: &World, number: u64, loss: Loss) {
        let books = lock(&self.books);
        let Some(guard) = books.guards.get(&number) else {
            return;
        };
        let deposed = || {
            let others = books.guards.iter().filter(|(other, _)| **other != number);
            let mut others = others.map(|(_, other)| other);
            others.any(|other| other.takes_over && other.path == guard.path)
        };
        let taken = || {
            let writers = books.paths.get(&guard.path).map(|path| &path.writers);
            let mut writers = writers.into_iter().flatten();
            writers.any(|(writer, at)| *writer != Some(number) && *at > guard.since)
        };
        let explained = match loss {
            Loss::Released => guard.phase == Phase::Left,
            Loss::Conflict => taken() || deposed(),
            _ => false,
        };
        if !explained {
            let (client, path) = (guard.client, &guard.path);
            world.broken(
                "I9",
                format_args!("client {client} lost {path} for good: {loss:?}"),
            );
        }
        if loss == Loss::Conflict {
            world.count("conflicts");
        }
    }

    /// The keys that stand, as the owners want them or not.
    pub(super) fn standing(&self, world: &World) -> Vec<KeyValue> {
        let mut there = world.keys(KeyRange::prefix(ALL));
        there.retain(|kv| Tag::of(kv).is_some());
        there
    }

    /// Each key that is wanted has to stand as its owner wants it, and no other.
    pub(super) async fn stand(
        &self,
        world: &World,
        patience: Duration,
        invariant: &'static str,
        when: &str,
    ) {
        let deadline = Instant::now() + patience;
        while let Some(wrong) = self.not_as_wanted(world) {
            if Instant::now() > deadline {
                world.broken(invariant, format_args!("{when}, and {wrong}"));
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn not_as_wanted(&self, world: &World) -> Option<String> {
        let mut there = self.standing(world);
        let books = lock(&self.books);
        for owned in &books.kept {
            let state = owned.key.state();
            if let EphemeralState::Lost(_) = state {
                continue;
            }
            let path = &owned.path;
            let nth = there.iter().position(|kv| kv.key == path.as_str());
            let Some(kv) = nth.map(|nth| there.swap_remove(nth)) else {
                return Some(format!("{path} of client {} is missing", owned.client));
            };
            let wanted = Tag {
                client: owned.client,
                guard: owned.guard,
                number: *lock(&owned.wanted),
            };
            let present = EphemeralState::Present {
                token: kv.create_revision,
            };
            if Tag::of(&kv) != Some(wanted) || state != present || owned.key.error().is_some() {
                let (value, error) = (&kv.value, owned.key.error());
                return Some(format!(
                    "{path} is {value} by {}, not as {wanted:?} is: {state:?}, {error:?}",
                    kv.create_revision
                ));
            }
        }
        there
            .first()
            .map(|kv| format!("nobody wants {} ({})", kv.key, kv.value))
    }

    /// Whose key somebody overwrites has lost it, and leaves it alone.
    pub(super) async fn overwritten(&self, world: &World) {
        let kept = lock(&self.books).kept.clone();
        let open = |owned: &&Arc<Owned>| !matches!(owned.key.state(), EphemeralState::Lost(_));
        let Some(owned) = kept.iter().find(open) else {
            return;
        };
        let path = owned.path.as_str();
        self.by_hand(world, Op::put(path, BY_HAND), &[]);
        let lost = timeout(RECREATION, owned.key.lost()).await;
        if lost != Ok(Loss::Conflict) {
            world.broken(
                "I9",
                format_args!("{path} was overwritten, and it is {lost:?}"),
            );
        }
        sleep(RECREATION).await;
        let there = world.keys(KeyRange::key(path));
        if there.first().is_none_or(|kv| kv.value != BY_HAND) {
            world.broken(
                "I14",
                format_args!("{path} was overwritten, and is {there:?}"),
            );
        }
        self.by_hand(world, Op::delete(path), &[]);
    }

    /// What is let go is gone, though the sessions live on.
    pub(super) async fn leave(&self, world: &World) {
        let kept = std::mem::take(&mut lock(&self.books).kept);
        for (nth, owned) in kept.into_iter().enumerate() {
            self.leave_guard(owned.guard);
            let is_lost = matches!(owned.key.state(), EphemeralState::Lost(_));
            match Arc::into_inner(owned) {
                Some(owned) if nth % 2 == 0 && !is_lost => {
                    if let Err(error) = owned.key.release().await {
                        world.broken(
                            "I12",
                            format_args!("{} is not released: {error}", owned.path),
                        );
                    }
                }
                other => drop(other),
            }
        }
        self.stand(world, RECREATION, "I5", "all was let go").await;
    }
}

/// Whether an incarnation may be gone: its owner has left it, or has lost its lease, or somebody took the
/// path.
fn is_explained(
    world: &World,
    guards: &BTreeMap<u64, Guard>,
    path: &str,
    gone: Incarnation,
) -> bool {
    if guards
        .values()
        .any(|guard| guard.takes_over && guard.path == path)
    {
        return true;
    }
    let Some(tag) = gone.tag else {
        return false;
    };
    let is_wanted = guards.get(&tag.guard).is_some_and(|guard| {
        guard.phase == Phase::Made
            && guard.owned.upgrade().is_some_and(|owned| {
                !matches!(owned.key.states().current(), EphemeralState::Lost(_))
            })
    });
    let lives = gone
        .lease
        .is_some_and(|lease| world.leases().contains(&lease));
    !is_wanted || !lives
}

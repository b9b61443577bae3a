//! What must be true of a queue once all is well.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::{Either, join, select};
use quorate::{
    Client, Error, ErrorKind, Key, KeyRange, LockGuard, Op, Revision, Txn, backend::Backend,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Hold, NAME};
use crate::simulate::world::{CALL, World, lock};

/// How soon somebody learns that its key is gone, if its watch works.
const SOON: Duration = Duration::from_secs(1);

/// And if its watch has fallen silent: that is noticed after 7.5 s.
const LATE: Duration = Duration::from_secs(10);

impl Hold {
    /// What was given up has gone, though the sessions live on.
    pub(super) async fn queue_empties(&self, world: &World) {
        let deadline = Instant::now() + 2 * CALL + 4 * world.schedule.ttl;
        loop {
            let left = self.standing(world);
            if left.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                world.broken("I5", format_args!("{left:?} are left in the queue"));
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nobody was told that it holds whose key was gone when the last one before it left.
    pub(super) fn keys_stood(&self, world: &World) {
        let told: BTreeSet<_> = lock(&self.books).told.iter().copied().collect();
        self.ledger.ask(world, |line| {
            let left = line.left();
            let mut before = Revision::ZERO;
            for (token, gone) in left {
                if told.contains(token) && *gone < before {
                    world.broken(
                        "I4",
                        format_args!(
                            "{token} held, whose key was gone at {gone}, before its turn at {before}"
                        ),
                    );
                }
                before = before.max(*gone);
            }
        });
    }

    /// Everybody can still acquire.
    pub(super) async fn queue_works(&self, world: &World) {
        for member in &world.members {
            if let Some(guard) = free(world, &member.client()).await
                && let Err(error) = guard.release().await
            {
                world.broken("I12", format_args!("all is well, but {error}"));
            }
        }
    }

    /// A waiter whose key or lease is gone learns it while the holder stays.
    pub(super) async fn waiters_fail(&self, world: &World) {
        for ends_lease in [false, true] {
            let (holder, waiter) = (world.members[0].client(), world.members[1].client());
            let Some(guard) = free(world, &holder).await else {
                return;
            };
            let lock = waiter.lock(NAME);
            let waiting = lock.acquire();
            let loss = async {
                if let Some(key) = self.contender(world, 1).await {
                    take(world, &key, ends_lease).await;
                    sleep(SOON).await;
                }
            };
            match select(Box::pin(waiting), Box::pin(loss)).await {
                Either::Left((Err(error), _)) if error.kind() == ErrorKind::Lost => {}
                Either::Left((ended, _)) => {
                    let what = format_args!("a waiter without a key ends with {ended:?}");
                    world.broken("I4", what);
                }
                Either::Right(_) => {
                    world.broken("I4", format_args!("a waiter without a key waits on"));
                }
            }
            drop(guard);
        }
    }

    /// A holder whose key or lease is gone learns it, whatever became of its watches, and the next holds.
    pub(super) async fn holders_learn(&self, world: &World) {
        let clients = world.members.len();
        for (nth, member) in world.members.iter().enumerate() {
            let Some(guard) = free(world, &member.client()).await else {
                return;
            };
            let next = world.members[(nth + 1) % clients].client();
            let patience = match (world.schedule.seed + nth as u64) % 3 {
                0 => SOON,
                1 => {
                    // It is watched by then.
                    sleep(SOON).await;
                    member.faults.cut_watches();
                    SOON
                }
                _ => {
                    sleep(SOON).await;
                    member.faults.silence_watches();
                    LATE
                }
            };
            let loss = async {
                // Somebody waits by then.
                if self.contender(world, 1).await.is_none() {
                    return;
                }
                let ends_lease = world.schedule.seed.is_multiple_of(2);
                take(world, guard.key(), ends_lease).await;
                if timeout(patience, guard.lost()).await.is_err() {
                    let what = format_args!("{guard:?} is gone, and its holder not told");
                    world.broken("I1", what);
                }
            };
            let (acquired, ()) = join(timeout(2 * LATE, acquire(&next)), loss).await;
            if !matches!(acquired, Ok(Ok(_))) {
                let what = format_args!("the lock is free, and ends with {acquired:?}");
                world.broken("I12", what);
            }
            member.faults.heal();
        }
    }

    fn standing(&self, world: &World) -> Vec<Key> {
        self.ledger.ask(world, |line| {
            let standing = line.standing();
            standing.into_values().cloned().collect()
        })
    }

    /// The key of the nth in the queue, which comes soon.
    async fn contender(&self, world: &World, nth: usize) -> Option<Key> {
        let deadline = Instant::now() + 2 * CALL;
        while Instant::now() < deadline {
            if let Some(key) = self.standing(world).into_iter().nth(nth) {
                return Some(key);
            }
            sleep(Duration::from_millis(10)).await;
        }
        world.broken("I12", format_args!("nobody is number {nth} in the queue"));
        None
    }
}

/// Acquires under a session whose beats get through, for one of the storm may be about to end.
async fn acquire_afresh(client: &Client) -> Result<LockGuard, Error> {
    loop {
        let guard = acquire(client).await?;
        let session = guard.session().clone();
        while session.remaining() < session.ttl() / 2 && !session.is_lost() {
            sleep(Duration::from_millis(10)).await;
        }
        if guard.is_held() {
            return Ok(guard);
        }
    }
}

/// Acquires, under whichever session.
async fn acquire(client: &Client) -> Result<LockGuard, Error> {
    loop {
        match client.lock(NAME).acquire().await {
            Err(error) if error.is_retryable() => {}
            // Of a session that has ended, as nobody has noticed yet.
            Err(error) if error.kind() == ErrorKind::Lost => {}
            acquired => return acquired,
        }
    }
}

/// A lock that nobody has; it is broken if it is not acquired.
async fn free(world: &World, client: &Client) -> Option<LockGuard> {
    match timeout(4 * CALL, acquire_afresh(client)).await {
        Ok(Ok(guard)) => Some(guard),
        Ok(Err(error)) => {
            world.broken("I12", format_args!("the lock is free, but {error}"));
            None
        }
        Err(_) => {
            world.broken("I12", format_args!("nobody gets a free lock"));
            None
        }
    }
}

/// Ends the lease of a key, or deletes it.
async fn take(world: &World, key: &Key, ends_lease: bool) {
    let found = world.keys(KeyRange::key(key));
    let lease = found.first().and_then(|kv| kv.lease);
    match lease {
        Some(lease) if ends_lease => drop(world.store.expire(lease)),
        _ => {
            let delete = Txn::new().then(Op::delete(key));
            drop(world.store.txn(delete).await);
        }
    }
}

//! Holds locks, believes in them, and raises counters under them.

use std::{cell::Cell, future::Future, time::Duration};

use quorate::{Fenced, KeyValue, LockGuard, Session};
use tokio::time::{Instant, sleep, timeout};

use super::{Desk, between, failure, millis};
use crate::history::{Outcome, Stamp, What, nanos, now};

/// Holds a lock for moments.
pub(super) async fn short(desk: &Desk) {
    hold_again(desk, "lock/short", millis(2), millis(60)).await;
}

/// Holds a lock for longer than its session lives without a beat.
pub(super) async fn long(desk: &Desk) {
    hold_again(desk, "lock/long", desk.ttl / 2, desk.ttl * 5 / 2).await;
}

async fn hold_again(desk: &Desk, name: &str, least: Duration, most: Duration) {
    let lock = desk.client.lock(name).ttl(desk.ttl);
    while !desk.is_stopping() {
        let asked = now();
        match desk.unless_stopping(lock.acquire()).await {
            None => return,
            Some(Ok(guard)) => {
                desk.note(What::Acquired {
                    hold: name.to_owned(),
                    token: guard.token().0,
                    asked,
                });
                hold(desk, name, &guard, between(least, most)).await;
                if let Err(error) = desk.timed("release", 1, guard.release()).await {
                    desk.failed("release", &error).await;
                }
                desk.rest(millis(1), millis(40)).await;
            }
            Some(Err(error)) => desk.failed("acquire", &error).await,
        }
    }
}

async fn hold(desk: &Desk, name: &str, guard: &LockGuard, time: Duration) {
    let belief = Belief {
        desk,
        hold: name,
        token: guard.token().0,
        session: Some(guard.session().clone()),
    };
    let counter = Counter::new(desk, name, belief.token, |key| guard.fenced(key));
    belief.work(&counter, time, || guard.is_held()).await;
    match guard.loss() {
        None => belief.end("released".to_owned()),
        Some(loss) => belief.lost(format!("{loss:?}"), guard.lost()).await,
    }
}

/// The belief of this process in one hold.
pub(super) struct Belief<'a> {
    pub(super) desk: &'a Desk,
    pub(super) hold: &'a str,
    pub(super) token: i64,
    pub(super) session: Option<Session>,
}

/// How often belief is looked at, and how often it is written down.
const LOOK: Duration = Duration::from_millis(2);
const NOTE: Duration = Duration::from_millis(20);

/// How much later than a look the loss of a hold may be told: it takes a task's turn.
const NOTICE: Duration = Duration::from_secs(1);

impl Belief<'_> {
    /// Works under the hold for some time, or until the loss or the stop of the process, and looks all
    /// the while whether it is believed in.
    pub(super) async fn work(
        &self,
        counter: &Counter<'_>,
        time: Duration,
        is_held: impl Fn() -> bool,
    ) {
        let (over, done) = (Cell::new(false), Cell::new(false));
        let raise = async {
            counter.raise_until(&over).await;
            done.set(true);
        };
        tokio::join!(self.keep(time, is_held, &over, &done), raise);
    }

    /// Looks until the loss, or until what is done under the hold is done.
    async fn keep(
        &self,
        time: Duration,
        is_held: impl Fn() -> bool,
        over: &Cell<bool>,
        done: &Cell<bool>,
    ) {
        let end = Instant::now() + time;
        let mut noted = 0;
        let mut last = None;
        loop {
            // Whoever is stopped between the looks does not believe afterwards: then it was true
            // at the first of them. A loss is final, so it was true all the time before.
            let seen = now();
            let age = self.age();
            if !is_held() {
                over.set(true);
                break;
            }
            last = Some((seen, age));
            if seen - noted >= nanos(NOTE) {
                self.note(seen, age);
                noted = seen;
            }
            if Instant::now() >= end || self.desk.is_stopping() {
                over.set(true);
            }
            if done.get() {
                break;
            }
            sleep(LOOK).await;
        }
        if let Some((seen, age)) = last.filter(|(seen, _)| *seen > noted) {
            self.note(seen, age);
        }
    }

    /// The hold is lost: that must be told by itself as well.
    pub(super) async fn lost(&self, how: String, lost: impl Future) {
        if timeout(NOTICE, lost).await.is_err() {
            let text = format!("{} was lost ({how}), and nobody was told", self.hold);
            self.desk.note(What::Unexpected { text });
        }
        self.end(how);
    }

    /// The hold is over.
    pub(super) fn end(&self, how: String) {
        self.desk.note(What::Ended {
            hold: self.hold.to_owned(),
            token: self.token,
            how,
        });
    }

    fn note(&self, seen: Stamp, age: Option<Stamp>) {
        self.desk.note(What::Held {
            hold: self.hold.to_owned(),
            token: self.token,
            seen,
            age,
        });
    }

    /// How long ago the beat was sent that was confirmed last, by our clock: what is left of the time
    /// that a session may be relied on tells it.
    fn age(&self) -> Option<Stamp> {
        const DRIFT: f64 = 0.05;
        let session = self.session.as_ref()?;
        let ttl = session.ttl();
        let margin = (ttl / 50).max(millis(50));
        let relied_on = ttl.mul_f64(1.0 - 2.0 * DRIFT) - margin;
        Some(nanos(relied_on.saturating_sub(session.remaining())))
    }
}

/// A counter that is raised under the fence of a hold, and beside it a key without a fence, which shows
/// what the fence is good for.
pub(super) struct Counter<'a> {
    desk: &'a Desk,
    key: String,
    plain: String,
    token: i64,
    fenced: Fenced,
}

impl<'a> Counter<'a> {
    pub(super) fn new(
        desk: &'a Desk,
        hold: &str,
        token: i64,
        fenced: impl FnOnce(String) -> Fenced,
    ) -> Self {
        let key = format!("count/{hold}");
        Self {
            desk,
            plain: format!("plain/{hold}"),
            token,
            fenced: fenced(key.clone()),
            key,
        }
    }

    /// Raises it now and then until belief ends, and then once more: who lost the hold must be refused.
    async fn raise_until(&self, over: &Cell<bool>) {
        loop {
            let last = over.get();
            self.raise().await;
            if last || self.desk.is_stopping() {
                return;
            }
            let pause = Instant::now() + between(millis(20), millis(400));
            while !over.get() && Instant::now() < pause {
                sleep(LOOK).await;
            }
        }
    }

    async fn raise(&self) {
        let called = now();
        let mark = format!("{}-{:x}", self.desk.process, fastrand::u32(..));
        let raised = self.fenced.update(|present| {
            let number = present.map_or(0, number) + 1;
            format!("{number} {} {mark}", self.token)
        });
        let outcome = match raised.await {
            Ok(revision) => Outcome::Written {
                revision: revision.0,
            },
            Err(error) => failure(&error),
        };
        self.desk.note(What::Raised {
            counter: self.key.clone(),
            token: self.token,
            called,
            outcome,
            mark,
        });
        let plain = self.desk.client.put(&self.plain, self.token.to_string());
        let _ = self.desk.timed("put", 1, plain).await;
    }
}

/// The number in a counter's value.
fn number(kv: &KeyValue) -> u64 {
    let text = kv.value.as_str().unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

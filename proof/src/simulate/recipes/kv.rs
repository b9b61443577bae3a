//! The verbs of a client: what was acknowledged stays, what failed never was, what is read was there.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::TryStreamExt;
use quorate::{
    Client, Compare, Delete, Error, ErrorKind, Key, KeyRange, KeyValue, Op, OpResult, Put, Range,
    Result, Revision, Swap, Value,
};
use tokio::time::{sleep, timeout};

use self::book::{Book, Fate, Write};
use super::{Recipe, history::History};
use crate::simulate::{
    cut::cut_after,
    glance::{Begun, Pauses},
    scheduler::MachineId,
    world::{CALL, World, lock},
};

mod book;

/// What is counted by `update` alone.
const COUNTER: &str = "counter";

/// How many other keys there are.
const KEYS: u8 = 4;

/// The recipe, and what was written.
#[derive(Default)]
pub(crate) struct Kv {
    history: OnceLock<History>,
    book: Book,
    pauses: Mutex<Pauses>,
}

impl Recipe for Kv {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        self.history.get_or_init(|| History::new(&world.store));
        for client in 0..world.members.len() {
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    name: format!("{client}.{worker}"),
                    random: world.random(client, worker),
                    written: 0,
                };
                world.work(client, worker.run());
            }
        }
    }

    fn look(&self, world: &World) {
        lock(&self.pauses).look(world);
        // A compaction must not overtake the history.
        drop(self.history().now());
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.book.judge(&world, &self.history().now());
            self.count(&world);
            for member in &world.members {
                let all = member.client().range(KeyRange::all()).await;
                let past = self.history().now();
                let present = past.present(&KeyRange::all(), past.revision());
                if !matches!(&all, Ok(all) if all.kvs == present) {
                    world.broken("I8", format_args!("all is well, and what is read: {all:?}"));
                }
            }
            world.nothing_left().await;
        })
    }
}

impl Kv {
    fn history(&self) -> &History {
        self.history.get().expect("it is there from the start on")
    }

    /// Nobody counted from what was not the newest.
    fn count(&self, world: &World) {
        let past = self.history().now();
        for (number, kv) in past.values(&COUNTER.into()).enumerate() {
            if count(Some(kv)) != number + 1 {
                world.broken("I10", format_args!("the {number}th count is {}", kv.value));
            }
        }
    }
}

/// Writes and reads.
struct Worker {
    recipe: Arc<Kv>,
    world: Arc<World>,
    client: MachineId,
    name: String,
    random: fastrand::Rng,
    /// Makes every value another.
    written: u64,
}

impl Worker {
    async fn run(mut self) {
        let client = self.world.members[self.client].client();
        while self.world.storms() {
            match self.random.u8(..16) {
                0 | 1 => self.put(&client).await,
                2 | 3 => self.swap(&client).await,
                4..7 => self.update(&client).await,
                7 | 8 => self.transact(&client).await,
                9 => self.delete(&client).await,
                10 => self.read_past(&client).await,
                11 => self.read_pages(&client).await,
                _ => self.read(&client).await,
            }
            sleep(Duration::from_millis(self.random.u64(..400))).await;
        }
    }

    async fn put(&mut self, client: &Client) {
        let (key, value, since) = (self.key(), self.value(), self.now());
        let put = Put::new(&key, &value).prev_kv();
        let put = self.patiently(client.put_with(put)).await;
        let fate = self.fate(&put, |put| Fate::Done(put.revision));
        if let Some(Ok(put)) = &put {
            let before = put.revision.previous();
            self.stood(&key, before, put.prev.as_ref());
        }
        self.enter(key, vec![value], since, false, fate);
    }

    /// Writes on a condition of what was there.
    async fn swap(&mut self, client: &Client) {
        let (key, value) = (self.key(), self.value());
        let Some(Ok(found)) = self.patiently(client.get(&key)).await else {
            return;
        };
        let since = self.now();
        let swap = match (self.random.u8(..3), &found) {
            (0, _) => self.patiently(client.put_if_absent(&key, &value)).await,
            (1, _) => {
                let expected = found.as_ref().map_or(Revision::ZERO, |kv| kv.mod_revision);
                let put = client.put_if_revision(&key, expected, &value);
                let swap = self.patiently(put).await;
                self.swapped(&key, &swap, |kv| {
                    kv.map_or(Revision::ZERO, |kv| kv.mod_revision) == expected
                });
                swap
            }
            _ => {
                let expected = found.as_ref().map(|kv| kv.value.clone());
                let set = client.test_and_set(&key, expected.clone(), &value);
                let swap = self.patiently(set).await;
                self.swapped(&key, &swap, |kv| {
                    kv.map(|kv| &kv.value) == expected.as_ref()
                });
                swap
            }
        };
        if let Some(Ok(Swap::Refused(now))) = &swap {
            self.stood_since(&key, since, now.as_ref());
        }
        let fate = self.fate(&swap, |swap| match swap {
            Swap::Done(revision) => Fate::Done(*revision),
            Swap::Refused(_) => Fate::Never,
        });
        self.enter(key, vec![value], since, true, fate);
    }

    /// Whether a conditional write was done exactly where its condition held.
    fn swapped(
        &self,
        key: &Key,
        swap: &Option<Result<Swap>>,
        holds: impl Fn(Option<&KeyValue>) -> bool,
    ) {
        let right = match swap {
            Some(Ok(Swap::Done(revision))) => {
                let past = self.recipe.history().now();
                holds(past.get(key, revision.previous()))
            }
            Some(Ok(Swap::Refused(now))) => !holds(now.as_ref()),
            _ => true,
        };
        if !right {
            let what = format_args!("{key} was not as it was expected: {swap:?}");
            self.world.broken("I10", what);
        }
    }

    /// Counts by one.
    async fn update(&mut self, client: &Client) {
        let since = self.now();
        let (name, from) = (self.name.clone(), self.written);
        let mut values: Vec<Value> = Vec::new();
        let begun = Begun::now(&self.world, self.client);
        let update = client.update(COUNTER, |kv| {
            let nonce = from + values.len() as u64;
            let value = Value::from(format!("{} {name} {nonce}", count(kv) + 1));
            values.push(value.clone());
            Some(value)
        });
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..30));
        let patience = Duration::from_millis(self.random.u64(1..4000));
        let update = timeout(patience, cut_after(steps, update)).await;
        let update = update.ok().flatten();
        self.written += values.len() as u64;
        // A read, and the writes that were refused with a pause after each.
        let tries = values.len() as u32;
        self.bounded(begun, (1 + 2 * tries) * CALL, "to update");
        let fate = self.fate(&update, |done| done.map_or(Fate::Never, Fate::Done));
        self.enter(COUNTER.into(), values, since, true, fate);
    }

    /// Writes two keys at once if a third is as expected, and reads all.
    async fn transact(&mut self, client: &Client) {
        let (since, here, there) = (self.now(), self.value(), self.value());
        let all = KeyRange::prefix("k/");
        let guess = self
            .recipe
            .history()
            .now()
            .get(&"k/0".into(), since)
            .cloned();
        let condition = match &guess {
            Some(kv) if self.random.bool() => Compare::value("k/0").eq(&kv.value),
            _ => Compare::absent("k/0"),
        };
        let holds = {
            let absent = condition == Compare::absent("k/0");
            move |kv: Option<&KeyValue>| match kv {
                None => absent,
                Some(kv) => !absent && guess.is_some_and(|guess| guess.value == kv.value),
            }
        };
        let txn = (client.txn().when(condition))
            .then(Op::put("k/1", &here))
            .then(Op::put("k/2", &there))
            .then(Op::Range(Range::new(all.clone())))
            .or_else(Op::Range(Range::new(all.clone())));
        let done = self.patiently(txn.commit()).await;
        if let Some(Ok(done)) = &done {
            let at = done.header.revision;
            let past = self.recipe.history().now();
            let before = if done.succeeded { at.previous() } else { at };
            let read = done.results.last();
            let read_all =
                matches!(read, Some(OpResult::Range(read)) if read.kvs == past.present(&all, at));
            if holds(past.get(&"k/0".into(), before)) != done.succeeded || !read_all {
                let what = format_args!("a transaction does not fit into the history: {done:?}");
                self.world.broken("I10", what);
            }
        }
        let fate = self.fate(&done, |done| match done.succeeded {
            true => Fate::Done(done.header.revision),
            false => Fate::Never,
        });
        self.enter("k/1".into(), vec![here], since, false, fate);
        self.enter("k/2".into(), vec![there], since, false, fate);
    }

    async fn delete(&mut self, client: &Client) {
        let keys = match self.random.bool() {
            true => KeyRange::key(self.key()),
            false => KeyRange::between("k/1", "k/3"),
        };
        let since = self.now();
        let delete = Delete::new(keys.clone()).prev_kv();
        let deleted = self.patiently(client.delete_with(delete)).await;
        self.fate(&deleted, |_| Fate::Unknown);
        if let Some(Ok(deleted)) = deleted {
            let past = self.recipe.history().now();
            let there = past.present(&keys, deleted.revision.previous());
            let is_left = !past.present(&keys, deleted.revision).is_empty();
            let count = deleted.prevs.len() as u64;
            let wrong = deleted.deleted != count || (count > 0 && deleted.prevs != there);
            if wrong || is_left || deleted.revision < since {
                let what = format_args!("{keys} was not deleted: {deleted:?}");
                self.world.broken("I10", what);
            }
        }
    }

    async fn read(&mut self, client: &Client) {
        let since = self.now();
        if self.random.bool() {
            let key = self.key();
            let read = self.patiently(client.get(&key)).await;
            self.fate(&read, |_| Fate::Never);
            if let Some(Ok(read)) = read {
                self.stood_since(&key, since, read.as_ref());
            }
            return;
        }
        let all = KeyRange::prefix("k/");
        let mut range = Range::new(all.clone());
        let serializable = self.random.u8(..4) == 0;
        if serializable {
            range = range.serializable();
        }
        let read = self.patiently(client.range(range)).await;
        self.fate(&read, |_| Fate::Never);
        if let Some(Ok(read)) = read {
            let at = read.header.revision;
            self.world.count("reads");
            if !serializable && at < since {
                let what = format_args!("a read since {since} is answered at {at}");
                self.world.broken("I16", what);
            }
            self.all_stood(at, &read.kvs);
        }
    }

    async fn read_past(&mut self, client: &Client) {
        let key = self.key();
        let at = {
            let past = self.recipe.history().now();
            Revision(
                self.random
                    .i64((past.oldest().0 - 2).max(1)..=past.revision().0),
            )
        };
        match self.patiently(client.get_at(&key, at)).await {
            Some(Ok(read)) => self.stood(&key, at, read.as_ref()),
            Some(Err(error)) if error.kind() == ErrorKind::Compacted => {
                self.compacted(at);
            }
            other => drop(self.fate(&other, |_| Fate::Never)),
        }
    }

    async fn read_pages(&mut self, client: &Client) {
        let since = self.now();
        let pages = client.pages(Range::new(KeyRange::prefix("k/")).limit(1));
        let begun = Begun::now(&self.world, self.client);
        let pages: std::result::Result<Vec<_>, _> = pages.try_collect().await;
        self.bounded(begun, (u32::from(KEYS) + 1) * CALL, "to read all pages");
        match pages {
            Ok(pages) => {
                let at = pages.first().map_or(since, |page| page.header.revision);
                if at < since || pages.iter().any(|page| page.header.revision != at) {
                    let what = format_args!("pages since {since} are of {at}, or not all");
                    self.world.broken("I16", what);
                }
                let kvs: Vec<_> = pages.into_iter().flat_map(|page| page.kvs).collect();
                self.world.count("pages");
                self.all_stood(at, &kvs);
            }
            Err(error) if error.kind() == ErrorKind::Compacted => self.compacted(since),
            Err(error) => drop(self.fate(&Some(Err::<(), _>(error)), |()| Fate::Never)),
        }
    }

    /// Makes one call, which has to end in time, or is given up in the middle of it.
    async fn patiently<T>(&mut self, call: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        let begun = Begun::now(&self.world, self.client);
        let steps = (self.random.u8(..6) == 0).then(|| self.random.u32(1..8));
        let patience = match self.random.u8(..6) {
            0 => Duration::from_millis(self.random.u64(1..1000)),
            _ => 100 * CALL,
        };
        let ended = timeout(patience, cut_after(steps, call)).await;
        self.bounded(begun, CALL, "a call");
        ended.ok().flatten()
    }

    fn bounded(&self, begun: Begun, most: Duration, what: &str) {
        let pauses = lock(&self.recipe.pauses);
        pauses.bounded(&self.world, self.client, begun, most, what);
    }

    /// What became of a call, if it answered; the errors that there may be are few.
    fn fate<T>(&self, ended: &Option<Result<T>>, answered: impl FnOnce(&T) -> Fate) -> Fate {
        match ended {
            Some(Ok(answer)) => answered(answer),
            Some(Err(error)) => {
                let expected = [ErrorKind::Timeout, ErrorKind::Unavailable];
                if !expected.contains(&error.kind()) {
                    let what = format_args!("an error that nobody expects: {error}");
                    self.world.broken("I13", what);
                }
                match Error::is_indefinite(error) {
                    true => Fate::Unknown,
                    false => Fate::Never,
                }
            }
            None => Fate::Unknown,
        }
    }

    fn enter(&self, key: Key, values: Vec<Value>, since: Revision, conditional: bool, fate: Fate) {
        let write = Write {
            key,
            values,
            since,
            conditional,
            fate,
        };
        let past = self.recipe.history().now();
        self.recipe.book.enter(&self.world, &past, write);
    }

    fn stood(&self, key: &Key, at: Revision, read: Option<&KeyValue>) {
        let past = self.recipe.history().now();
        // What was there before a write may be compacted away.
        if past.get(key, at) != read && at >= past.oldest() {
            let what = format_args!("{key} was not so at {at}: {read:?}");
            self.world.broken("I10", what);
        }
    }

    fn all_stood(&self, at: Revision, read: &[KeyValue]) {
        let past = self.recipe.history().now();
        if past.present(&KeyRange::prefix("k/"), at) != read {
            let what = format_args!("the keys were not so at {at}: {read:?}");
            self.world.broken("I10", what);
        }
    }

    /// Whether a key stood so between the call and the answer.
    fn stood_since(&self, key: &Key, since: Revision, read: Option<&KeyValue>) {
        let past = self.recipe.history().now();
        let keys = KeyRange::key(key);
        let mut moments = past.moments(&keys, since, past.revision());
        if !moments.any(|at| past.get(key, at) == read) {
            let what = format_args!("{key} was not so since {since}: {read:?}");
            self.world.broken("I16", what);
        }
        self.world.count("reads");
    }

    fn compacted(&self, at: Revision) {
        let oldest = self.recipe.history().now().oldest();
        if at >= oldest {
            let what = format_args!("{at} is not compacted: {oldest} is");
            self.world.broken("I13", what);
        }
    }

    fn now(&self) -> Revision {
        self.world.store.revision()
    }

    fn key(&mut self) -> Key {
        format!("k/{}", self.random.u8(..KEYS)).into()
    }

    fn value(&mut self) -> Value {
        self.written += 1;
        format!("{} {}", self.name, self.written).into()
    }
}

/// What the counter says.
fn count(kv: Option<&KeyValue>) -> usize {
    let text = kv.and_then(|kv| kv.value.as_str()?.split(' ').next());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

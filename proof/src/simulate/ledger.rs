//! A ledger that only holders write, under their fence: every entry is one more than the former, by who
//! holds at that moment.

use std::{fmt, sync::Mutex, time::Duration};

use quorate::{Client, Compare, Error, Event, KeyRange, Op, OpResult, Range, Revision};
use tokio::time::sleep;

use super::{
    glance::Log,
    line::Line,
    world::{World, lock},
};

const LEDGER: &str = "ledger";

/// The ledger of the holders of a name.
pub(crate) struct Ledger(Mutex<Books>);

struct Books {
    /// Of the ledger and of the queue, in one order.
    log: Log,
    line: Line,
    last: Option<Entry>,
}

/// A line of the ledger: one more than the former, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    count: u64,
    token: Revision,
    /// Tells writes apart.
    nonce: u64,
}

/// What became of an attempt to write.
#[derive(Debug)]
pub(crate) enum Attempt {
    Written,
    /// The fence held it off.
    Refused,
    /// It may still arrive: there must not be another by the same holder.
    Unclear(Error),
    Failed(Error),
}

impl Ledger {
    pub(crate) fn new(name: &'static str) -> Self {
        Self(Mutex::new(Books {
            log: Log::new(KeyRange::all()),
            line: Line::new(name),
            last: None,
        }))
    }

    /// Reads what was written. To be called after every step.
    pub(crate) fn look(&self, world: &World) {
        lock(&self.0).look(world);
    }

    /// Asks something of those who stand in the queue now.
    pub(crate) fn ask<T>(&self, world: &World, question: impl FnOnce(&Line) -> T) -> T {
        let mut books = lock(&self.0);
        books.look(world);
        question(&books.line)
    }

    /// Reads the ledger and writes one more, with nothing but the fence against others.
    pub(crate) async fn write(
        &self,
        client: &Client,
        random: &mut fastrand::Rng,
        token: Revision,
        fence: Compare,
    ) -> Attempt {
        let read = client
            .txn()
            .when(fence.clone())
            .then(Op::Range(Range::new(LEDGER)));
        let read = match read.commit().await {
            Ok(read) => read,
            Err(error) => return Attempt::Failed(error),
        };
        if !read.succeeded {
            return Attempt::Refused;
        }
        let before = match read.results.first() {
            Some(OpResult::Range(range)) => range.kvs.first(),
            _ => None,
        };
        let before = before.and_then(|kv| Entry::parse(kv.value.as_str()?));
        sleep(Duration::from_millis(random.u64(..100))).await;
        let entry = Entry {
            count: before.map_or(0, |before| before.count) + 1,
            token,
            nonce: random.u64(..),
        };
        let write = client.txn().when(fence);
        match write
            .then(Op::put(LEDGER, entry.to_string()))
            .commit()
            .await
        {
            Ok(written) if written.succeeded => Attempt::Written,
            Ok(_) => Attempt::Refused,
            Err(error) if error.is_indefinite() => Attempt::Unclear(error),
            Err(error) => Attempt::Failed(error),
        }
    }
}

impl Books {
    fn look(&mut self, world: &World) {
        for event in self.log.look(world) {
            match &event {
                Event::Put { kv, .. } if kv.key == LEDGER => {
                    if let Some(entry) = kv.value.as_str().and_then(Entry::parse) {
                        self.written(world, entry);
                    }
                }
                _ => self.line.apply(&event),
            }
        }
    }

    fn written(&mut self, world: &World, entry: Entry) {
        let before = self.last.replace(entry);
        let count = before.map_or(0, |before| before.count);
        let doubled = before == Some(entry) && world.schedule.doubles();
        if entry.count != count + 1 && !doubled {
            let what = format_args!("{entry:?} was written after {before:?}");
            world.broken("I17", what);
        }
        let first = self.line.first();
        if first != Some(entry.token) {
            let what = format_args!("{entry:?} was written when {first:?} was first");
            world.broken("I2", what);
        }
    }
}

impl Attempt {
    /// Counts it, and tells whether there may be another by the same holder.
    pub(crate) fn count(&self, world: &World) -> bool {
        match self {
            Self::Written => world.count("written"),
            Self::Refused => world.count("refused writes"),
            Self::Unclear(error) | Self::Failed(error) => {
                if !error.is_retryable() {
                    world.broken("I13", format_args!("an error that nobody expects: {error}"));
                }
            }
        }
        !matches!(self, Self::Unclear(_))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ');
        Some(Self {
            count: numbers.next()?.parse().ok()?,
            token: Revision(numbers.next()?.parse().ok()?),
            nonce: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.count, self.token.0, self.nonce)
    }
}

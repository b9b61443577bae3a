//! The fair queue of a name, which locks and elections share: contenders in the order in which they
//! came, each waiting for the one before it.
//!
//! A contender of `NAME` is the key `NAME/<lease>` or `NAME/<lease>-<n>`, both numbers as etcd's own
//! tools write them: the lease in hexadecimal. The one with the lowest create revision holds.

use std::pin::pin;

use futures_util::future::{Either, select};

use crate::{
    Compare, Error, ErrorKind, Key, KeyRange, KeyValue, LeaseId, Loss, Op, OpResult, Order, Put,
    Range, RangeResult, Result, Revision, Session, SortBy, Txn, TxnResult, Value, WatchRequest,
    claim::Claim,
    link::Link,
    mutant::{Mutant, planted},
    owner::{Created, Creation},
    retry::Backoff,
    watch::{Feed, Resume, Signal},
};

/// The queue of one name.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    link: Link,
    name: Key,
}

/// Somebody who stands in the queue of a lock or an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Its key.
    pub key: Key,
    /// The create revision of its key: its place in the queue, and its token once it holds.
    pub token: Revision,
    /// The lease that its key lives by.
    pub lease: Option<LeaseId>,
    /// What it says of itself: for a lock who it is, for an election the value it campaigns with.
    pub value: Value,
}

/// What is looked for before us.
#[derive(Clone, Copy)]
enum Sought<'a> {
    /// This one, which was the nearest: if it stands, nobody else matters. etcd has a key at hand, but
    /// reads the whole queue to find its last.
    Known(&'a Contender),
    /// The nearest key, which may be no contender.
    Nearest,
    /// All keys.
    All,
}

/// What a look at the queue showed of our place.
enum Place {
    /// Nobody is before us.
    First,
    /// Somebody is; this is the nearest.
    Behind(Contender),
}

impl Queue {
    pub(crate) fn new(link: &Link, name: Key) -> Self {
        Self {
            link: link.clone(),
            name,
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn name(&self) -> &Key {
        &self.name
    }

    /// The keys under which contenders, and others, are found.
    pub(crate) fn range(&self) -> KeyRange {
        KeyRange::prefix(self.prefix())
    }

    fn prefix(&self) -> Vec<u8> {
        [&self.name[..], b"/"].concat()
    }

    /// The contenders, the holder first.
    pub(crate) async fn contenders(&self) -> Result<Vec<Contender>> {
        let range = Range::new(self.range()).order(SortBy::CreateRevision, Order::Ascending);
        Ok(self.select(self.link.range(range).await?))
    }

    /// Those keys of an answer that are contenders, in the order of the answer.
    pub(crate) fn select(&self, range: RangeResult) -> Vec<Contender> {
        range
            .kvs
            .into_iter()
            .filter_map(|kv| self.contender(kv))
            .collect()
    }

    /// The contender that a key is, if it is one.
    pub(crate) fn contender(&self, kv: KeyValue) -> Option<Contender> {
        let rest = kv.key.strip_prefix(&self.name[..])?.strip_prefix(b"/")?;
        is_contender(rest).then(|| Contender {
            token: kv.create_revision,
            lease: kv.lease,
            value: kv.value,
            key: kv.key,
        })
    }

    /// Waits until we hold, with a [new key](Queue::new_key). If the future is dropped we leave the
    /// queue.
    pub(crate) async fn acquire(&self, session: &Session, key: Key, value: Value) -> Result<Claim> {
        let (claim, place) = self.enter(session, key, value).await?;
        self.wait(&claim, place).await?;
        Ok(claim)
    }

    /// The key of who holds by this token; `None` if nobody does, or waits by it.
    pub(crate) async fn holder(&self, token: Revision) -> Result<Option<KeyValue>> {
        self.check_name()?;
        if token <= Revision::ZERO {
            return Ok(None);
        }
        // Nobody older can come any more.
        let range = Range::new(self.range())
            .max_create_revision(token)
            .order(SortBy::CreateRevision, Order::Ascending);
        let kvs = self.link.range(range).await?.kvs;
        let first = kvs
            .into_iter()
            .find(|kv| self.contender(kv.clone()).is_some());
        Ok(first.filter(|kv| kv.create_revision == token))
    }

    /// Holds if nobody else does, without waiting.
    pub(crate) async fn try_acquire(
        &self,
        session: &Session,
        value: Value,
    ) -> Result<Option<Claim>> {
        self.check_name()?;
        let give_up = self.link.runtime().now() + self.link.settings().call_timeout;
        let key = self.new_key(session);
        let txn = Txn::new()
            .when(Compare::absent(self.range()))
            .then(Put::new(&key, value.clone()).lease(session.lease()))
            .or_else(Op::range(&key))
            .or_else(Range::new(self.range()).keys_only());
        let creation = Creation {
            link: self.link.clone(),
            session: session.clone(),
            key,
            txn,
            give_up: Some(give_up),
        };
        let claim = match creation.run().await? {
            // Nothing at all was there: we are first.
            Created::Made {
                claim,
                answer: Some(_),
            } => return held(claim).map(Some),
            Created::Made {
                claim,
                answer: None,
            } => claim,
            Created::Refused(answer) => {
                if !self.nth_range(answer, 1)?.is_empty() {
                    return Ok(None);
                }
                // What is there are no contenders: they cannot be told apart by a condition, so
                // queue up, and leave again if somebody was quicker.
                self.enter(session, self.new_key(session), value).await?.0
            }
        };
        match self.look(&claim, Sought::Nearest, claim.token()).await? {
            Place::First => held(claim).map(Some),
            Place::Behind(_) => {
                // A failure to leave is no failure to try: our task goes on leaving, and the end of the session
                // is the end of the key.
                let leave = pin!(claim.release(&self.link));
                let _ = select(leave, pin!(session.lost_by_signal())).await;
                Ok(None)
            }
        }
    }

    /// Joins the queue. What the answer showed of our place is told, if it came.
    async fn enter(
        &self,
        session: &Session,
        key: Key,
        value: Value,
    ) -> Result<(Claim, Option<Place>)> {
        self.check_name()?;
        // The two newest keys: ours, and the one before it.
        let newest = Range::new(self.range())
            .order(SortBy::CreateRevision, Order::Descending)
            .limit(2);
        let txn = Txn::new()
            .when(Compare::absent(&key))
            .then(Put::new(&key, value).lease(session.lease()))
            .then(newest)
            .or_else(Op::range(&key));
        let creation = Creation {
            link: self.link.clone(),
            session: session.clone(),
            key,
            txn,
            give_up: None,
        };
        match creation.run().await? {
            Created::Made { claim, answer } => {
                let place = answer.and_then(|answer| self.place_of(&claim, answer));
                Ok((claim, place))
            }
            Created::Refused(_) => {
                let message = format!("a key of our own under {} is not ours", self.name);
                Err(Error::new(ErrorKind::Internal, message))
            }
        }
    }

    /// Our place at the revision that made our key, if the answer tells.
    fn place_of(&self, claim: &Claim, answer: TxnResult) -> Option<Place> {
        let Some(OpResult::Range(newest)) = answer.results.into_iter().nth(1) else {
            return None;
        };
        let total = newest.count;
        let before = newest
            .kvs
            .into_iter()
            .find(|kv| kv.create_revision < claim.token());
        match before {
            None if total == 1 => Some(Place::First),
            None => None,
            // If this is no contender there may be one behind it.
            Some(kv) => self.contender(kv).map(Place::Behind),
        }
    }

    /// Waits until nobody is before us.
    async fn wait(&self, claim: &Claim, place: Option<Place>) -> Result<()> {
        let mut place = match place {
            Some(place) => place,
            None => self.look(claim, Sought::Nearest, claim.token()).await?,
        };
        while let Place::Behind(before) = place {
            place = self.wait_for(claim, before).await?;
        }
        claim.check()
    }

    /// Waits until `before` is gone, and tells who is before us then.
    ///
    /// The watch begins at the present, since etcd serves such a one at once; so after each time that
    /// it was opened we look for ourselves, at a state not older than that.
    async fn wait_for(&self, claim: &Claim, before: Contender) -> Result<Place> {
        let request = WatchRequest::new(&before.key).deletes_only();
        let mut feed = Feed::new(&self.link, request, Resume::FromNow);
        let mut not_before = claim.token();
        let lost = claim.lost();
        loop {
            let signal = match select(lost.clone(), Box::pin(feed.next())).await {
                Either::Left((loss, _)) => return Err(Error::lost(loss, claim.key())),
                Either::Right((signal, _)) => signal?,
            };
            let (sought, seen) = match signal {
                Signal::Broken => continue,
                Signal::Opened(header) => (Sought::Known(&before), header.revision),
                Signal::Batch(batch) => {
                    let last = batch.events.last();
                    let seen = last.map_or(Revision::ZERO, |event| event.revision());
                    (Sought::Nearest, seen)
                }
            };
            not_before = not_before.max(seen);
            match self.look(claim, sought, not_before).await? {
                Place::Behind(still) if still.token == before.token && still.key == before.key => {}
                place => return Ok(place),
            }
        }
    }

    /// Looks who is before us, at a revision not below `not_before`; and that we still stand
    /// ourselves, in the same answer.
    ///
    /// A member's own store will do if it is not older than that: nothing older than us can ever come
    /// back, so if nobody is before us at some revision, nobody is at any later one.
    async fn look(
        &self,
        claim: &Claim,
        mut sought: Sought<'_>,
        not_before: Revision,
    ) -> Result<Place> {
        let mut backoff = Backoff::new(self.link.runtime());
        let mut serializable = true;
        let lost = claim.lost();
        loop {
            let txn = self.question(claim, sought, serializable);
            // The loss comes first, or a store that refuses at once would never let it be seen.
            let answer = match select(lost.clone(), Box::pin(self.link.txn(txn))).await {
                Either::Left((loss, _)) => return Err(Error::lost(loss, claim.key())),
                Either::Right((answer, _)) => answer,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if error.is_retryable() => {
                    select(Box::pin(backoff.pause()), lost.clone()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if answer.header.revision < not_before {
                if !serializable {
                    let message = format!("the store went back behind revision {not_before}");
                    return Err(Error::new(ErrorKind::ClusterChanged, message));
                }
                // What such an answer lacks may just not have reached that member.
                serializable = false;
                continue;
            }
            let mut results = answer.results.into_iter();
            let (Some(OpResult::Range(own)), Some(OpResult::Range(older))) =
                (results.next(), results.next())
            else {
                let message = "the answer to a transaction of two reads is of another kind";
                return Err(Error::new(ErrorKind::Internal, message));
            };
            match own.kvs.first() {
                Some(kv) if kv.create_revision == claim.token() => {}
                _ if planted(Mutant::OwnKeyNotVerified) => {}
                other => {
                    claim.lose(if other.is_some() {
                        Loss::Replaced
                    } else {
                        Loss::Deleted
                    });
                    claim.check()?;
                }
            }
            let others = older.kvs.len();
            let nearest = self.select(older).into_iter().next();
            sought = match (sought, nearest) {
                // A key of its name that came later is another's.
                (Sought::Known(known), Some(found)) if found.token != known.token => {
                    Sought::Nearest
                }
                (Sought::Known(_), None) => Sought::Nearest,
                (_, Some(before)) => return Ok(Place::Behind(before)),
                (Sought::Nearest, None) if others > 0 => Sought::All,
                (Sought::Nearest | Sought::All, None) => return Ok(Place::First),
            };
        }
    }

    /// Reads our own key, and what is sought before it, the nearest first.
    fn question(&self, claim: &Claim, sought: Sought<'_>, serializable: bool) -> Txn {
        let before = |limit| {
            Range::new(self.range())
                .max_create_revision(claim.token().previous())
                .order(SortBy::CreateRevision, Order::Descending)
                .limit(limit)
        };
        let mut own = Range::new(claim.key()).keys_only();
        let older = match sought {
            Sought::Known(known) => Range::new(&known.key),
            Sought::Nearest => before(1),
            Sought::All => before(0),
        };
        let mut older = older.keys_only();
        own.serializable = serializable;
        older.serializable = serializable;
        Txn::new().then(own).then(older)
    }

    fn nth_range(&self, answer: TxnResult, nth: usize) -> Result<Vec<Contender>> {
        match answer.results.into_iter().nth(nth) {
            Some(OpResult::Range(range)) => Ok(self.select(range)),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "the answer to a read is of another kind",
            )),
        }
    }

    /// A key that nobody has had, for one place in the queue.
    pub(crate) fn new_key(&self, session: &Session) -> Key {
        let own = format!("{}-{}", session.lease(), session.next_key());
        [&self.prefix()[..], own.as_bytes()].concat().into()
    }

    fn check_name(&self) -> Result<()> {
        if self.name.is_empty() {
            let message = "a lock or an election needs a name that is not empty";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }
}

/// The claim, unless it was lost on the way.
fn held(claim: Claim) -> Result<Claim> {
    claim.check()?;
    Ok(claim)
}

/// Whether what follows `NAME/` is a lease in hexadecimal, with or without a number.
pub(crate) fn is_contender(rest: &[u8]) -> bool {
    let is_hex = |text: &[u8]| {
        !text.is_empty()
            && text
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    match rest.iter().position(|&byte| byte == b'-') {
        None => is_hex(rest),
        Some(dash) => is_hex(&rest[..dash]) && is_number(&rest[dash + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_is_a_lease_with_or_without_a_number() {
        for rest in ["694d7", "0", "694d7-0", "ff-12"] {
            assert!(is_contender(rest.as_bytes()), "{rest}");
        }
        for rest in [
            "",
            "-",
            "x",
            "694d7-",
            "694d7-a",
            "b/694d7",
            "694d7-1-2",
            "FF",
        ] {
            assert!(!is_contender(rest.as_bytes()), "{rest}");
        }
    }
}

//! The key-value verbs of a client.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::{Stream, stream::BoxStream};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    Client, Compare, Delete, Error, ErrorKind, Key, KeyRange, KeyValue, Op, OpResult, Put, Range,
    RangeResult, Result, Revision, Txn, TxnResult, Value, link::Link, retry::Backoff,
};

/// How many keys a page holds.
const PAGE: i64 = 1000;

/// Reading and writing keys. Keys and values are bytes; text is the common case.
///
/// Every call here ends by the client's deadline, 5 s unless the connection says otherwise. A read that
/// fails did nothing and may be repeated. A write that fails with an error that [is
/// indefinite](Error::is_indefinite) may have happened: nothing here repeats it.
///
/// # Cancel safety
///
/// If a future is dropped its write may or may not happen.
impl Client {
    /// Reads one key; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) or [`Unavailable`](ErrorKind::Unavailable) if no member answered,
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) and its kin where users authenticate.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<KeyValue>> {
        Ok(self.range(KeyRange::key(key)).await?.kvs.into_iter().next())
    }

    /// Reads one key as it stood at `revision`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; also [`Compacted`](ErrorKind::Compacted) if that revision is kept no more.
    pub async fn get_at(
        &self,
        key: impl Into<Key>,
        revision: Revision,
    ) -> Result<Option<KeyValue>> {
        Ok(self
            .range(Range::new(KeyRange::key(key)).revision(revision))
            .await?
            .kvs
            .pop())
    }

    /// Reads keys in one answer: one key, a range, or any [`Range`] for order, limits and bounds.
    /// For what may be large, [`Client::pages`] is better.
    ///
    /// # Errors
    ///
    /// As [`Client::get_at`].
    pub async fn range(&self, range: impl Into<Range>) -> Result<RangeResult> {
        self.link().range(range.into()).await
    }

    /// Reads every key that begins with `prefix`, all at one revision, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn list(&self, prefix: impl Into<Key>) -> Result<Vec<KeyValue>> {
        let pages: Vec<_> = self.pages(KeyRange::prefix(prefix)).try_collect().await?;
        Ok(pages.into_iter().flat_map(|page| page.kvs).collect())
    }

    /// Reads a range page by page, in the order of the keys, all at the revision of the first page.
    /// Each page's header holds the revision that the whole list shows.
    ///
    /// A limit in the range is the size of a page, 1,000 keys if none is given. The stream ends after
    /// an error.
    ///
    /// # Errors
    ///
    /// As [`Client::get_at`]; also [`InvalidArgument`](ErrorKind::InvalidArgument) for a range with an
    /// order, which pages cannot keep.
    pub fn pages(&self, range: impl Into<Range>) -> Pages {
        let mut range = range.into();
        if range.limit <= 0 {
            range.limit = PAGE;
        }
        let link = self.link().clone();
        let pages = stream::unfold(Some((link, range)), |state| async {
            let (link, range) = state?;
            match page(&link, range).await {
                Ok((page, next)) => Some((Ok(page), next.map(|range| (link, range)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Pages(pages.boxed())
    }

    /// Counts the keys of a range.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn count(&self, keys: impl Into<KeyRange>) -> Result<u64> {
        let count = self.range(Range::new(keys).count_only()).await?.count;
        Ok(count.unsigned_abs())
    }

    /// Writes a key, and returns the revision of the write.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; the error may be [indefinite](Error::is_indefinite).
    pub async fn put(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<Revision> {
        Ok(self.put_with(Put::new(key, value)).await?.revision)
    }

    /// Writes a key as the [`Put`] says: with a lease, keeping the value or the lease, returning what
    /// was there before.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]; also [`NotFound`](ErrorKind::NotFound) for a lease that does not exist, and
    /// for a key that should keep its value or lease and does not exist.
    pub async fn put_with(&self, put: Put) -> Result<PutResult> {
        let result = self.link().txn(Txn::new().then(put)).await?;
        let Some(OpResult::Put { prev }) = result.results.into_iter().next() else {
            return Err(unexpected("a put"));
        };
        Ok(PutResult {
            revision: result.header.revision,
            prev,
        })
    }

    /// Deletes one key or a range, and returns how many keys there were. None is not an error.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn delete(&self, keys: impl Into<KeyRange>) -> Result<u64> {
        Ok(self.delete_with(Delete::new(keys)).await?.deleted)
    }

    /// Deletes as the [`Delete`] says, returning what was there before if that is asked for.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn delete_with(&self, delete: Delete) -> Result<DeleteResult> {
        let result = self.link().txn(Txn::new().then(delete)).await?;
        match result.results.into_iter().next() {
            Some(OpResult::Delete { deleted, prevs }) => Ok(DeleteResult {
                revision: result.header.revision,
                deleted: deleted.unsigned_abs(),
                prevs,
            }),
            _ => Err(unexpected("a deletion")),
        }
    }

    /// Writes a key only if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]. That the key exists is not an error, but [`Swap::Refused`].
    pub async fn put_if_absent(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
    ) -> Result<Swap> {
        let key = key.into();
        self.swap(Compare::absent(&key), Put::new(key, value)).await
    }

    /// Writes a key only if it was last written at `expected`: only if nobody wrote it since it was
    /// read. [`Revision::ZERO`] expects that it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]. Another revision is not an error, but [`Swap::Refused`].
    pub async fn put_if_revision(
        &self,
        key: impl Into<Key>,
        expected: Revision,
        value: impl Into<Value>,
    ) -> Result<Swap> {
        let key = key.into();
        self.swap(
            Compare::mod_revision(&key).eq(expected),
            Put::new(key, value),
        )
        .await
    }

    /// Test-and-set: writes a key only if its value is `expected`.
    ///
    /// `None` expects that the key does not exist, which is not the same as an empty value:
    /// `test_and_set(key, Some(""), value)` fails where there is no key.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]. Another value is not an error, but [`Swap::Refused`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// assert!(client.test_and_set("mode", None::<&str>, "on").await?.is_done());
    /// assert!(!client.test_and_set("mode", Some("off"), "idle").await?.is_done());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn test_and_set(
        &self,
        key: impl Into<Key>,
        expected: Option<impl Into<Value>>,
        value: impl Into<Value>,
    ) -> Result<Swap> {
        let key = key.into();
        let compare = match expected {
            Some(expected) => Compare::value(&key).eq(expected),
            None => Compare::absent(&key),
        };
        self.swap(compare, Put::new(key, value)).await
    }

    /// Reads a key, lets `change` make its new value, and writes that only if nobody wrote meanwhile;
    /// else it begins again. `change` is given what is there now, and returns `None` to leave it.
    ///
    /// Returns the revision of the write, or `None` if `change` left the key alone.
    ///
    /// # Errors
    ///
    /// As [`Client::put`]. An indefinite error is not repeated: the change may be in place.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the last write may or may not happen.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// client
    ///     .update("visits", |now| {
    ///         let count: u64 = now.and_then(|kv| kv.value.as_str()?.parse().ok()).unwrap_or(0);
    ///         Some((count + 1).to_string())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update<V: Into<Value>>(
        &self,
        key: impl Into<Key>,
        mut change: impl FnMut(Option<&KeyValue>) -> Option<V>,
    ) -> Result<Option<Revision>> {
        let key = key.into();
        let mut present = self.get(&key).await?;
        let mut backoff = Backoff::new(self.link().runtime());
        loop {
            let Some(value) = change(present.as_ref()) else {
                return Ok(None);
            };
            let expected = present
                .as_ref()
                .map_or(Revision::ZERO, |kv| kv.mod_revision);
            match self.put_if_revision(&key, expected, value).await? {
                Swap::Done(revision) => return Ok(Some(revision)),
                Swap::Refused(now) => present = now,
            }
            backoff.pause().await;
        }
    }

    /// Begins a transaction: conditions, then operations that are applied all at one revision.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Compare, Op};
    ///
    /// # let client = quorate::Client::connect("mem:").await?;
    /// let done = client
    ///     .txn()
    ///     .when(Compare::value("stock").gt("0"))
    ///     .then(Op::put("stock", "0"))
    ///     .or_else(Op::put("sold-out", "yes"))
    ///     .commit()
    ///     .await?;
    /// assert!(!done.succeeded); // a key that is absent has no value to compare
    /// # Ok(())
    /// # }
    /// ```
    pub fn txn(&self) -> Transaction {
        Transaction {
            link: self.link().clone(),
            txn: Txn::new(),
        }
    }

    async fn swap(&self, compare: Compare, put: Put) -> Result<Swap> {
        let read = Op::range(&put.key);
        let result = self
            .link()
            .txn(Txn::new().when(compare).then(put).or_else(read))
            .await?;
        if result.succeeded {
            return Ok(Swap::Done(result.header.revision));
        }
        match result.results.into_iter().next() {
            Some(OpResult::Range(range)) => Ok(Swap::Refused(range.kvs.into_iter().next())),
            _ => Err(unexpected("a conditional put")),
        }
    }
}

/// Reads one page, and tells which range is left.
pub(crate) async fn page(link: &Link, range: Range) -> Result<(RangeResult, Option<Range>)> {
    if range.order.is_some() {
        let message = "pages come in the order of the keys: drop the order, or read in one range";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut result = link.range(range.clone()).await?;
    let revision = match range.revision {
        Revision::ZERO => result.header.revision,
        pinned => pinned,
    };
    // The later pages' headers tell how far the store is by then; what the list shows is this.
    result.header.revision = revision;
    let next = match result.kvs.last() {
        Some(last) if result.more => {
            let mut rest = range;
            let after: Vec<u8> = last.key.iter().copied().chain([0]).collect();
            rest.keys.start = after.into();
            rest.revision = revision;
            Some(rest)
        }
        _ => None,
    };
    Ok((result, next))
}

/// The pages of a range; see [`Client::pages`]. Lazy: a page is read when it is asked for.
#[must_use = "pages are read only when they are polled"]
pub struct Pages(BoxStream<'static, Result<RangeResult>>);

impl Stream for Pages {
    type Item = Result<RangeResult>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// The revision of the write.
    pub revision: Revision,
    /// The key as it stood before, if asked for and there was one.
    pub prev: Option<KeyValue>,
}

/// What a deletion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResult {
    /// The revision of the store after it.
    pub revision: Revision,
    /// How many keys were deleted.
    pub deleted: u64,
    /// The keys as they stood before, if asked for.
    pub prevs: Vec<KeyValue>,
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conditional write may be refused"]
pub enum Swap {
    /// It was done, at this revision.
    Done(Revision),
    /// The condition did not hold: this is what is there.
    Refused(Option<KeyValue>),
}

impl Swap {
    /// Whether the write was done.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// A transaction that is being put together; see [`Client::txn`].
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    link: Link,
    txn: Txn,
}

impl Transaction {
    /// Adds a condition. Without any, the transaction succeeds.
    pub fn when(mut self, compare: Compare) -> Self {
        self.txn = self.txn.when(compare);
        self
    }

    /// Adds an operation for when all conditions hold.
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.txn = self.txn.then(op);
        self
    }

    /// Adds an operation for when a condition does not hold.
    pub fn or_else(mut self, op: impl Into<Op>) -> Self {
        self.txn = self.txn.or_else(op);
        self
    }

    /// Applies it.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) before anything is sent for what etcd would
    /// refuse (more than 128 entries in one list, a key written twice) and for a read at a past
    /// revision, which can make the members of some etcd versions disagree. Otherwise as
    /// [`Client::put`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the transaction may or may not happen, as a whole.
    pub async fn commit(self) -> Result<TxnResult> {
        self.txn.check()?;
        refuse(&self.txn)?;
        self.link.txn(self.txn).await
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.txn.fmt(f)
    }
}

/// Refuses what etcd would not, though it should not be sent.
fn refuse(txn: &Txn) -> Result<()> {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) if range.revision != Revision::ZERO => {
                let message = "a read within a transaction cannot name a revision: read before it";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            Op::Txn(inner) => refuse(inner)?,
            Op::Delete(_) | Op::Put(_) | Op::Range(_) => {}
        }
    }
    Ok(())
}

fn unexpected(to: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the answer to {to} is of another kind"),
    )
}

//! Values in etcd under a fence: no update is lost, even if two believe to hold.

use crate::{
    Compare, Error, ErrorKind, Key, KeyValue, Op, OpResult, Result, Revision, Txn, Value,
    link::Link, retry::Backoff,
};

/// A value in etcd that is read and written only under the fence of a guard.
///
/// Each call is one transaction on the condition that the guard's key still stands. That condition is
/// the seal as well: once the next holder's key is the oldest, ours is gone, and nothing of ours can
/// come in between its reading and its writing. What was read under an earlier guard must not be
/// written under a later one; so the value is bound to its guard's fence, and cannot be moved.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> quorate::Result<()> {
/// use quorate::{Client, ErrorKind};
///
/// let client = Client::connect("mem:").await?;
/// let guard = client.lock("jobs").acquire().await?;
/// let next = guard.fenced("jobs/next");
/// next.set("1").await?;
/// next.update(|now| {
///     let number: u64 = now.and_then(|kv| kv.value.as_str()?.parse().ok()).unwrap_or(0);
///     (number + 1).to_string()
/// })
/// .await?;
/// guard.release().await?;
/// assert_eq!(next.set("9").await.unwrap_err().kind(), ErrorKind::Lost);
/// assert_eq!(client.get("jobs/next").await?.expect("it was set").value, "2");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Fenced {
    link: Link,
    fence: Compare,
    key: Key,
}

impl Fenced {
    pub(crate) fn new(link: &Link, fence: Compare, key: Key) -> Self {
        Self {
            link: link.clone(),
            fence,
            key,
        }
    }

    /// Reads the value; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if the guard's key stands no more; otherwise as
    /// [`Client::get`](crate::Client::get).
    pub async fn get(&self) -> Result<Option<KeyValue>> {
        let answer = self
            .link
            .txn(self.under_fence(Op::range(&self.key)))
            .await?;
        if !answer.succeeded {
            return Err(self.lost());
        }
        match answer.results.into_iter().next() {
            Some(OpResult::Range(range)) => Ok(range.kvs.into_iter().next()),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "the answer to a read is of another kind",
            )),
        }
    }

    /// Writes the value, and returns the revision of the write.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if the guard's key stands no more: nothing was written. Otherwise as
    /// [`Client::put`](crate::Client::put).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the write may or may not happen, but never after the guard's key is
    /// gone.
    pub async fn set(&self, value: impl Into<Value>) -> Result<Revision> {
        self.write(Op::put(&self.key, value)).await
    }

    /// Deletes the value, and returns the revision of the store after it.
    ///
    /// # Errors
    ///
    /// As [`Fenced::set`].
    pub async fn delete(&self) -> Result<Revision> {
        self.write(Op::delete(&self.key)).await
    }

    /// Reads the value and writes what `change` makes of it. Who writes the key without the fence is
    /// not overwritten: then this begins again.
    ///
    /// # Errors
    ///
    /// As [`Fenced::set`].
    pub async fn update<V: Into<Value>>(
        &self,
        mut change: impl FnMut(Option<&KeyValue>) -> V,
    ) -> Result<Revision> {
        let mut backoff = Backoff::new(self.link.runtime());
        loop {
            let present = self.get().await?;
            let value = change(present.as_ref());
            let expected = present.map_or(Revision::ZERO, |kv| kv.mod_revision);
            let txn = Txn::new()
                .when(self.fence.clone())
                .when(Compare::mod_revision(&self.key).eq(expected))
                .then(Op::put(&self.key, value));
            let answer = self.link.txn(txn).await?;
            if answer.succeeded {
                return Ok(answer.header.revision);
            }
            backoff.pause().await;
        }
    }

    async fn write(&self, op: Op) -> Result<Revision> {
        let answer = self.link.txn(self.under_fence(op)).await?;
        if answer.succeeded {
            Ok(answer.header.revision)
        } else {
            Err(self.lost())
        }
    }

    fn under_fence(&self, op: Op) -> Txn {
        Txn::new().when(self.fence.clone()).then(op)
    }

    fn lost(&self) -> Error {
        let message = format!("{} is not ours to touch: the guard's key is gone", self.key);
        Error::new(ErrorKind::Lost, message)
    }
}

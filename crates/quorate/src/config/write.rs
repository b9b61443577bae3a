//! How a document is written: checked as it is before it is taken over.

use serde::{Serialize, de::DeserializeOwned};

use super::{Config, Rejection};
use crate::{Error, ErrorKind, KeyValue, Result, Revision};

impl<T> Config<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Writes a value, whatever is there, and returns the revision of the write.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a value that the validator refuses, or that
    /// the format cannot express so that it can be read; otherwise as
    /// [`Client::put`](crate::Client::put).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the write may or may not happen.
    pub async fn set(&self, value: &T) -> Result<Revision> {
        let document = self.encode(value)?;
        self.client.put(&self.name, document).await
    }

    /// Reads the value, lets `change` change it, and writes it only if nobody wrote meanwhile; else
    /// begins again. Returns the revision of the write, or of what is there if nothing was changed.
    ///
    /// The new document is made from the value: comments, and fields that the type does not know, are
    /// not in it.
    ///
    /// # Errors
    ///
    /// As [`Config::get`] and [`Config::set`]. An [indefinite](Error::is_indefinite) error is not
    /// repeated: the change may be in place.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the last write may or may not happen.
    pub async fn update(&self, mut change: impl FnMut(&mut T)) -> Result<Revision> {
        let mut failure = None;
        let mut there = Revision::ZERO;
        let written = self
            .client
            .update(&self.name, |present| {
                there = present.map_or(Revision::ZERO, |kv| kv.mod_revision);
                let next = self.changed(present, &mut change);
                next.unwrap_or_else(|error| {
                    failure = Some(error);
                    None
                })
            })
            .await?;
        failure.map_or(Ok(written.unwrap_or(there)), Err)
    }

    /// The document after the change; `None` if that is as it was.
    fn changed(
        &self,
        present: Option<&KeyValue>,
        change: &mut impl FnMut(&mut T),
    ) -> Result<Option<String>> {
        let state = present.map(|kv| (kv.key.clone(), kv.clone()));
        let state = state.into_iter().collect();
        let mut value = match self.decode(&state) {
            Ok(value) => value,
            Err(refusal) => {
                self.default_or(refusal.reject(self, self.revision(&state, Revision::ZERO)))?
            }
        };
        let before = self.format.encode(&value);
        change(&mut value);
        let after = self.encode(&value)?;
        let same = present.is_some() && before.is_ok_and(|before| before == after);
        Ok((!same).then_some(after))
    }

    /// The document of a value, if who reads it takes it over.
    fn encode(&self, value: &T) -> Result<String> {
        let refused = |why: String| {
            let message = format!("the new value of {}: {why}", self.name);
            Error::new(ErrorKind::InvalidArgument, message)
        };
        let document = self.format.encode(value).map_err(refused)?;
        // It may read as something else: JSON has no infinite numbers.
        match self.decode_document(document.as_bytes()) {
            Ok(_) => Ok(document),
            Err(Rejection::Invalid(why)) => Err(refused(why)),
            Err(why) => Err(refused(format!("it cannot be read back: {why}"))),
        }
    }
}

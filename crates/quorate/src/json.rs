//! Values that are JSON documents, typed by serde.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Client, Error, ErrorKind, Key, KeyValue, Result, Revision};

/// Typed values, as JSON.
impl Client {
    /// Reads a key whose value is a JSON document; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](ErrorKind::InvalidData) if the value is no such document; otherwise as
    /// [`Client::get`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// client.put_json("limits", &vec![10, 20]).await?;
    /// client.update_json("limits", |now: Option<Vec<u32>>| now.map(|l| l[1..].to_vec())).await?;
    /// assert_eq!(client.get_json::<Vec<u32>>("limits").await?, Some(vec![20]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_json<T: DeserializeOwned>(&self, key: impl Into<Key>) -> Result<Option<T>> {
        self.get(key).await?.as_ref().map(decode).transpose()
    }

    /// Writes a value as a JSON document, and returns the revision of the write.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a value that JSON cannot express; otherwise
    /// as [`Client::put`].
    pub async fn put_json<T: Serialize + ?Sized>(
        &self,
        key: impl Into<Key>,
        value: &T,
    ) -> Result<Revision> {
        let key = key.into();
        let document = encode(&key, value)?;
        self.put(key, document).await
    }

    /// Reads a JSON document, lets `change` make the new one, and writes that only if nobody wrote
    /// meanwhile; else it begins again. `change` returns `None` to leave the key alone.
    ///
    /// # Errors
    ///
    /// As [`Client::get_json`], [`Client::put_json`] and [`Client::update`].
    pub async fn update_json<T: Serialize + DeserializeOwned>(
        &self,
        key: impl Into<Key>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<Revision>> {
        let key = key.into();
        let mut failure = None;
        let revision = self
            .update(&key, |present| {
                let next = present.map(decode).transpose().and_then(|present| {
                    change(present).map(|next| encode(&key, &next)).transpose()
                });
                next.unwrap_or_else(|error| {
                    failure = Some(error);
                    None
                })
            })
            .await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(revision),
        }
    }
}

fn decode<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|error| {
        let message = format!(
            "the value of {} at revision {}: {error}",
            kv.key, kv.mod_revision
        );
        Error::new(ErrorKind::InvalidData, message).because(error)
    })
}

fn encode<T: Serialize + ?Sized>(key: &Key, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        let message = format!("the new value of {key}: {error}");
        Error::new(ErrorKind::InvalidArgument, message).because(error)
    })
}

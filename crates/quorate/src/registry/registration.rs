//! Registrations: an instance is there for as long as its process is.

use std::{fmt, future::Future, sync::Arc};

use super::{Instance, Service, layout::Place};
use crate::{
    Compare, EphemeralKey, EphemeralState, EphemeralStates, Error, Key, Loss, Result, Revision,
};

/// An instance that is registered, or comes back by itself. See [`Service::register`].
///
/// Dropping it deletes its key at once, best effort: the session's lease is the backstop.
/// [`Registration::release`] does the same and waits until it is confirmed.
#[must_use = "an instance is registered no more when this is dropped"]
pub struct Registration {
    key: EphemeralKey,
    id: Arc<str>,
    instance: Instance,
    place: Place,
}

impl Service {
    /// Registers an instance under an id, which is not empty and has no slash in it.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the id is taken, unless the service [takes
    /// over](Service::take_over); [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a name or an
    /// id that cannot be, and for an instance that the layout has no room for; otherwise as
    /// [`Ephemeral::create`](crate::Ephemeral::create).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped nothing stays registered.
    pub async fn register(
        &self,
        id: impl Into<String>,
        instance: Instance,
    ) -> Result<Registration> {
        let id: Arc<str> = id.into().into();
        let place = self.place()?;
        let mut key = self.client().ephemeral(place.key(&id)?);
        if let Some(ttl) = self.ttl {
            key = key.ttl(ttl);
        }
        if self.takes_over {
            key = key.take_over();
        }
        let key = key.create(place.encode(&instance)?).await?;
        Ok(Registration {
            key,
            id,
            instance,
            place,
        })
    }
}

impl Registration {
    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key that stands for the instance.
    pub fn key(&self) -> &Key {
        self.key.key()
    }

    /// What clients are told, or will be.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Tells clients something else of the instance, and waits until that is written; in a gap, until
    /// the registration is back.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for an instance that the layout has no
    /// room for; otherwise as [`EphemeralKey::set`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped clients are told all the same.
    pub async fn set(&mut self, instance: Instance) -> Result<()> {
        let value = self.place.encode(&instance)?;
        let before = std::mem::replace(&mut self.instance, instance);
        let written = self.key.set(value).await;
        let refused = |error: &Error| !error.is_retryable() && !error.is_indefinite();
        if written.as_ref().is_err_and(refused) {
            self.instance = before;
        }
        written
    }

    /// Asks clients to begin nothing new with this instance, since it is about to leave. What they have
    /// begun goes on: wait for that before the [release](Registration::release).
    ///
    /// # Errors
    ///
    /// As [`Registration::set`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped clients are told all the same.
    pub async fn drain(&mut self) -> Result<()> {
        self.set(self.instance.clone().draining(true)).await
    }

    /// Takes [`Registration::drain`] back.
    ///
    /// # Errors
    ///
    /// As [`Registration::set`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped clients are told all the same.
    pub async fn undrain(&mut self) -> Result<()> {
        self.set(self.instance.clone().draining(false)).await
    }

    /// The token of the present incarnation of the key; see [`EphemeralKey::token`].
    pub fn token(&self) -> Revision {
        self.key.token()
    }

    /// A condition for transactions that holds only while that incarnation stands.
    pub fn fence(&self) -> Compare {
        self.key.fence()
    }

    /// Whether the instance is registered as far as can be known here.
    pub fn is_held(&self) -> bool {
        self.key.is_held()
    }

    /// How the key stands.
    pub fn state(&self) -> EphemeralState {
        self.key.state()
    }

    /// Waits until the state is another than was last told here, and tells it.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn changed(&mut self) -> EphemeralState {
        self.key.changed().await
    }

    /// The states from the present one on; see [`EphemeralKey::states`].
    pub fn states(&self) -> EphemeralStates {
        self.key.states()
    }

    /// Why the instance is not registered, or not with what was set last, if an attempt failed.
    pub fn error(&self) -> Option<Error> {
        self.key.error()
    }

    /// Completes when it is over for good: another owner has the id, or the client was closed. A gap is
    /// no loss. The future borrows nothing and can be kept and cloned.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        self.key.lost()
    }

    /// Deletes the key, and waits until that is confirmed.
    ///
    /// # Errors
    ///
    /// As [`EphemeralKey::release`].
    ///
    /// # Cancel safety
    ///
    /// It is given up when the future is first polled, and deleted even if it is dropped.
    #[doc(alias = "deregister")]
    pub async fn release(self) -> Result<()> {
        self.key.release().await
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("key", &self.key)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

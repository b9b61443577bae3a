//! Passwords, hashed as etcd hashes them.

use std::sync::Arc;

use quorate_engine::{Error, Password};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::Status;

use crate::status::refused;

/// How much work a hash is: etcd's default.
const COST: u32 = if cfg!(fuzzing) { 4 } else { 10 };

/// The longest password that bcrypt reads to its end.
const MAX_BYTES: usize = 72;

/// How many passwords are hashed at a time. The others wait with their requests.
const AT_A_TIME: usize = 4;

/// Hashes passwords, on threads where it keeps nobody waiting.
#[derive(Debug)]
pub(crate) struct Hasher {
    slots: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// The hash of a new password that was [checked](check_length).
    pub(crate) async fn hash(&self, password: String) -> Result<Vec<u8>, Status> {
        let hash = self.run(move || bcrypt::hash(password, COST)).await?;
        let hash = hash.map_err(|error| Status::unknown(format!("bcrypt: {error}")))?;
        Ok(hash.into_bytes())
    }

    /// Refuses what does not fit a user's password.
    pub(crate) async fn verify(&self, given: String, password: Password) -> Result<(), Status> {
        let Password::Hash(hash) = password else {
            return Err(refused(Error::NoPassword));
        };
        let fits = move || {
            let hash = std::str::from_utf8(&hash).ok();
            hash.is_some_and(|hash| bcrypt::verify(given, hash).unwrap_or(false))
        };
        if !self.run(fits).await? {
            return Err(refused(Error::AuthenticationFailed));
        }
        Ok(())
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let gone = || Status::unavailable("etcdserver: server stopped");
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| gone())?;
        let work = move || {
            // The slot is taken until the work is done, whether or not it is waited for.
            let _slot = slot;
            work()
        };
        spawn_blocking(work).await.map_err(|_| gone())
    }
}

/// Refuses a new password of which only the beginning would count.
pub(crate) fn check_length(password: &str) -> Result<(), Status> {
    if password.len() > MAX_BYTES {
        let text = "bcrypt: password length exceeds 72 bytes";
        return Err(Status::unknown(text));
    }
    Ok(())
}

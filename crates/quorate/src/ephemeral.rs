//! Ephemeral keys: they stand while their owner lives, and come back by themselves.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use tokio::sync::watch;

use crate::{
    Client, Compare, Error, ErrorKind, Key, Loss, Result, Revision, SessionState, Value,
    holder::Holder,
    keeper::{Slot, Told},
    link::Link,
};

/// A key that is to stand as long as its owner lives; it touches nothing until it is created.
///
/// # On the wire
///
/// The key is the one named, under the lease of the client's shared session: any number of keys cost
/// one lease, and are written up to a hundred in a transaction.
///
/// # Guarantees
///
/// - The key is gone soon after its owner: at once if it is released or dropped, when the lease ends if
///   the process dies.
/// - Nobody else's key is overwritten or deleted, but by [`Ephemeral::take_over`] when it is created.
/// - A key whose creation was cancelled, timed out or failed is not left behind.
/// - The value that was set last is the one that stands in the end: an earlier write that arrives late
///   never undoes it.
///
/// # When it is lost
///
/// A key that is deleted by somebody, or lost with its session, comes back by itself with the value set
/// last: that is a gap, [`EphemeralState::Recreating`]. Only if somebody else owns the path by then, or
/// overwrites the key, is it over for good, and [`EphemeralKey::lost`] completes with
/// [`Loss::Conflict`].
#[derive(Clone, Debug)]
#[must_use = "an ephemeral key does not exist until it is created"]
pub struct Ephemeral {
    link: Link,
    key: Key,
    ttl: Option<Duration>,
    takes_over: bool,
}

impl Client {
    /// An ephemeral key: it stands as long as its owner, the [`EphemeralKey`] that
    /// [`Ephemeral::create`] returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::Client;
    ///
    /// let client = Client::connect("mem:").await?;
    /// let key = client.ephemeral("workers/7").create("idle").await?;
    /// key.set("busy").await?;
    /// assert_eq!(client.get("workers/7").await?.expect("it stands").value, "busy");
    /// key.release().await?;
    /// assert_eq!(client.get("workers/7").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ephemeral(&self, key: impl Into<Key>) -> Ephemeral {
        Ephemeral {
            link: self.link().clone(),
            key: key.into(),
            ttl: None,
            takes_over: false,
        }
    }

    /// Creates an ephemeral key whose value tells who made it: a [`Holder`].
    ///
    /// # Errors
    ///
    /// As [`Ephemeral::create`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Holder};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let _running = client.temp_key("apps/indexer").await?;
    /// let there = client.get("apps/indexer").await?.expect("it stands");
    /// assert_eq!(Holder::from_value(&there.value).expect("ours").pid, std::process::id());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn temp_key(&self, key: impl Into<Key>) -> Result<EphemeralKey> {
        let here = Holder::here(self.link().settings().holder.as_ref());
        self.ephemeral(key).create(here.to_value()).await
    }
}

impl Ephemeral {
    /// Gives the key a session with this time to live, rounded up to whole seconds, rather than the
    /// client's shared session. Keys of a client that ask for the same time share it.
    /// [`Client::close`] does not end it.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Takes the path from whoever owns it when the key is created. The former owner's key is deleted
    /// first and never overwritten, so its fence does not hold any more; if that was an
    /// [`EphemeralKey`], it is over for it.
    pub fn take_over(self) -> Self {
        Self {
            takes_over: true,
            ..self
        }
    }

    /// Creates the key, and keeps it. With a session at hand this is one round trip.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if the key exists, or is open in this client already;
    /// [`Timeout`](ErrorKind::Timeout) or [`Unavailable`](ErrorKind::Unavailable) if no member made it
    /// within the call's deadline. What was made all the same is deleted again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the key is deleted again.
    pub async fn create(self, value: impl Into<Value>) -> Result<EphemeralKey> {
        let Self {
            link,
            key: name,
            ttl,
            takes_over,
        } = self;
        if name.is_empty() {
            let message = "an ephemeral key needs a name";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let keeper = link.core.keepers.of(ttl);
        let path: Vec<u8> = [&*link.namespace, &*name].concat();
        let what = format!("creation of {name}");
        let slot = Slot::new(name, path.into(), keeper, value.into(), takes_over);
        let slot = Arc::new(slot);
        let creation = async {
            open(&slot, takes_over).await?;
            slot.keeper.keep(&link, &slot);
            let mut key = EphemeralKey::new(link.clone(), Arc::clone(&slot));
            wait_until_written(&slot, 1).await?;
            key.states.seen = key.state();
            Ok(key)
        };
        let created = link.bounded(&what, false, creation).await;
        created.map_err(|error| told_error(&slot, error))
    }
}

/// An ephemeral key that stands, or comes back by itself.
///
/// Dropping it deletes the key at once, best effort: the session's lease is the backstop.
/// [`EphemeralKey::release`] does the same and waits until it is confirmed.
#[must_use = "an ephemeral key is deleted when it is dropped"]
pub struct EphemeralKey {
    slot: Arc<Slot>,
    states: EphemeralStates,
    /// Keeps the client, and the session that it shares. After the slot, which is left first.
    link: Link,
}

/// How an [`EphemeralKey`] stands, for who follows it apart from its owner. See
/// [`EphemeralKey::states`].
pub struct EphemeralStates {
    slot: Arc<Slot>,
    changes: watch::Receiver<Told>,
    /// The state that was told last.
    seen: EphemeralState,
}

/// How an [`EphemeralKey`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EphemeralState {
    /// It is over, for good.
    Lost(Loss),
    /// The key stands, and its session can be relied on.
    Present {
        /// The create revision of this incarnation.
        token: Revision,
    },
    /// The key does not stand, or will not for long, and is being made again.
    Recreating,
}

impl EphemeralKey {
    fn new(link: Link, slot: Arc<Slot>) -> Self {
        let states = EphemeralStates::new(Arc::clone(&slot), EphemeralState::Recreating);
        Self { slot, states, link }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.slot.name
    }

    /// The token of the present incarnation, in a gap that of the last one; later incarnations,
    /// whoever makes them, have higher ones. See [`TokenGate`](crate::TokenGate).
    pub fn token(&self) -> Revision {
        self.slot.told().token
    }

    /// A condition for transactions that holds only while the incarnation of [`EphemeralKey::token`]
    /// stands.
    pub fn fence(&self) -> Compare {
        Compare::create_revision(self.key()).eq(self.token())
    }

    /// Whether the key stands as far as can be known here: it was not seen to be gone, and the clock is
    /// before its session's deadline.
    pub fn is_held(&self) -> bool {
        matches!(self.state(), EphemeralState::Present { .. })
    }

    /// How the key stands, by what was seen and by the clock.
    pub fn state(&self) -> EphemeralState {
        self.states.current()
    }

    /// Waits until the state is another than was last told here (when it was created: present), and
    /// tells it. Who comes late is told the latest state alone.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn changed(&mut self) -> EphemeralState {
        self.states.changed().await
    }

    /// The states from the present one on, which count as told. They neither borrow the key nor keep
    /// it.
    pub fn states(&self) -> EphemeralStates {
        EphemeralStates::new(Arc::clone(&self.slot), self.state())
    }

    /// Why the key does not stand, or not with the value set last, if an attempt to make it so failed.
    pub fn error(&self) -> Option<Error> {
        self.slot.told().error.clone()
    }

    /// Completes when it is over for good, and tells why: [`Loss::Conflict`], [`Loss::Released`] or
    /// [`Loss::Closed`]. A gap is no loss. The future borrows nothing and can be kept and cloned.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + Clone + use<> {
        let mut changes = self.slot.subscribe();
        let lost: BoxFuture<'static, Loss> = Box::pin(async move {
            let lost = changes.wait_for(|told| matches!(told.state, EphemeralState::Lost(_)));
            match lost.await.map(|told| told.state) {
                Ok(EphemeralState::Lost(loss)) => loss,
                // The sender goes with the owner and the keeper.
                _ => Loss::Released,
            }
        });
        lost.shared()
    }

    /// Gives the key another value, and waits until that is written; in a gap, until the key is back.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if it is over. [`Timeout`](ErrorKind::Timeout), which is indefinite,
    /// if the value was not seen written within the call's deadline: it stays what the key shall have.
    /// What the store refuses: then the key keeps the value that it had.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the key is given the value all the same.
    pub async fn set(&self, value: impl Into<Value>) -> Result<()> {
        let Some(number) = self.slot.wish(value.into()) else {
            return Err(self.over());
        };
        let what = format!("write of {}", self.key());
        let written = wait_until_written(&self.slot, number);
        let written = self.link.bounded(&what, true, written).await;
        written.map_err(|error| told_error(&self.slot, error))
    }

    /// Deletes the key, and waits until that is confirmed. Only our own incarnation is deleted; that
    /// it is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if it was over before: there is nothing to delete.
    /// [`Timeout`](ErrorKind::Timeout), which is indefinite, if no member confirmed it within the call's
    /// deadline: it is tried on, and the lease is the backstop.
    ///
    /// # Cancel safety
    ///
    /// The key is given up when the future is first polled, and deleted even if it is dropped.
    pub async fn release(self) -> Result<()> {
        if matches!(self.state(), EphemeralState::Lost(_)) {
            return Err(self.over());
        }
        self.slot.depart(Loss::Released);
        let what = format!("release of {}", self.key());
        self.link.bounded(&what, true, gone(&self.slot)).await
    }

    fn over(&self) -> Error {
        match self.state() {
            EphemeralState::Lost(loss) => Error::lost(loss, self.key()),
            _ => Error::lost(Loss::Released, self.key()),
        }
    }
}

impl EphemeralStates {
    fn new(slot: Arc<Slot>, seen: EphemeralState) -> Self {
        let changes = slot.subscribe();
        Self {
            slot,
            changes,
            seen,
        }
    }

    /// How the key stands, by what was seen and by the clock.
    pub fn current(&self) -> EphemeralState {
        let (state, session) = {
            let told = self.slot.told();
            (told.state, told.session.clone())
        };
        match session.map(|session| session.state()) {
            Some(SessionState::Lost(Loss::Closed)) => EphemeralState::Lost(Loss::Closed),
            Some(SessionState::Lost(_)) => EphemeralState::Recreating,
            Some(SessionState::Live | SessionState::Suspended) | None => state,
        }
    }

    /// Waits until the state is another than was last told here, and tells it. Who comes late is told
    /// the latest state alone; after [`EphemeralState::Lost`] comes none.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped and called again.
    pub async fn changed(&mut self) -> EphemeralState {
        loop {
            self.changes.mark_unchanged();
            let state = self.current();
            if state != self.seen {
                self.seen = state;
                return state;
            }
            if self.changes.changed().await.is_err() {
                return state; // cannot be: the sender is in the slot
            }
        }
    }
}

impl Drop for EphemeralKey {
    /// It is over at once; the keeper's task deletes the key.
    fn drop(&mut self) {
        self.slot.depart(Loss::Released);
    }
}

impl fmt::Debug for EphemeralStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralStates")
            .field("key", &self.slot.name)
            .field("state", &self.current())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EphemeralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralKey")
            .field("key", self.key())
            .field("token", &self.token())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Opens the path of a slot in its client, after whoever is still leaving it.
async fn open(slot: &Arc<Slot>, takes_over: bool) -> Result<()> {
    while let Err(present) = slot.keeper.paths.open(slot) {
        if !matches!(present.told().state, EphemeralState::Lost(_)) {
            if !takes_over {
                let message = "this client has the key open already";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            present.depart(Loss::Conflict);
        }
        // Who left it meets no error of its own here.
        let _ = gone(&present).await;
    }
    Ok(())
}

/// Waits until the value of this number, or a later one, is written.
async fn wait_until_written(slot: &Slot, number: u64) -> Result<()> {
    let mut changes = slot.subscribe();
    let outcome = changes
        .wait_for(|told| outcome(slot, told, number).is_some())
        .await;
    outcome
        .ok()
        .and_then(|told| self::outcome(slot, &told, number))
        .unwrap_or(Ok(()))
}

/// What became of the value of this number; `None` if that is not known yet.
fn outcome(slot: &Slot, told: &Told, number: u64) -> Option<Result<()>> {
    match &told.refused {
        Some((refused, error))
            if *refused == number || told.confirmed < number && *refused > number =>
        {
            Some(Err(error.clone()))
        }
        _ if told.confirmed >= number => Some(Ok(())),
        _ => match told.state {
            EphemeralState::Lost(loss) => Some(Err(Error::lost(loss, &slot.name))),
            _ => None,
        },
    }
}

/// Waits until it is over for a slot and its key does not stand.
async fn gone(slot: &Slot) -> Result<()> {
    let mut changes = slot.subscribe();
    let gone = changes.wait_for(|told| told.gone.is_some()).await;
    gone.ok()
        .and_then(|told| told.gone.clone())
        .unwrap_or(Ok(()))
}

/// At a deadline, why it was not kept, if that is known.
fn told_error(slot: &Slot, error: Error) -> Error {
    let told = slot.told().error.clone();
    match told {
        Some(told) if error.kind() == ErrorKind::Timeout => {
            let told = told.context(format_args!("{error}"));
            if error.is_indefinite() {
                told.indefinite()
            } else {
                told
            }
        }
        _ => error,
    }
}

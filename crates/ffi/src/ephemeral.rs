//! Ephemeral keys.

use std::{
    mem::MaybeUninit,
    sync::{Arc, Mutex},
};

use futures_util::stream;
use quorate::{EphemeralKey, EphemeralState, EphemeralStates};

use crate::{
    bytes::{optional_millis, quorate_bytes, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{
        Failure, QUORATE_LOSS_NONE, QUORATE_LOSS_RELEASED, QUORATE_LOST, guarded, infallible, loss,
        quorate_code, quorate_error, quorate_loss,
    },
    events::Events,
    handle::{self, Kind},
    output::{optional, required, set},
    process::lock,
    wait::Limit,
};

/// How an ephemeral key or a registration stands: it is there.
pub const QUORATE_PRESENT: i32 = 0;
/// How an ephemeral key or a registration stands: it is not, or will not be for long, and is being made
/// again.
pub const QUORATE_RECREATING: i32 = 1;
/// How an ephemeral key or a registration stands: it is over, for good.
pub const QUORATE_OVER: i32 = 2;

/// How an ephemeral key is made. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_ephemeral_options {
    /// Gives the key a session with this time to live, rounded up to whole seconds, which the client's keys
    /// that ask for the same share; 0 for the session that the client's recipes share.
    pub ttl_ms: i64,
    /// Takes the key from whoever owns it.
    pub take_over: bool,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// A key that stands as long as its owner lives, and comes back by itself.
///
/// To free it deletes the key in the background; quorate_ephemeral_release does so and waits.
pub struct quorate_ephemeral {
    /// Gone once it was released.
    key: Mutex<Option<Arc<EphemeralKey>>>,
    events: Events<EphemeralState>,
    /// Who writes or releases it: one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Kind for quorate_ephemeral {
    const NAME: &'static str = "quorate_ephemeral";
}

impl quorate_ephemeral {
    fn state(&self) -> EphemeralState {
        let key = lock(&self.key);
        key.as_ref()
            .map_or(EphemeralState::Lost(quorate::Loss::Released), |key| {
                key.state()
            })
    }

    async fn set(&self, value: quorate::Value) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let key = lock(&self.key).clone().ok_or_else(released)?;
        Ok(key.set(value).await?)
    }

    async fn release(&self) -> Result<(), Failure> {
        // Cut off after this the key is dropped by whoever has it last, which deletes it as well.
        let key = lock(&self.key).take().ok_or_else(released)?;
        let _turn = self.turn.lock().await;
        match Arc::into_inner(key) {
            Some(key) => Ok(key.release().await?),
            None => Err(released()),
        }
    }
}

/// Creates an ephemeral key and keeps it. QUORATE_ALREADY_EXISTS if the key exists and is not to be taken
/// over.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_create(
    client: *const quorate_client,
    key: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_ephemeral_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    ephemeral: Option<&mut MaybeUninit<*mut quorate_ephemeral>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(ephemeral, "ephemeral")?;
        let (key, value) = (key.key("key")?, value.value("value")?);
        let used = handle::used(client)?;
        let mut ephemeral = used.client.ephemeral(key);
        if let Some(options) = options {
            unreserved(&options.reserved)?;
            if let Some(ttl) = optional_millis(options.ttl_ms, "time to live")? {
                ephemeral = ephemeral.ttl(ttl);
            }
            if options.take_over {
                ephemeral = ephemeral.take_over();
            }
        }
        let call = ephemeral.create(value);
        let key = Limit::new(timeout_ms, cancel)?.run(&used.freed, call)?;
        let events = Events::new(states(key.states()))?;
        *out = handle::open(quorate_ephemeral {
            key: Mutex::new(Some(Arc::new(key))),
            events,
            turn: tokio::sync::Mutex::default(),
        });
        Ok(())
    })
}

/// Gives the key another value, and waits until that is written; in a gap, until the key is back. If the
/// call is cut off the key is given the value all the same.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_set(
    ephemeral: *mut quorate_ephemeral,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let value = value.value("value")?;
        let used = handle::used(ephemeral)?;
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, used.set(value))
    })
}

/// The fencing token of the present incarnation, the revision that made it; in a gap that of the last.
/// 0 once it was released, and for no key.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_token(ephemeral: *const quorate_ephemeral) -> i64 {
    infallible(0, || {
        let used = handle::used(ephemeral)?;
        let key = lock(&used.key);
        Ok(key.as_ref().map_or(0, |key| key.token().0))
    })
}

/// How the key stands now, by what was seen and by the clock: QUORATE_PRESENT and so on. `*loss`, which
/// may be NULL, is how it was lost.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_state(
    ephemeral: *const quorate_ephemeral,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
) -> i32 {
    let loss = optional(loss);
    let (state, why) = infallible((QUORATE_OVER, QUORATE_LOSS_RELEASED), || {
        Ok(numbers(handle::used(ephemeral)?.state()))
    });
    set(loss, why);
    state
}

/// Waits until the key stands otherwise than was told last (at first: than present), and tells how. After
/// QUORATE_OVER comes QUORATE_END.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_next(
    ephemeral: *mut quorate_ephemeral,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    state: Option<&mut MaybeUninit<i32>>,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (loss, out) = (optional(loss), required(state, "state")?);
        let used = handle::used(ephemeral)?;
        let next = used.events.next();
        let (state, why) = numbers(Limit::new(timeout_ms, cancel)?.run(&used.freed, next)?);
        *out = state;
        set(loss, why);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_ephemeral_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_fd(
    ephemeral: *const quorate_ephemeral,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(ephemeral)?.events.fd()?;
        Ok(())
    })
}

/// Deletes the key, and waits until that is confirmed. QUORATE_LOST if it was over before.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_release(
    ephemeral: *mut quorate_ephemeral,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(ephemeral)?;
        Limit::of_end(timeout_ms, cancel)?.run(&used.freed, used.release())
    })
}

/// Frees it; NULL is accepted. The key is deleted, in the background.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_ephemeral_free(ephemeral: *mut quorate_ephemeral) {
    infallible((), || {
        handle::free(ephemeral);
        Ok(())
    });
}

/// Every change of a state, up to that which is the last.
pub(crate) fn states(
    states: EphemeralStates,
) -> impl futures_util::Stream<Item = Result<EphemeralState, Failure>> + Send {
    stream::unfold(Some(states), |states| async {
        let mut states = states?;
        let state = states.changed().await;
        let over = matches!(state, EphemeralState::Lost(_));
        Some((Ok(state), (!over).then_some(states)))
    })
}

pub(crate) fn numbers(state: EphemeralState) -> (i32, quorate_loss) {
    match state {
        EphemeralState::Present { .. } => (QUORATE_PRESENT, QUORATE_LOSS_NONE),
        EphemeralState::Lost(why) => (QUORATE_OVER, loss(why)),
        _ => (QUORATE_RECREATING, QUORATE_LOSS_NONE),
    }
}

pub(crate) fn released() -> Failure {
    Failure::new(QUORATE_LOST, "it was released before")
}

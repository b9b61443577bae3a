//! Guards: a lock that is held, or a leadership.

use std::{
    future::Future,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Mutex, OnceLock},
};

use futures_util::{FutureExt, future::Shared};
use quorate::{Compare, Leadership, LockGuard, Loss, Session};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bytes::{quorate_bytes, to_millis},
    cancel::quorate_cancel,
    error::{
        Failure, QUORATE_LOSS_NONE, QUORATE_LOST, QUORATE_UNSUPPORTED, guarded, infallible, loss,
        quorate_code, quorate_error, quorate_loss,
    },
    handle::{self, Kind},
    output::{self, give, optional, required, set},
    process::{Process, lock},
    signal::Signal,
    wait::Limit,
};

/// A lock that is held, or the leadership of an election, until it is lost or released.
///
/// It is lost at the deadline of its session, or when its key is seen to be gone, and nothing brings it
/// back: acquire again. What must be safe even if this process is paused at the wrong moment is written
/// under its fence, by quorate_txn_if_held, or sent with its token to a resource that refuses lower ones.
///
/// To free it releases it in the background; quorate_guard_release does so and waits.
pub struct quorate_guard {
    key: Vec<u8>,
    token: i64,
    pub(crate) fence: Compare,
    hold: Mutex<Hold>,
    lost: Lost,
    /// Who changes it: one at a time.
    turn: tokio::sync::Mutex<()>,
    fd: OnceLock<(std::sync::Arc<Signal>, AbortOnDropHandle<()>)>,
}

type Lost = Shared<Pin<Box<dyn Future<Output = Loss> + Send>>>;

/// What is held.
pub(crate) enum Hold {
    Lock(LockGuard),
    Leadership(Leadership),
    /// The leadership is where its value is being changed.
    Away(Session),
    Released,
}

impl Hold {
    fn session(&self) -> Option<&Session> {
        match self {
            Self::Lock(guard) => Some(guard.session()),
            Self::Leadership(leadership) => Some(leadership.session()),
            Self::Away(session) => Some(session),
            Self::Released => None,
        }
    }
}

/// Bytes alone. Free it by quorate_buffer_free.
#[repr(C)]
pub struct quorate_buffer {
    /// The bytes, with a NUL behind them.
    pub bytes: quorate_bytes,
}

impl Kind for quorate_guard {
    const NAME: &'static str = "quorate_guard";
}

impl quorate_guard {
    /// Gives out what is held.
    pub(crate) fn open(hold: Hold) -> *mut Self {
        let (key, token, fence, lost): (_, _, _, Pin<Box<dyn Future<Output = Loss> + Send>>) =
            match &hold {
                Hold::Lock(guard) => (
                    guard.key(),
                    guard.token(),
                    guard.fence(),
                    Box::pin(guard.lost()),
                ),
                Hold::Leadership(leadership) => (
                    leadership.key(),
                    leadership.token(),
                    leadership.fence(),
                    Box::pin(leadership.lost()),
                ),
                Hold::Away(_) | Hold::Released => unreachable!("it is held"),
            };
        handle::open(Self {
            key: key.to_vec(),
            token: token.0,
            fence,
            lost: lost.shared(),
            hold: Mutex::new(hold),
            turn: tokio::sync::Mutex::default(),
            fd: OnceLock::new(),
        })
    }

    /// How it was lost, by what was seen and by the clock.
    fn loss(&self) -> Option<Loss> {
        self.loss_of(&lock(&self.hold))
    }

    fn loss_of(&self, hold: &Hold) -> Option<Loss> {
        match hold {
            Hold::Lock(guard) => guard.loss(),
            Hold::Leadership(leadership) => leadership.loss(),
            // The signal reads the clock each time it is asked.
            Hold::Away(_) => self.lost.clone().now_or_never(),
            Hold::Released => Some(self.lost.clone().now_or_never().unwrap_or(Loss::Released)),
        }
    }

    async fn proclaim(&self, value: quorate::Value) -> Result<(), Failure> {
        /// Puts the leadership back, whatever ends the call.
        struct Lent<'a>(&'a quorate_guard, Option<Leadership>);

        impl Drop for Lent<'_> {
            fn drop(&mut self) {
                if let Some(leadership) = self.1.take() {
                    *lock(&self.0.hold) = Hold::Leadership(leadership);
                }
            }
        }

        let _turn = self.turn.lock().await;
        let mut lent = {
            let mut hold = lock(&self.hold);
            match std::mem::replace(&mut *hold, Hold::Released) {
                Hold::Leadership(leadership) => {
                    *hold = Hold::Away(leadership.session().clone());
                    Lent(self, Some(leadership))
                }
                other => {
                    let refused = match &other {
                        Hold::Lock(_) => {
                            Failure::new(QUORATE_UNSUPPORTED, "a lock has no value to proclaim")
                        }
                        _ => released(),
                    };
                    *hold = other;
                    return Err(refused);
                }
            }
        };
        match &mut lent.1 {
            Some(leadership) => Ok(leadership.proclaim(value).await?),
            None => Err(released()),
        }
    }

    async fn release(&self) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let hold = std::mem::replace(&mut *lock(&self.hold), Hold::Released);
        match hold {
            Hold::Lock(guard) => Ok(guard.release().await?),
            Hold::Leadership(leadership) => Ok(leadership.resign().await?),
            Hold::Away(_) | Hold::Released => Err(released()),
        }
    }
}

/// The key that stands for the hold.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_key(
    guard: *const quorate_guard,
    key: Option<&mut MaybeUninit<*mut quorate_buffer>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(key, "key")?;
        *out = give_buffer(&handle::used(guard)?.key);
        Ok(())
    })
}

/// The fencing token: the revision that made the hold's key. Later holders have higher ones. 0 for no
/// guard.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_token(guard: *const quorate_guard) -> i64 {
    infallible(0, || Ok(handle::used(guard)?.token))
}

/// Whether it is held as far as can be known here: no loss was seen, and the clock is before the
/// deadline. False for no guard.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_is_held(guard: *const quorate_guard) -> bool {
    infallible(false, || Ok(handle::used(guard)?.loss().is_none()))
}

/// How it was lost; QUORATE_LOSS_NONE while it is held, and for no guard QUORATE_LOSS_RELEASED.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_loss(guard: *const quorate_guard) -> quorate_loss {
    infallible(loss(Loss::Released), || {
        Ok(handle::used(guard)?.loss().map_or(QUORATE_LOSS_NONE, loss))
    })
}

/// The lease by which it is held; 0 after the release, and for no guard.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_lease(guard: *const quorate_guard) -> i64 {
    infallible(0, || {
        let used = handle::used(guard)?;
        let hold = lock(&used.hold);
        Ok(hold.session().map_or(0, |session| session.lease().0))
    })
}

/// How long it may still be relied on if no further beat of its session is answered, in milliseconds; 0
/// once it is lost or released.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_remaining_ms(guard: *const quorate_guard) -> i64 {
    infallible(0, || {
        let used = handle::used(guard)?;
        let hold = lock(&used.hold);
        Ok(match (used.loss_of(&hold), hold.session()) {
            (None, Some(session)) => to_millis(session.remaining()),
            _ => 0,
        })
    })
}

/// Waits until it is lost or released, and tells how. QUORATE_TIMEOUT if it is held still.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_wait_lost(
    guard: *const quorate_guard,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = optional(loss);
        let used = handle::used(guard)?;
        let lost = used.lost.clone();
        let lost = async { Ok::<_, Failure>(lost.await) };
        let why = Limit::new(timeout_ms, cancel)?.run(&used.freed, lost)?;
        set(out, self::loss(why));
        Ok(())
    })
}

/// A descriptor that is readable from when it is lost or released.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_lost_fd(
    guard: *const quorate_guard,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        let used = handle::used(guard)?;
        if used.fd.get().is_none() {
            let signal = std::sync::Arc::new(Signal::new()?);
            let lost = used.lost.clone();
            let told = std::sync::Arc::clone(&signal);
            let task = Process::current().runtime()?.spawn(async move {
                lost.await;
                told.set();
            });
            // Of two that come at once one keeps its own.
            let _ = used.fd.set((signal, AbortOnDropHandle::new(task)));
        }
        if let Some((signal, _)) = used.fd.get() {
            *out = signal.number();
        }
        Ok(())
    })
}

/// Tells everybody another value of a leader, without an election. QUORATE_LOST if we lead no more;
/// QUORATE_UNSUPPORTED for a lock.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_proclaim(
    guard: *mut quorate_guard,
    value: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let value = value.value("value")?;
        let used = handle::used(guard)?;
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, used.proclaim(value))
    })
}

/// Releases the lock, or resigns the leadership, and waits until that is confirmed. Not held from the
/// beginning of the call on, whatever comes of it; a quorate_guard_proclaim of another thread comes first.
///
/// QUORATE_LOST if it had been lost or released before: what was done under it may have overlapped with
/// somebody else.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_release(
    guard: *mut quorate_guard,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(guard)?;
        Limit::of_end(timeout_ms, cancel)?.run(&used.freed, used.release())
    })
}

/// Frees a guard; NULL is accepted. What is held is released, in the background.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_guard_free(guard: *mut quorate_guard) {
    infallible((), || {
        handle::free(guard);
        Ok(())
    });
}

/// Frees bytes; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_buffer_free(buffer: *mut quorate_buffer) {
    infallible((), || {
        output::take_back(buffer);
        Ok(())
    });
}

pub(crate) fn give_buffer(bytes: &[u8]) -> *mut quorate_buffer {
    give(|arena| quorate_buffer {
        bytes: arena.bytes(bytes),
    })
}

fn released() -> Failure {
    Failure::new(QUORATE_LOST, "it was released before")
}

//! Sessions: a lease kept alive, and until when it may be relied on.

use std::mem::MaybeUninit;

use futures_util::stream;
use quorate::{Session, SessionState};

use crate::{
    bytes::{millis, to_millis},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{
        Failure, QUORATE_LOSS_CLOSED, QUORATE_LOSS_NONE, guarded, infallible, loss, quorate_code,
        quorate_error, quorate_loss,
    },
    events::Events,
    handle::{self, Kind},
    output::{optional, required, set},
    wait::Limit,
};

/// How a session stands: its beats are answered.
pub const QUORATE_SESSION_LIVE: i32 = 0;
/// How a session stands: a beat is overdue. What is held is held until the deadline.
pub const QUORATE_SESSION_SUSPENDED: i32 = 1;
/// How a session stands: it is over for good.
pub const QUORATE_SESSION_LOST: i32 = 2;

/// A lease kept alive, under which keys are held. It is over here before the server can end the lease.
///
/// When its last handle is freed, and everything that is held under it, the lease is revoked in the
/// background; quorate_session_close does so and waits.
pub struct quorate_session {
    pub(crate) session: Session,
    events: Events<SessionState>,
}

impl Kind for quorate_session {
    const NAME: &'static str = "quorate_session";
}

/// Opens a session with this time to live, rounded up to whole seconds; with 0 the one that the client's
/// recipes share.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_open(
    client: *const quorate_client,
    ttl_ms: i64,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    session: Option<&mut MaybeUninit<*mut quorate_session>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(session, "session")?;
        let used = handle::used(client)?;
        let limit = Limit::new(timeout_ms, cancel)?;
        let session = if ttl_ms == 0 {
            limit.run(&used.freed, used.client.session())?
        } else {
            let ttl = millis(ttl_ms, "time to live")?;
            limit.run(&used.freed, used.client.session_with_ttl(ttl))?
        };
        let events = Events::new(states(session.clone()))?;
        *out = handle::open(quorate_session { session, events });
        Ok(())
    })
}

/// Its lease. Keys put under it live as long as the session.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_lease(session: *const quorate_session) -> i64 {
    infallible(0, || Ok(handle::used(session)?.session.lease().0))
}

/// The time to live that the server granted, in milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_ttl_ms(session: *const quorate_session) -> i64 {
    infallible(0, || Ok(to_millis(handle::used(session)?.session.ttl())))
}

/// How long what is held under it may still be relied on if no further beat is answered, in milliseconds;
/// 0 once it is lost.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_remaining_ms(session: *const quorate_session) -> i64 {
    infallible(0, || {
        Ok(to_millis(handle::used(session)?.session.remaining()))
    })
}

/// How it stands now, by the clock: QUORATE_SESSION_LIVE and so on. `*loss`, which may be NULL, is how it
/// was lost.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_state(
    session: *const quorate_session,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
) -> i32 {
    let loss = optional(loss);
    let (state, why) = infallible((QUORATE_SESSION_LOST, QUORATE_LOSS_CLOSED), || {
        Ok(numbers(handle::used(session)?.session.state()))
    });
    set(loss, why);
    state
}

/// Waits until the session stands otherwise than was told last (at first: than live), and tells how.
/// After QUORATE_SESSION_LOST comes QUORATE_END.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_next(
    session: *mut quorate_session,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    state: Option<&mut MaybeUninit<i32>>,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (loss, out) = (optional(loss), required(state, "state")?);
        let used = handle::used(session)?;
        let next = used.events.next();
        let (state, why) = numbers(Limit::new(timeout_ms, cancel)?.run(&used.freed, next)?);
        *out = state;
        set(loss, why);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_session_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_fd(
    session: *const quorate_session,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(session)?.events.fd()?;
        Ok(())
    })
}

/// Waits until the session is lost. QUORATE_TIMEOUT if it is not by then.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_wait_lost(
    session: *const quorate_session,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = optional(loss);
        let used = handle::used(session)?;
        let lost = used.session.lost();
        let lost = async { Ok::<_, Failure>(lost.await) };
        let why = Limit::new(timeout_ms, cancel)?.run(&used.freed, lost)?;
        set(out, crate::error::loss(why));
        Ok(())
    })
}

/// Ends the session: what is held under it is lost at once. Waits until its lease is revoked.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_close(
    session: *mut quorate_session,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(session)?;
        Limit::of_end(timeout_ms, cancel)?.run(&used.freed, used.session.close())
    })
}

/// Frees a session; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_session_free(session: *mut quorate_session) {
    infallible((), || {
        handle::free(session);
        Ok(())
    });
}

/// Every change of a session's state.
fn states(
    session: Session,
) -> impl futures_util::Stream<Item = Result<SessionState, Failure>> + Send {
    let known = Some((session, SessionState::Live));
    stream::unfold(known, |known| async {
        let (session, known) = known?;
        let state = session.state_changed(known).await;
        let lost = matches!(state, SessionState::Lost(_));
        Some((Ok(state), (!lost).then_some((session, state))))
    })
}

fn numbers(state: SessionState) -> (i32, quorate_loss) {
    match state {
        SessionState::Live => (QUORATE_SESSION_LIVE, QUORATE_LOSS_NONE),
        SessionState::Suspended => (QUORATE_SESSION_SUSPENDED, QUORATE_LOSS_NONE),
        SessionState::Lost(why) => (QUORATE_SESSION_LOST, loss(why)),
    }
}

//! Electors: candidates that campaign again after every loss.

use std::{mem::MaybeUninit, sync::Mutex};

use futures_util::stream;
use quorate::{Compare, Elector, LeaderState};

use crate::{
    bytes::quorate_bytes,
    cancel::quorate_cancel,
    client::quorate_client,
    election::{election, quorate_election_options},
    error::{Failure, QUORATE_CLOSED, guarded, infallible, quorate_code, quorate_error},
    events::Events,
    handle::{self, Kind},
    lock::{lay_contender, quorate_contender},
    output::{self, give, required},
    process::lock,
    wait::Limit,
};

/// What an elector knows: nobody is known to lead.
pub const QUORATE_NO_LEADER: i32 = 0;
/// What an elector knows: somebody else leads.
pub const QUORATE_FOLLOWING: i32 = 1;
/// What an elector knows: we lead.
pub const QUORATE_LEADING: i32 = 2;

/// A candidate that never gives up: it campaigns in the background, again after every loss.
///
/// To free it resigns in the background; quorate_elector_stop does so and waits.
pub struct quorate_elector {
    /// The handle to the task; gone once it was stopped.
    elector: Mutex<Option<Elector>>,
    events: Events<LeaderState>,
}

impl Kind for quorate_elector {
    const NAME: &'static str = "quorate_elector";
}

/// What an elector knows. Free it by quorate_leader_state_free.
#[repr(C)]
pub struct quorate_leader_state {
    /// QUORATE_NO_LEADER, QUORATE_FOLLOWING or QUORATE_LEADING.
    pub kind: i32,
    /// With QUORATE_LEADING: a beat of our session is overdue.
    pub at_risk: bool,
    /// The fencing token of who leads, us or another; 0 if nobody does.
    pub token: i64,
    /// With QUORATE_FOLLOWING: who leads; else NULL.
    pub leader: *const quorate_contender,
}

impl quorate_elector {
    /// The fence of the term that it leads.
    pub(crate) fn fence(&self) -> Option<Compare> {
        let elector = lock(&self.elector);
        Some(elector.as_ref()?.term()?.fence())
    }
}

/// Campaigns in the background with a value, such as an address, until it is stopped or freed.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_start(
    client: *const quorate_client,
    name: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_election_options>,
    elector: Option<&mut MaybeUninit<*mut quorate_elector>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(elector, "elector")?;
        let (name, value) = (name.key("name")?, value.value("value")?);
        let used = handle::used(client)?;
        let election = election(&used.client, name, value, options)?;
        let elector = election.elector();
        let states = stream::unfold(Some(elector.states()), |states| async {
            let mut states = states?;
            match states.changed().await {
                Ok(state) => Some((Ok(state), Some(states))),
                Err(error) if error.kind() == quorate::ErrorKind::Closed => None,
                Err(error) => Some((Err(Failure::from(error)), None)),
            }
        });
        let events = Events::new(states)?;
        *out = handle::open(quorate_elector {
            elector: Mutex::new(Some(elector)),
            events,
        });
        Ok(())
    })
}

/// What the elector knows now. That we lead may be out of date by as much as this process is: the fence,
/// quorate_txn_if_leading, or the token decides where it matters.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_state(
    elector: *const quorate_elector,
    state: Option<&mut MaybeUninit<*mut quorate_leader_state>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(state, "state")?;
        let used = handle::used(elector)?;
        let state = lock(&used.elector).as_ref().map(Elector::state);
        *out = give_state(&state.unwrap_or(LeaderState::NoLeader));
        Ok(())
    })
}

/// The fencing token of the term that we lead, by the clock at this moment; 0 if we do not.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_token(elector: *const quorate_elector) -> i64 {
    infallible(0, || {
        let used = handle::used(elector)?;
        let elector = lock(&used.elector);
        let term = elector.as_ref().and_then(Elector::term);
        Ok(term.map_or(0, |term| term.token().0))
    })
}

/// Waits until the elector knows something else than was told last (at first: than that nobody leads).
/// States in between may be skipped. After quorate_elector_stop comes QUORATE_END; the error of a
/// campaign that cannot succeed, such as a missing permission, is the last.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_next(
    elector: *mut quorate_elector,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    state: Option<&mut MaybeUninit<*mut quorate_leader_state>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(state, "state")?;
        let used = handle::used(elector)?;
        let state = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_state(&state);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_elector_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_fd(
    elector: *const quorate_elector,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(elector)?.events.fd()?;
        Ok(())
    })
}

/// Stops campaigning, resigns if we lead, and waits until that is done. QUORATE_CLOSED if it was stopped
/// before; the reason if it had given up by itself. It stops even if the call is cut off.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_stop(
    elector: *mut quorate_elector,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(elector)?;
        let limit = Limit::of_end(timeout_ms, cancel)?;
        let Some(elector) = lock(&used.elector).take() else {
            return Err(Failure::new(
                QUORATE_CLOSED,
                "the elector was stopped before",
            ));
        };
        limit.run(&used.freed, elector.stop())
    })
}

/// Frees an elector; NULL is accepted. It resigns, in the background.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_elector_free(elector: *mut quorate_elector) {
    infallible((), || {
        handle::free(elector);
        Ok(())
    });
}

/// Frees a state; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_leader_state_free(state: *mut quorate_leader_state) {
    infallible((), || {
        output::take_back(state);
        Ok(())
    });
}

fn give_state(state: &LeaderState) -> *mut quorate_leader_state {
    give(|arena| match state {
        LeaderState::NoLeader => quorate_leader_state {
            kind: QUORATE_NO_LEADER,
            at_risk: false,
            token: 0,
            leader: std::ptr::null(),
        },
        LeaderState::Following { leader } => {
            let laid = lay_contender(leader, arena);
            quorate_leader_state {
                kind: QUORATE_FOLLOWING,
                at_risk: false,
                token: leader.token.0,
                leader: arena.one(laid),
            }
        }
        LeaderState::Leading { token, at_risk } => quorate_leader_state {
            kind: QUORATE_LEADING,
            at_risk: *at_risk,
            token: token.0,
            leader: std::ptr::null(),
        },
    })
}

//! Elections.

use std::{mem::MaybeUninit, ptr};

use quorate::{Client, Election, Key, Leader, Value};

use crate::{
    bytes::{optional_millis, quorate_bytes, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    events::Events,
    guard::{Hold, quorate_guard},
    handle::{self, Kind},
    lock::{give_contenders, lay_contender, quorate_contender, quorate_contenders},
    output::{self, give, required},
    session::quorate_session,
    wait::Limit,
};

/// How to campaign. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_election_options {
    /// Campaigns under a session of its own with this time to live, rounded up to whole seconds; 0 for
    /// the session that the client's recipes share.
    pub ttl_ms: i64,
    /// Campaigns under this session; NULL for none. Not together with ttl_ms.
    pub session: *const quorate_session,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// Follows who leads.
pub struct quorate_leaders {
    events: Events<Option<Leader>>,
}

impl Kind for quorate_leaders {
    const NAME: &'static str = "quorate_leaders";
}

/// Stands as a candidate with a value, such as an address, and waits until we lead. Candidates lead in the
/// order in which they came. quorate_guard_proclaim changes the value, quorate_guard_release resigns.
///
/// At the time-out, when cancelled, or when its session is lost, we stand no more.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_election_campaign(
    client: *const quorate_client,
    name: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_election_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    guard: Option<&mut MaybeUninit<*mut quorate_guard>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(guard, "guard")?;
        let (name, value) = (name.key("name")?, value.value("value")?);
        let used = handle::used(client)?;
        let election = election(&used.client, name, value, options)?;
        let leadership = Limit::new(timeout_ms, cancel)?.run(&used.freed, election.campaign())?;
        *out = quorate_guard::open(Hold::Leadership(leadership));
        Ok(())
    })
}

/// Tells who leads; `*leader` is NULL if nobody does. Free it by quorate_contender_free.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_election_leader(
    client: *const quorate_client,
    name: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    leader: Option<&mut MaybeUninit<*mut quorate_contender>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(leader, "leader")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let election = used.client.election(name);
        let leader = Limit::new(timeout_ms, cancel)?.run(&used.freed, election.leader())?;
        *out = give_leader(leader.as_ref());
        Ok(())
    })
}

/// Tells who leads and who waits to.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_election_candidates(
    client: *const quorate_client,
    name: quorate_bytes,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    candidates: Option<&mut MaybeUninit<*mut quorate_contenders>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(candidates, "candidates")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let election = used.client.election(name);
        let found = Limit::new(timeout_ms, cancel)?.run(&used.freed, election.candidates())?;
        *out = give_contenders(&found);
        Ok(())
    })
}

/// Follows who leads: who does now is the first event, then every change of the leader or of its value.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_election_observe(
    client: *const quorate_client,
    name: quorate_bytes,
    leaders: Option<&mut MaybeUninit<*mut quorate_leaders>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(leaders, "leaders")?;
        let name = name.key("name")?;
        let used = handle::used(client)?;
        let events = Events::new(used.client.election(name).observe())?;
        *out = handle::open(quorate_leaders { events });
        Ok(())
    })
}

/// Waits for the next leader; `*leader` is NULL when nobody leads. Free it by quorate_contender_free.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_leaders_next(
    leaders: *mut quorate_leaders,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    leader: Option<&mut MaybeUninit<*mut quorate_contender>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(leader, "leader")?;
        let used = handle::used(leaders)?;
        let leader = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_leader(leader.as_ref());
        Ok(())
    })
}

/// A descriptor that is readable while quorate_leaders_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_leaders_fd(
    leaders: *const quorate_leaders,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(leaders)?.events.fd()?;
        Ok(())
    })
}

/// Frees it; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_leaders_free(leaders: *mut quorate_leaders) {
    infallible((), || {
        handle::free(leaders);
        Ok(())
    });
}

/// Frees a contender that is not part of something else; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_contender_free(contender: *mut quorate_contender) {
    infallible((), || {
        output::take_back(contender);
        Ok(())
    });
}

pub(crate) fn give_leader(leader: Option<&Leader>) -> *mut quorate_contender {
    leader.map_or(ptr::null_mut(), |leader| {
        give(|arena| lay_contender(leader, arena))
    })
}

/// An election with its options.
pub(crate) fn election(
    client: &Client,
    name: Key,
    value: Value,
    options: Option<&quorate_election_options>,
) -> Result<Election, Failure> {
    let mut election = client.election(name).value(value);
    let Some(options) = options else {
        return Ok(election);
    };
    unreserved(&options.reserved)?;
    if let Some(ttl) = optional_millis(options.ttl_ms, "time to live")? {
        election = election.ttl(ttl);
    }
    if !options.session.is_null() {
        if options.ttl_ms != 0 {
            return Err(Failure::invalid(
                "a session and a time to live exclude each other",
            ));
        }
        election = election.session(&handle::used(options.session)?.session);
    }
    Ok(election)
}

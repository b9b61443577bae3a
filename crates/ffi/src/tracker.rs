//! Trackers: the instances of a service as they come and go.

use std::{mem::MaybeUninit, sync::Mutex};

use futures_util::stream;
use quorate::{Change, Error, Tracker};

use crate::{
    bytes::quorate_bytes,
    cancel::quorate_cancel,
    client::quorate_client,
    error::{guarded, infallible, quorate_code, quorate_error},
    events::Events,
    handle::{self, Kind},
    output::{self, give, required},
    process::lock,
    service::{
        give_instances, lay_registered, quorate_instances, quorate_registered,
        quorate_service_options, service,
    },
    wait::Limit,
};

/// What became of an instance: it is new.
pub const QUORATE_JOINED: i32 = 0;
/// What became of an instance: it tells something else.
pub const QUORATE_UPDATED: i32 = 1;
/// What became of an instance: it is gone.
pub const QUORATE_LEFT: i32 = 2;

/// Follows the instances of a service, whether or not anybody looks.
pub struct quorate_tracker {
    pub(crate) tracker: Mutex<Tracker>,
    events: Events<Change>,
}

impl Kind for quorate_tracker {
    const NAME: &'static str = "quorate_tracker";
}

/// What became of an instance. Free it by quorate_change_free.
#[repr(C)]
pub struct quorate_change {
    /// QUORATE_JOINED, QUORATE_UPDATED or QUORATE_LEFT.
    pub kind: i32,
    /// The instance; with QUORATE_LEFT its id alone.
    pub registered: quorate_registered,
}

/// Tracks the instances of a service. When it returns the tracker knows them all; it waits for a store
/// that cannot be reached.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_open(
    client: *const quorate_client,
    service: quorate_bytes,
    options: Option<&quorate_service_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    tracker: Option<&mut MaybeUninit<*mut quorate_tracker>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(tracker, "tracker")?;
        let used = handle::used(client)?;
        let service = self::service(&used.client, service, options)?;
        let tracker = Limit::new(timeout_ms, cancel)?.run(&used.freed, service.track())?;
        *out = handle::open(quorate_tracker {
            events: Events::new(changes(tracker.clone()))?,
            tracker: Mutex::new(tracker),
        });
        Ok(())
    })
}

/// The instances now, without waiting. What quorate_tracker_next tells from then on is what changes
/// afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_snapshot(
    tracker: *mut quorate_tracker,
    instances: Option<&mut MaybeUninit<*mut quorate_instances>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(instances, "instances")?;
        let used = handle::used(tracker)?;
        let (instances, stale) = {
            let mut tracker = lock(&used.tracker);
            let instances = tracker.snapshot();
            used.events.replace(changes(tracker.clone()))?;
            (instances, tracker.is_stale())
        };
        *out = give_instances(&instances, stale);
        Ok(())
    })
}

/// Waits for the next change since quorate_tracker_open or the last snapshot.
///
/// What was told before and what is told now make up the present state of the instance, whatever became of
/// it between.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_next(
    tracker: *mut quorate_tracker,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    change: Option<&mut MaybeUninit<*mut quorate_change>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(change, "change")?;
        let used = handle::used(tracker)?;
        let change = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_change(&change);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_tracker_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_fd(
    tracker: *const quorate_tracker,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(tracker)?.events.fd()?;
        Ok(())
    })
}

/// Whether the instances may have changed unseen, as while the store cannot be reached. True for no
/// tracker.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_is_stale(tracker: *const quorate_tracker) -> bool {
    infallible(
        true,
        || Ok(lock(&handle::used(tracker)?.tracker).is_stale()),
    )
}

/// Frees a tracker; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_tracker_free(tracker: *mut quorate_tracker) {
    infallible((), || {
        handle::free(tracker);
        Ok(())
    });
}

/// Frees a change; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_change_free(change: *mut quorate_change) {
    infallible((), || {
        output::take_back(change);
        Ok(())
    });
}

/// Every change since the tracker's last look.
fn changes(tracker: Tracker) -> impl futures_util::Stream<Item = Result<Change, Error>> + Send {
    stream::unfold(Some(tracker), |tracker| async {
        let mut tracker = tracker?;
        match tracker.next().await {
            Ok(change) => Some((Ok(change), Some(tracker))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn give_change(change: &Change) -> *mut quorate_change {
    let gone = quorate::Instance::new("");
    let (kind, id, instance) = match change {
        Change::Joined(id, instance) => (QUORATE_JOINED, id, &**instance),
        Change::Updated(id, instance) => (QUORATE_UPDATED, id, &**instance),
        Change::Left(id) => (QUORATE_LEFT, id, &gone),
    };
    give(|arena| quorate_change {
        kind,
        registered: lay_registered(id, instance, arena),
    })
}

//! Pickers: which instance to call next.

use std::{
    mem::MaybeUninit,
    ptr,
    sync::{Arc, Mutex},
};

use quorate::{Instance, Pick, Picker, Strategy};

use crate::{
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    handle::{self, Kind},
    output::{self, give, required},
    process::lock,
    service::{lay_registered, quorate_registered},
    tracker::quorate_tracker,
};

/// How calls are spread: in turn.
pub const QUORATE_ROUND_ROBIN: i32 = 0;
/// How calls are spread: by chance.
pub const QUORATE_RANDOM: i32 = 1;
/// How calls are spread: in proportion to the weights.
pub const QUORATE_WEIGHTED: i32 = 2;
/// How calls are spread: in turn among those that never failed, else to the one that failed longest ago.
pub const QUORATE_LEAST_RECENTLY_FAILED: i32 = 3;

/// Picks instances of a service, and keeps away from those that were reported to fail.
pub struct quorate_picker {
    picker: Picker,
}

impl Kind for quorate_picker {
    const NAME: &'static str = "quorate_picker";
}

/// An instance that was picked to be called. Tell what came of it, if that is known, and free it.
pub struct quorate_pick {
    id: String,
    instance: Arc<Instance>,
    /// Gone once it was told what came of it.
    pick: Mutex<Option<Pick>>,
}

impl Kind for quorate_pick {
    const NAME: &'static str = "quorate_pick";
}

/// Makes a picker of a tracker, which may be freed. `strategy` is QUORATE_ROUND_ROBIN and so on.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_picker_new(
    tracker: *const quorate_tracker,
    strategy: i32,
    picker: Option<&mut MaybeUninit<*mut quorate_picker>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(picker, "picker")?;
        let strategy = match strategy {
            QUORATE_ROUND_ROBIN => Strategy::RoundRobin,
            QUORATE_RANDOM => Strategy::Random,
            QUORATE_WEIGHTED => Strategy::Weighted,
            QUORATE_LEAST_RECENTLY_FAILED => Strategy::LeastRecentlyFailed,
            strategy => return Err(Failure::invalid(format!("{strategy} is no strategy"))),
        };
        let picker = lock(&handle::used(tracker)?.tracker).picker(strategy);
        *out = handle::open(quorate_picker { picker });
        Ok(())
    })
}

/// Picks the next instance to call, without waiting; `*pick` is NULL if there is none that could be.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_picker_pick(
    picker: *mut quorate_picker,
    pick: Option<&mut MaybeUninit<*mut quorate_pick>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(pick, "pick")?;
        let pick = handle::used(picker)?.picker.pick();
        *out = pick.map_or(ptr::null_mut(), |pick| {
            handle::open(quorate_pick {
                id: pick.id().to_owned(),
                instance: Arc::clone(pick.instance()),
                pick: Mutex::new(Some(pick)),
            })
        });
        Ok(())
    })
}

/// The instance that was picked. Free it by quorate_registered_free.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_pick_instance(
    pick: *const quorate_pick,
    registered: Option<&mut MaybeUninit<*mut quorate_registered>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(registered, "registered")?;
        let used = handle::used(pick)?;
        *out = give(|arena| lay_registered(&used.id, &used.instance, arena));
        Ok(())
    })
}

/// Tells that the instance could not be called, or did not answer: it is kept away from for a while. Only
/// the first word on a pick counts.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_pick_failed(
    pick: *mut quorate_pick,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let pick = lock(&handle::used(pick)?.pick).take();
        if let Some(pick) = pick {
            pick.failed();
        }
        Ok(())
    })
}

/// Tells that the instance answered: its failures are forgotten. Only the first word on a pick counts.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_pick_succeeded(
    pick: *mut quorate_pick,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let pick = lock(&handle::used(pick)?.pick).take();
        if let Some(pick) = pick {
            pick.succeeded();
        }
        Ok(())
    })
}

/// Frees a pick; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_pick_free(pick: *mut quorate_pick) {
    infallible((), || {
        handle::free(pick);
        Ok(())
    });
}

/// Frees an instance that is not part of something else; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registered_free(registered: *mut quorate_registered) {
    infallible((), || {
        output::take_back(registered);
        Ok(())
    });
}

/// Frees a picker; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_picker_free(picker: *mut quorate_picker) {
    infallible((), || {
        handle::free(picker);
        Ok(())
    });
}

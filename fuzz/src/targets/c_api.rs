//! The C boundary: calls of the library in any order, with whatever C may pass. Handles are such as were
//! given out, of the same type or of another, such as were freed, NULL and any number; bytes are any, or
//! NULL with a length or without; outputs may be missing.

use std::{any::TypeId, collections::BTreeMap, mem::MaybeUninit, ptr, sync::LazyLock};

use arbitrary::{Result, Unstructured};
use quorate_ffi::{
    bytes::{QUORATE_MAX_LEN, quorate_bytes, quorate_keys},
    cancel, client, config, election, elector, ephemeral, error, guard, handles, health, kv, lease,
    lock, observer, picker, registration, service, session, tracker, ttl_key, txn,
};

use crate::{assert_calm, heed_panics};

const MAX_CALLS: usize = 48;

/// Where clients lead. A store with a name is met again.
const URLS: &[&str] = &[
    "mem:",
    "mem:fuzz",
    "mem:fuzz?ttl=1",
    "mem:?namespace=n",
    "",
    "mem:\u{0}",
    "nonsense:",
];

const NAMES: &[&str] = &[
    "a",
    "b",
    "lock",
    "lock/",
    "a/b",
    "services/api/1",
    "api",
    "",
    "\0",
    "\u{e9}",
    "{}",
    "{\"address\":\"h:1\"}",
    "rps = 1",
    "limits.json",
    "1",
];

/// Times in milliseconds, revisions and leases. None is negative: that is for ever where it is a time-out.
const NUMBERS: &[i64] = &[0, 1, 2, 3, 4, 5, 7, 9];

/// What stands in options.
const EXTREMES: &[i64] = &[0, 0, 0, 1, 1000, 1001, 60_000, -1, i64::MAX, i64::MIN];

/// Runs one input.
pub(crate) fn feed(input: &[u8]) {
    heed_panics();
    let mut world = World::default();
    // The input has ended.
    let _ = calls(&mut Unstructured::new(input), &mut world);
    free_all(&mut world);
    assert_eq!(handles(), 0, "handles are left");
    assert_calm();
}

fn calls(u: &mut Unstructured<'_>, world: &mut World) -> Result<()> {
    open(world, u.choose(URLS)?);
    for _ in 0..MAX_CALLS {
        if u.is_empty() {
            break;
        }
        if u.ratio(1, 8)? {
            (u.choose(&FREES)?)(world, u)?;
        } else {
            (u.choose(&CALLS)?)(world, u)?;
        }
    }
    Ok(())
}

/// Opens a client, and nothing that leads out of this process.
fn open(world: &mut World, url: &str) {
    let mut opened = MaybeUninit::new(ptr::null_mut());
    let url = quorate_bytes {
        data: url.as_ptr(),
        len: url.len(),
    };
    let code = client::quorate_client_open(url, Some(&mut opened), None);
    // SAFETY: it was set before the call.
    let opened = unsafe { opened.assume_init() };
    assert_eq!(code == 0, !opened.is_null());
    world.keep(opened);
}

/// One call of a function.
type Call = Box<dyn Fn(&mut World, &mut Unstructured<'_>) -> Result<()> + Send + Sync>;

macro_rules! calls {
    ($($shape:ident [$($function:path)*])*) => {
        LazyLock::new(|| vec![$($($shape($function)),*),*])
    };
}

/// All functions but those that free, which have no arguments, or may lead out of this process.
static CALLS: LazyLock<Vec<Call>> = calls! {
    call1 [
        elector::quorate_elector_token ephemeral::quorate_ephemeral_token error::quorate_code_text
        error::quorate_loss_text guard::quorate_guard_token guard::quorate_guard_is_held
        guard::quorate_guard_loss guard::quorate_guard_lease guard::quorate_guard_remaining_ms
        session::quorate_session_lease session::quorate_session_ttl_ms
        session::quorate_session_remaining_ms tracker::quorate_tracker_is_stale
        ttl_key::quorate_ttl_key_lease
    ]
    call2 [
        cancel::quorate_cancel_new cancel::quorate_cancel_trigger ephemeral::quorate_ephemeral_state
        picker::quorate_pick_failed picker::quorate_pick_succeeded
        registration::quorate_registration_state session::quorate_session_state txn::quorate_txn_new
    ]
    call3 [
        cancel::quorate_cancel_fd config::quorate_config_current config::quorate_config_fd
        election::quorate_leaders_fd elector::quorate_elector_state elector::quorate_elector_fd
        ephemeral::quorate_ephemeral_fd guard::quorate_guard_key guard::quorate_guard_lost_fd
        health::quorate_health_monitor_fd observer::quorate_observer_fd picker::quorate_picker_pick
        picker::quorate_pick_instance registration::quorate_registration_fd session::quorate_session_fd
        tracker::quorate_tracker_snapshot tracker::quorate_tracker_fd txn::quorate_txn_if_held
        txn::quorate_txn_if_leading
    ]
    call4 [
        client::quorate_client_namespace client::quorate_client_close election::quorate_election_observe
        elector::quorate_elector_stop ephemeral::quorate_ephemeral_release guard::quorate_guard_release
        health::quorate_health_monitor_open picker::quorate_picker_new
        registration::quorate_registration_release session::quorate_session_close
        ttl_key::quorate_ttl_key_delete txn::quorate_txn_nest
    ]
    call5 [
        config::quorate_config_next election::quorate_leaders_next elector::quorate_elector_next
        ephemeral::quorate_ephemeral_set guard::quorate_guard_wait_lost guard::quorate_guard_proclaim
        health::quorate_health_monitor_next lease::quorate_lease_revoke observer::quorate_observer_next
        registration::quorate_registration_set registration::quorate_registration_drain
        service::quorate_service_list session::quorate_session_wait_lost tracker::quorate_tracker_next
        ttl_key::quorate_ttl_key_refresh ttl_key::quorate_ttl_key_set txn::quorate_txn_if_value
        txn::quorate_txn_if_create_revision txn::quorate_txn_if_mod_revision txn::quorate_txn_if_version
        txn::quorate_txn_if_lease txn::quorate_txn_get txn::quorate_txn_delete
    ]
    call6 [
        election::quorate_election_leader election::quorate_election_candidates
        elector::quorate_elector_start ephemeral::quorate_ephemeral_next health::quorate_health_check
        kv::quorate_list lease::quorate_lease_look lock::quorate_lock_contenders
        registration::quorate_registration_next session::quorate_session_open
        session::quorate_session_next txn::quorate_txn_commit
    ]
    call7 [
        config::quorate_config_get config::quorate_config_open kv::quorate_get kv::quorate_range
        lease::quorate_lease_grant lock::quorate_lock_acquire lock::quorate_lock_try_acquire
        lock::quorate_lock_break observer::quorate_observe service::quorate_service_instances
        tracker::quorate_tracker_open txn::quorate_txn_put
    ]
    call8 [
        config::quorate_config_set election::quorate_election_campaign
        ephemeral::quorate_ephemeral_create kv::quorate_delete ttl_key::quorate_ttl_key_put
    ]
    call9 [
        kv::quorate_put kv::quorate_put_if_absent registration::quorate_register
    ]
    call10 [
        kv::quorate_put_if_revision kv::quorate_put_if_value
    ]
};

macro_rules! frees {
    ($($function:path)*) => {
        /// Frees everything that was given out.
        fn free_all(world: &mut World) {
            $(world.free($function);)*
        }

        /// Frees something, or what is no such thing.
        static FREES: LazyLock<Vec<Call>> = LazyLock::new(|| vec![$(call1($function)),*]);
    };
}

frees! {
    cancel::quorate_cancel_free client::quorate_client_free config::quorate_config_free
    config::quorate_document_free config::quorate_config_update_free election::quorate_leaders_free
    election::quorate_contender_free elector::quorate_elector_free elector::quorate_leader_state_free
    ephemeral::quorate_ephemeral_free error::quorate_error_free guard::quorate_guard_free
    guard::quorate_buffer_free health::quorate_health_monitor_free health::quorate_health_report_free
    kv::quorate_kv_free kv::quorate_kvs_free lease::quorate_lease_status_free
    lock::quorate_contenders_free observer::quorate_observer_free observer::quorate_observed_free
    picker::quorate_pick_free picker::quorate_registered_free picker::quorate_picker_free
    registration::quorate_registration_free service::quorate_instances_free
    service::quorate_services_free session::quorate_session_free tracker::quorate_tracker_free
    tracker::quorate_change_free ttl_key::quorate_ttl_key_free txn::quorate_txn_free
    txn::quorate_txn_result_free
}

macro_rules! shapes {
    ($($shape:ident ($($arg:ident)*))*) => {$(
        #[allow(non_snake_case)]
        fn $shape<$($arg: Pass + 'static,)* R: Told + 'static>(
            function: extern "C" fn($($arg),*) -> R,
        ) -> Call {
            Box::new(move |world, u| {
                $(let $arg = $arg::pass(world, u)?;)*
                let told = function($($arg),*);
                world.look(told.code());
                Ok(())
            })
        }
    )*};
}

shapes! {
    call1(A)
    call2(A B)
    call3(A B C)
    call4(A B C D)
    call5(A B C D E)
    call6(A B C D E F)
    call7(A B C D E F G)
    call8(A B C D E F G H)
    call9(A B C D E F G H I)
    call10(A B C D E F G H I J)
}

/// What the caller has.
#[derive(Default)]
struct World {
    /// What was given out, by its type; freed things stay.
    given: BTreeMap<TypeId, Vec<usize>>,
    /// The outputs of the call under way.
    outputs: Vec<Output>,
    /// Inputs live as long as anything.
    inputs: Vec<Box<[u8]>>,
    /// What options were made of.
    options: Vec<Options>,
}

/// A place that a call may write to.
struct Output {
    at: *mut (),
    /// Takes what is there, and tells whether that is an error.
    take: fn(*mut (), &mut World) -> Option<bool>,
}

struct Options {
    at: *mut (),
    drop: fn(*mut ()),
}

impl World {
    fn keep<T: 'static>(&mut self, given: *mut T) {
        if !given.is_null() {
            self.given
                .entry(TypeId::of::<T>())
                .or_default()
                .push(given.addr());
        }
    }

    /// Something that is given for a thing of this type.
    fn thing<T: 'static>(&self, u: &mut Unstructured<'_>) -> Result<*mut T> {
        let number = match u.int_in_range(0..=15)? {
            0 => 0,
            1 => u.int_in_range(0..=64)?,
            2 => u.arbitrary()?,
            3 => {
                let all: Vec<_> = self.given.values().flatten().collect();
                if all.is_empty() { 0 } else { **u.choose(&all)? }
            }
            _ => match self.given.get(&TypeId::of::<T>()) {
                Some(given) if u.ratio(1, 2)? => given[given.len() - 1],
                Some(given) => *u.choose(given)?,
                None => 0,
            },
        };
        Ok(ptr::without_provenance_mut(number))
    }

    fn free<T: 'static>(&mut self, function: extern "C" fn(*mut T)) {
        for number in self.given.remove(&TypeId::of::<T>()).unwrap_or_default() {
            function(ptr::without_provenance_mut(number));
        }
    }

    /// Looks at what the call under way put out.
    fn look(&mut self, code: Option<i32>) {
        let mut error = None;
        for output in std::mem::take(&mut self.outputs) {
            error = (output.take)(output.at, self).or(error);
        }
        if let (Some(code), Some(error)) = (code, error) {
            assert_eq!(code != 0, error, "code {code}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for options in self.options.drain(..) {
            (options.drop)(options.at);
        }
        // What an input that ended too soon would have passed.
        self.look(None);
    }
}

/// What a function returns.
trait Told {
    /// The code, if it is one.
    fn code(&self) -> Option<i32>;
}

/// What has an output for errors returns a code.
impl Told for i32 {
    fn code(&self) -> Option<i32> {
        Some(*self)
    }
}

/// Defines what is no code.
macro_rules! told {
    ($($kind:ty)*) => {$(
        impl Told for $kind {
            fn code(&self) -> Option<i32> {
                None
            }
        }
    )*};
}

told! { () bool i64 *const std::ffi::c_char }

/// What is passed for a parameter of a type.
trait Pass: Sized {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self>;
}

impl<T: 'static> Pass for *mut T {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        world.thing(u)
    }
}

impl<T: 'static> Pass for *const T {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        if TypeId::of::<T>() == TypeId::of::<cancel::quorate_cancel>() && u.ratio(7, 8)? {
            return Ok(ptr::null());
        }
        Ok(world.thing::<T>(u)?.cast_const())
    }
}

impl Pass for i32 {
    fn pass(_: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(*u.choose(&[0, 0, 1, 2, 3, 4, 5, -1, 9, Self::MAX, Self::MIN])?)
    }
}

impl Pass for i64 {
    fn pass(_: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(*u.choose(NUMBERS)?)
    }
}

impl Pass for bool {
    fn pass(_: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        u.arbitrary()
    }
}

impl Pass for quorate_bytes {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        let (data, len) = match u.int_in_range(0..=15)? {
            0 => (ptr::null(), 0),
            1 => (ptr::null(), 3),
            // Nobody reads that much.
            2 => (NAMES[0].as_ptr(), QUORATE_MAX_LEN + 1),
            3 => (NAMES[0].as_ptr(), usize::MAX),
            4 | 5 => {
                let length = u.int_in_range(0..=12)?.min(u.len());
                let bytes: Box<[u8]> = u.bytes(length)?.into();
                let passed = (bytes.as_ptr(), bytes.len());
                world.inputs.push(bytes);
                passed
            }
            _ => {
                let name = u.choose(NAMES)?;
                (name.as_ptr(), name.len())
            }
        };
        Ok(Self { data, len })
    }
}

impl Pass for quorate_keys {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self {
            kind: u.int_in_range(-1..=4)?,
            key: Pass::pass(world, u)?,
            end: Pass::pass(world, u)?,
        })
    }
}

/// Something that functions put out.
trait Put: Copy + 'static {
    /// Takes it, and tells whether it is an error.
    fn put(self, world: &mut World) -> Option<bool>;
}

impl<T: 'static> Put for *mut T {
    fn put(self, world: &mut World) -> Option<bool> {
        world.keep(self);
        let is_error = TypeId::of::<T>() == TypeId::of::<error::quorate_error>();
        is_error.then_some(!self.is_null())
    }
}

/// Defines what is only written.
macro_rules! put {
    ($($kind:ty)*) => {$(
        impl Put for $kind {
            fn put(self, _: &mut World) -> Option<bool> {
                None
            }
        }
    )*};
}

put! { bool i32 i64 u64 }

impl<T: Put> Pass for Option<&'static mut MaybeUninit<T>> {
    fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
        if u.ratio(1, 16)? {
            return Ok(None);
        }
        let place: *mut MaybeUninit<T> = Box::into_raw(Box::new(MaybeUninit::zeroed()));
        world.outputs.push(Output {
            at: place.cast(),
            take: |at, world| {
                // SAFETY: it comes from the box above, and the call that it was lent to has ended.
                let place = unsafe { Box::from_raw(at.cast::<MaybeUninit<T>>()) };
                // SAFETY: it was zeroed, which is a value of every output.
                unsafe { place.assume_init() }.put(world)
            },
        });
        // SAFETY: it is used by one call, and taken back after that.
        Ok(Some(unsafe { &mut *place }))
    }
}

/// Defines options, by those of their fields that are not always zero.
macro_rules! options {
    ($($options:path { $($field:ident: $make:expr),* $(,)? })*) => {$(
        impl Pass for Option<&'static $options> {
            fn pass(world: &mut World, u: &mut Unstructured<'_>) -> Result<Self> {
                if u.ratio(1, 4)? {
                    return Ok(None);
                }
                // SAFETY: C initializes options by zeros.
                let mut options: $options = unsafe { std::mem::zeroed() };
                $({
                    let make: fn(&mut World, &mut Unstructured<'_>) -> Result<_> = $make;
                    if u.ratio(1, 2)? {
                        options.$field = make(world, u)?;
                    }
                })*
                let at: *mut $options = Box::into_raw(Box::new(options));
                world.options.push(Options {
                    at: at.cast(),
                    // SAFETY: it comes from the box above, and is dropped once.
                    drop: |at| drop(unsafe { Box::from_raw(at.cast::<$options>()) }),
                });
                // SAFETY: it lives as long as the world, and nobody writes it.
                Ok(Some(unsafe { &*at }))
            }
        }
    )*};
}

fn extreme(_: &mut World, u: &mut Unstructured<'_>) -> Result<i64> {
    Ok(*u.choose(EXTREMES)?)
}

fn reserved(_: &mut World, u: &mut Unstructured<'_>) -> Result<[u64; 4]> {
    Ok([0, 0, 0, u64::from(u.ratio(1, 8)?)])
}

options! {
    config::quorate_config_options {
        prefix: Pass::pass,
        format: Pass::pass,
        default_document: Pass::pass,
        debounce_ms: extreme,
        when_down: Pass::pass,
        reserved: reserved,
    }
    election::quorate_election_options {
        ttl_ms: extreme,
        session: Pass::pass,
        reserved: reserved,
    }
    ephemeral::quorate_ephemeral_options {
        ttl_ms: extreme,
        take_over: Pass::pass,
        reserved: reserved,
    }
    health::quorate_health_options {
        interval_ms: extreme,
        quota: |_, u| u.arbitrary(),
        max_lag: |_, u| u.arbitrary(),
        only_endpoints: Pass::pass,
        reserved: reserved,
    }
    kv::quorate_put_options {
        lease: extreme,
        ignore_value: Pass::pass,
        ignore_lease: Pass::pass,
        reserved: reserved,
    }
    kv::quorate_range_options {
        revision: extreme,
        limit: extreme,
        min_mod_revision: extreme,
        max_mod_revision: extreme,
        min_create_revision: extreme,
        max_create_revision: extreme,
        sort_by: Pass::pass,
        descending: Pass::pass,
        keys_only: Pass::pass,
        count_only: Pass::pass,
        serializable: Pass::pass,
        reserved: reserved,
    }
    lock::quorate_lock_options {
        ttl_ms: extreme,
        session: Pass::pass,
        max_hold_ms: extreme,
        holder: Pass::pass,
        reserved: reserved,
    }
    observer::quorate_observe_options {
        start: Pass::pass,
        revision: extreme,
        prev: Pass::pass,
        puts_only: Pass::pass,
        deletes_only: Pass::pass,
        until_deleted: Pass::pass,
        reserved: reserved,
    }
    service::quorate_instance {
        address: Pass::pass,
        metadata: Pass::pass,
        weight: |_, u| u.arbitrary(),
        draining: Pass::pass,
    }
    service::quorate_service_options {
        root: Pass::pass,
        layout: Pass::pass,
        take_over: Pass::pass,
        ttl_ms: extreme,
        reserved: reserved,
    }
}

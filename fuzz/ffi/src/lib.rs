//! The modules of `crates/ffi`, public: a shared library has nothing that Rust can call.
#![allow(
    non_camel_case_types,
    dead_code,
    missing_docs,
    clippy::too_many_arguments
)]

/// Declares the modules of the library.
macro_rules! modules {
    ($($path:literal $name:ident)*) => {$(
        #[path = $path]
        pub mod $name;
    )*};
}

modules! {
    "../../../crates/ffi/src/aside.rs" aside
    "../../../crates/ffi/src/bytes.rs" bytes
    "../../../crates/ffi/src/cancel.rs" cancel
    "../../../crates/ffi/src/client.rs" client
    "../../../crates/ffi/src/config.rs" config
    "../../../crates/ffi/src/election.rs" election
    "../../../crates/ffi/src/elector.rs" elector
    "../../../crates/ffi/src/ephemeral.rs" ephemeral
    "../../../crates/ffi/src/error.rs" error
    "../../../crates/ffi/src/etcd_api.rs" etcd_api
    "../../../crates/ffi/src/events.rs" events
    "../../../crates/ffi/src/guard.rs" guard
    "../../../crates/ffi/src/handle.rs" handle
    "../../../crates/ffi/src/health.rs" health
    "../../../crates/ffi/src/kv.rs" kv
    "../../../crates/ffi/src/lease.rs" lease
    "../../../crates/ffi/src/lock.rs" lock
    "../../../crates/ffi/src/observer.rs" observer
    "../../../crates/ffi/src/output.rs" output
    "../../../crates/ffi/src/picker.rs" picker
    "../../../crates/ffi/src/process.rs" process
    "../../../crates/ffi/src/registration.rs" registration
    "../../../crates/ffi/src/service.rs" service
    "../../../crates/ffi/src/session.rs" session
    "../../../crates/ffi/src/signal.rs" signal
    "../../../crates/ffi/src/tracker.rs" tracker
    "../../../crates/ffi/src/ttl_key.rs" ttl_key
    "../../../crates/ffi/src/txn.rs" txn
    "../../../crates/ffi/src/version.rs" version
    "../../../crates/ffi/src/wait.rs" wait
}

/// How many handles are given out.
pub fn handles() -> usize {
    handle::count()
}

//! Bad input for every door of quorate.
//!
//! Each target takes any bytes and makes of them what somebody may send, say or pass. Whatever that is,
//! the answer is an error of ours: no panic, no hang, no more memory than it deserves, and no contract
//! broken that is cheap to check. `cargo xtask fuzz` looks for input that does otherwise, guided by
//! coverage; what it found of use is in `corpus/`, and every test run tries that again.
//!
//! Time stands still but for what is waited for, so that a call that hangs shows at once: nothing but
//! its timeout is left to happen.
//!
//! # Layout
//!
//! - `targets`: what is fuzzed, one file each
//! - `hostile`: a server that lies, and clients that rely on it
//! - `message`: random messages, by their descriptors
//! - `call`: calls of gRPC, and what their answers may be

mod call;
mod hostile;
mod message;
mod targets;

pub use targets::TARGETS;

use std::{
    panic,
    sync::{
        LazyLock, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// What takes an input.
pub type Target = fn(&[u8]);

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target)
}

/// All messages and services.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_wire::DESCRIPTORS).expect("the descriptors are generated")
});

/// The methods of all services.
static METHODS: LazyLock<Vec<MethodDescriptor>> = LazyLock::new(|| {
    let services = POOL.services();
    services
        .flat_map(|it| it.methods().collect::<Vec<_>>())
        .collect()
});

/// Runs an input on paused time.
fn paused(test: impl Future<Output = ()>) {
    heed_panics();
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O")
        .block_on(test);
    assert_calm();
}

/// Whether anything panicked; the runtime keeps to itself what a task did.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn assert_calm() {
    assert!(!PANICKED.load(Ordering::Relaxed), "a task panicked");
}

fn heed_panics() {
    static HEEDED: Once = Once::new();
    HEEDED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Relaxed);
            before(panic);
        }));
    });
}

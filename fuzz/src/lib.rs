//! What the fuzz targets share: messages of any type, and how a server is asked.
//!
//! Time stands still but for what is waited for, so that a call that hangs shows at once: nothing but
//! its timeout is left to happen.
//!
//! # Layout
//!
//! - `message`: random messages, by their descriptors
//! - `call`: calls of gRPC, and what their answers may be

pub mod call;
pub mod message;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// All messages and services.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_wire::DESCRIPTORS).expect("the descriptors are generated")
});

/// The methods of all services.
pub static METHODS: LazyLock<Vec<MethodDescriptor>> = LazyLock::new(|| {
    let services = POOL.services();
    services
        .flat_map(|it| it.methods().collect::<Vec<_>>())
        .collect()
});

/// Runs an input on paused time.
pub fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O")
        .block_on(test);
}

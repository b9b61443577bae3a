//! Whether quorate keeps its promises, whatever happens.
//!
//! - [`simulate`]: the library on the store in memory, on virtual time, under random schedules of faults
//! - `torture`: processes on real clusters under faults, and the check of what they saw
//! - `tests/model`: the protocol of locks and elections as a model whose every state is visited

pub mod simulate;

//! The semantics of an etcd v3 store as a pure state machine.
//!
//! [`Store`] applies transactions, reads at any revision that is kept, grants and expires leases and
//! replays its history to watchers. It sees no clock (time is an argument), no task, no socket and no
//! randomness, so the same calls always give the same answers.
//!
//! # Layout
//!
//! - `key`: [`Key`], [`Value`], [`KeyRange`]
//! - `kv`: [`KeyValue`], [`Revision`], [`LeaseId`], [`Header`], [`Event`]
//! - `request`: what can be asked ([`Range`], [`Txn`], [`Compare`], [`Op`]) and what is answered
//! - `error`: what a request may be refused for, with etcd's texts

mod error;
mod key;
mod kv;
mod request;

pub use error::Error;
pub use key::{Key, KeyRange, RangeEnd, Value};
pub use kv::{Event, Header, KeyValue, LeaseId, Revision};
pub use request::{
    Compare, CompareOp, CompareTarget, CompareWhat, Delete, Granted, LeaseStatus, MAX_OPS, Op,
    OpResult, Order, Put, Range, RangeResult, SortBy, Txn, TxnResult, WatchBatch, WatchRequest,
};

//! Coordination recipes on etcd.

#![warn(clippy::disallowed_methods)]

mod admin;
pub mod backend;
mod claim;
mod client;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod connect;
#[doc(hidden)]
pub mod duration;
mod election;
mod elector;
mod error;
mod fenced;
mod gate;
mod holder;
#[cfg(feature = "serde")]
mod json;
mod kv;
mod lease;
mod link;
mod lock;
mod loss;
mod pulse;
mod queue;
mod retry;
mod runtime;
mod session;
mod sessions;
mod watch;

pub use client::Client;
pub use connect::ConnectOptions;
pub use election::{Election, Leader, Leaders, Leadership};
pub use elector::{Elector, LeaderState, Term};
pub use error::{Error, ErrorKind, Result};
pub use fenced::Fenced;
pub use gate::TokenGate;
pub use holder::Holder;
pub use kv::{DeleteResult, Pages, PutResult, Swap, Transaction};
pub use lock::{Lock, LockGuard};
pub use loss::Loss;
pub use queue::Contender;
pub use quorate_engine::{
    Compare, CompareOp, CompareTarget, CompareWhat, Delete, Event, Granted, Header, Key, KeyRange,
    KeyValue, LeaseId, LeaseStatus, Op, OpResult, Order, Put, Range, RangeEnd, RangeResult,
    Revision, SortBy, Txn, TxnResult, Value, WatchBatch, WatchRequest,
};
pub use runtime::{Moment, Runtime, TokioRuntime};
pub use session::{Session, SessionState};
pub use watch::Watch;

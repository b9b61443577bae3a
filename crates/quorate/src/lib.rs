//! Coordination recipes on etcd.

mod admin;
pub mod backend;
mod client;
mod error;
mod kv;
mod lease;
mod link;
mod loss;
mod pulse;
mod retry;
mod runtime;
mod session;
mod sessions;
mod watch;

pub use client::Client;
pub use error::{Error, ErrorKind, Result};
pub use kv::{DeleteResult, Pages, PutResult, Swap, Transaction};
pub use loss::Loss;
pub use quorate_engine::{
    Compare, CompareOp, CompareTarget, CompareWhat, Delete, Event, Granted, Header, Key, KeyRange,
    KeyValue, LeaseId, LeaseStatus, Op, OpResult, Order, Put, Range, RangeEnd, RangeResult,
    Revision, SortBy, Txn, TxnResult, Value, WatchBatch, WatchRequest,
};
pub use runtime::{Moment, Runtime, TokioRuntime};
pub use session::{Session, SessionState};
pub use watch::Watch;

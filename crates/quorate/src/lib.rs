//! Coordination recipes on etcd.

pub mod backend;
pub mod connect;
#[doc(hidden)]
pub mod duration;
mod error;
mod loss;
mod runtime;

pub use connect::ConnectOptions;
pub use error::{Error, ErrorKind, Result};
pub use loss::Loss;
pub use quorate_engine::{
    Compare, CompareOp, CompareTarget, CompareWhat, Delete, Event, Granted, Header, Key, KeyRange,
    KeyValue, LeaseId, LeaseStatus, Op, OpResult, Order, Put, Range, RangeEnd, RangeResult,
    Revision, SortBy, Txn, TxnResult, Value, WatchBatch, WatchRequest,
};
pub use runtime::{Moment, Runtime, TokioRuntime};

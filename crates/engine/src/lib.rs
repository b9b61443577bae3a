//! The semantics of an etcd v3 store as a pure state machine.
//!
//! [`Store`] applies transactions, reads at any revision that is kept, grants and expires leases and
//! replays its history to watchers. It sees no clock (time is an argument), no task, no socket and no
//! randomness, so the same calls always give the same answers. Where etcd 3.4 and 3.5 differ it
//! follows 3.5.
//!
//! ```
//! use quorate_engine::{Compare, Op, Range, Revision, Store, Txn, WatchRequest, Watcher};
//!
//! let mut store = Store::new(1, 1);
//! let (mut watcher, _) = Watcher::new(&store, WatchRequest::new("k"))?;
//! let create = Txn::new().when(Compare::absent("k")).then(Op::put("k", "v"));
//! assert!(store.txn(&create)?.succeeded);
//! assert!(!store.txn(&create)?.succeeded);
//!
//! let found = store.range(&Range::new("k"))?;
//! assert_eq!(found.kvs[0].create_revision, Revision(2));
//! let told = watcher.next(&store)?.expect("the key was created");
//! assert_eq!(told.events.len(), 1);
//! # Ok::<(), quorate_engine::Error>(())
//! ```
//!
//! # Layout
//!
//! - `key`: [`Key`], [`Value`], [`KeyRange`]
//! - `kv`: [`KeyValue`], [`Revision`], [`LeaseId`], [`Header`], [`Event`]
//! - `request`: what can be asked ([`Range`], [`Txn`], [`Op`]) and what is answered
//! - `compare`: the conditions of transactions ([`Compare`])
//! - `error`: what a request may be refused for, with etcd's texts
//! - `store`: [`Store`], the only mutable entry; ranges and compaction
//! - `txn`: how a transaction is checked, decided and applied
//! - `lease`: grants, the keys attached to them, their expiry
//! - `watch`: [`Watcher`], a cursor through the history
//! - `index`: the history of each key, for reads at a revision
//! - `log`: the changes of each revision, for watches
//! - `auth`: [`Auth`], the books of users and roles, and what they allow
//!
//! # What a client can tell from a real etcd
//!
//! - ids, raft terms, byte sizes, and when exactly a lease expires or a watch is served
//! - the shortest lease is one second; a real etcd raises short ones to its election timeout
//! - keys that are equal under a sort come in the order of the keys; a real etcd leaves it open
//! - two kinds of transactions that make a real etcd panic are harmless (see [`Store`])

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod auth;
mod compare;
mod error;
mod index;
mod key;
mod kv;
mod lease;
mod log;
mod request;
mod store;
mod txn;
mod watch;

pub use auth::{Auth, Password, Permission, PermissionKind, User};
pub use compare::{Compare, CompareOp, CompareTarget, CompareWhat};
pub use error::Error;
pub use key::{Key, KeyRange, RangeEnd, Value};
pub use kv::{Event, Header, KeyValue, LeaseId, Revision};
pub use request::{
    Delete, Granted, LeaseStatus, MAX_OPS, Op, OpResult, Order, Put, Range, RangeResult, SortBy,
    Txn, TxnResult, WatchBatch, WatchRequest,
};
pub use store::Store;
pub use watch::Watcher;

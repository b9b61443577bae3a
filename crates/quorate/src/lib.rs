//! Coordination recipes on etcd: locks, leader election, ephemeral keys, service discovery, observers,
//! shared configuration, cluster health.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> quorate::Result<()> {
//! use quorate::{Client, Op};
//!
//! // A store in this process; a cluster is "etcd://10.0.0.1:2379,10.0.0.2:2379".
//! let client = Client::connect("mem:").await?;
//! let guard = client.lock("jobs/nightly").acquire().await?;
//! let work = async {
//!     // Applied only if the lock is still held when the store gets it.
//!     let write = client.txn().when(guard.fence()).then(Op::put("jobs/last", "42"));
//!     write.commit().await
//! };
//! let done = guard.protect(work).await??; // an error as soon as the hold is lost
//! assert!(done.succeeded);
//! guard.release().await
//! # }
//! ```
//!
//! [`connect`] has the grammar of addresses. [`_coming_from`] maps the calls of other libraries to the
//! calls here, and [`_design`] tells why things are as they are.
//!
//! # Recipes
//!
//! | type | guard | what you get |
//! | --- | --- | --- |
//! | [`Lock`] | [`LockGuard`] | a fair mutex across processes, machines and languages |
//! | [`Lock::acquire_detached`] | [`Detached`] | a hold that outlives its process, renewed and released by its token |
//! | [`Election`] | [`Leadership`] | one leader at a time; [`Leaders`] follows who that is |
//! | [`Elector`], [`Election::run`] | [`Term`] | campaigns again after every loss; a task that runs only while it leads |
//! | [`Fenced`] | that of the lock or the leadership | a value in etcd that only the present holder reads and writes |
//! | [`TokenGate`] | none | keeps former holders away from a resource outside etcd |
//! | [`Ephemeral`] | [`EphemeralKey`] | a key that stands while its owner lives, and comes back by itself |
//! | [`Service`] | [`Registration`] | an instance of a service, registered while its process lives |
//! | [`Tracker`], [`Picker`] | none | who is there, every change of it, and whom to call next |
//! | [`Observer`] | none | the state of some keys, then every change, for ever |
//! | [`Config`] | [`ConfigWatch`] | typed configuration in a key or a prefix that programs take over without a restart |
//! | [`HealthCheck`], [`HealthMonitor`] | none | whether the cluster is up, degraded or down, and why |
//! | [`Session`] | itself | a lease kept alive, and until when it may be relied on |
//! | [`Watch`] | none | every change of keys, in order, across disconnects |
//! | [`Client`] | none | reads, writes, conditional writes, transactions, leases, administration |
//!
//! What a method is called on is inert: [`Client::lock`] and [`Client::election`] touch nothing, and
//! [`Lock::acquire`] does. The guards share one vocabulary: `token()`, `fence()`, `is_held()`, `lost()`
//! and `release()` (for a leadership, `resign()`).
//!
//! # Guarantees
//!
//! A guard is *held* while no loss was seen and the clock is before the session's deadline. That is
//! judged from three assumptions: the rates of clocks differ by no more than
//! [the drift](ConnectOptions::drift), the server ends no lease before its time, and nobody deletes
//! keys or revokes leases by hand.
//!
//! - Under these assumptions two guards of one lock, or leadership, are never held at the same time, and
//!   `lost()` fires before anybody else acquires if the loss comes from the lease; in a process that was
//!   paused, before its next look.
//! - Without any assumption, tokens strictly increase in the order of the holders, and a write under the
//!   fence of a former holder never commits after its successor's acquisition.
//! - Nobody is told that it holds whose session is lost or whose key was gone at the revision of the
//!   acquisition. A waiter that loses either fails at once.
//! - An acquire that was cancelled, timed out or failed leaves no key behind: a task removes it, and if
//!   that fails its lease does.
//! - Holders come in the order in which they asked, whatever dies in between.
//! - A [`Watch`] tells every change exactly once and in order, or ends with
//!   [`Compacted`](ErrorKind::Compacted). An [`Observer`] goes on: what is lost for good it replaces by the
//!   whole state.
//! - An [`EphemeralKey`] comes back after a lost session or a deletion by somebody, unless another owner
//!   has its path; it never overwrites or deletes what another owner put there.
//! - A [`Tracker`] is complete from the beginning, keeps what it knew while there is no connection, and
//!   says so. A document that cannot be used never replaces a [`Config`]'s last good value.
//! - No write is repeated by the library once it may have been applied, unless to apply it twice is the
//!   same as once.
//! - Every call ends by its deadline; a wait ends with its session or its caller.
//!
//! No lease, here or elsewhere, can stop a process that was paused between its last look and its write.
//! What must be safe even then is written under the guard's fence, or sent with its token to a resource
//! that refuses lower ones:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> quorate::Result<()> {
//! # let client = quorate::Client::connect("mem:").await?;
//! let guard = client.lock("accounts").acquire().await?;
//! // In etcd the fence is enough: read and write through the guard.
//! let balance = guard.fenced("accounts/7");
//! balance.set("100").await?;
//!
//! // Elsewhere the resource seals itself with the token before the holder reads from it.
//! let mut gate = quorate::TokenGate::new(); // stored with the resource
//! gate.seal(guard.token())?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! There is one [`Error`]. Its [`kind`](Error::kind) tells what the caller should do, and each
//! [`ErrorKind`] says so in its first words. Two questions stand beside it:
//!
//! - [`is_retryable`](Error::is_retryable): may the same call succeed later? No member answered in time,
//!   or none can serve it now.
//! - [`is_indefinite`](Error::is_indefinite): may the write have happened all the same? It was sent, and
//!   no answer told its fate.
//!
//! A read is never indefinite: repeat it if it is retryable. A write that is retryable and *not*
//! indefinite certainly did not happen: repeat it. A write that is indefinite is repeated only by who
//! knows that doing it twice is harmless, or has looked; a condition makes it so:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> quorate::Result<()> {
//! use quorate::{Client, Revision, Swap};
//!
//! /// Creates the key once, however often it has to ask.
//! async fn create(client: &Client, key: &str, value: &str) -> quorate::Result<bool> {
//!     let mut may_be_done = false;
//!     loop {
//!         match client.put_if_revision(key, Revision::ZERO, value).await {
//!             Ok(Swap::Done(_)) => return Ok(true),
//!             // There is one: ours, if an earlier attempt was applied after all.
//!             Ok(Swap::Refused(there)) => {
//!                 return Ok(may_be_done && there.is_some_and(|kv| kv.value == value));
//!             }
//!             Err(error) if error.is_retryable() => may_be_done |= error.is_indefinite(),
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! # let client = Client::connect("mem:").await?;
//! assert!(create(&client, "jobs/42", "worker-7").await?);
//! assert!(!create(&client, "jobs/42", "worker-8").await?);
//! # Ok(())
//! # }
//! ```
//!
//! The recipes need none of this. Their keys are unique, so they look for their own key and go on.
//!
//! # What it is not
//!
//! - No lock that is safe without a fence.
//! - No re-entrant lock: two acquisitions exclude each other, in one process too.
//! - No high-frequency mutex: each change of holder is a write that a cluster agrees on.
//! - No database layer: keys and values are bytes, and a transaction is one request.
//! - No client for etcd's version 2 interface.
//!
//! # Layout
//!
//! What can be used:
//!
//! - [`connect`]: addresses and [`ConnectOptions`]
//! - `client`: [`Client`]; its verbs are in `kv` (keys), `lease`, `watch` and `admin` (members, users)
//! - `session`, `loss`: [`Session`] and why it or a guard was lost
//! - `lock`, `detached`, `election`, `elector`, `fenced`, `gate`, `holder`: holds, and what is done under
//!   them
//! - `ephemeral`, `ttl_key`: keys that live as long as their owner, or as long as they are told to
//! - `registry`: services, their instances and trackers; [`balance`]: a gRPC channel to them
//! - `observer`, `changes`: observers and what they tell
//! - `config`, `history`: shared configuration, and the former values of a key
//! - `health`: the health of the cluster
//! - `error`: [`Error`] and [`ErrorKind`]
//! - `runtime`: [`Runtime`], the clock, randomness and tasks of one client
//! - [`backend`]: the contract with a store, and the stores that fulfil it
//!
//! What stands behind it:
//!
//! - `queue`: the fair queue that locks and elections share
//! - `claim`, `owner`: a leased key that we own, and the task that makes, watches and deletes it
//! - `keeper`: the task that keeps all ephemeral keys of a session
//! - `observation`, `shared_watch`: how observers come by what they tell, from one watch for all
//! - `sessions`, `pulse`: how sessions are made, and the one place that sends beats
//! - `link`: a client's way to its store, with a deadline for every call
//! - `retry`, `duration`: pauses between attempts, and durations as people write them
//!
//! # Features
//!
//! - **etcd** (default): real clusters over gRPC, with TLS. Without it there is only the store in memory,
//!   and none of gRPC is built.
//! - **raw**: the generated gRPC clients on a connection of the pool, from [`Client::etcd`], for what this
//!   library does not offer. They are those of crate `quorate-wire` and outside of semantic versioning;
//!   nothing is retried, renewed or timed.
//! - **config**: [`Config`], shared configuration that programs take over without a restart; brings serde,
//!   TOML and YAML.
//! - **serde**: [`Client::get_json`], [`Client::put_json`] and [`Client::update_json`]; typed metadata of
//!   instances.
//! - **tonic**: [`balance`], a channel for gRPC clients that follows the instances of a service.
//! - **testing**: [`backend::fault`], an adapter that fails on demand, and the conformance suite that every
//!   [`Backend`](backend::Backend) has to pass.
//! - **mutants**: bugs that this project's proofs plant into the library, to show that they would find
//!   them; for nobody else, and outside of semantic versioning.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The pages link to what every feature has.
#![cfg_attr(
    not(all(
        feature = "config",
        feature = "raw",
        feature = "testing",
        feature = "tonic"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod admin;
pub mod backend;
#[cfg(feature = "tonic")]
pub mod balance;
mod changes;
mod claim;
mod client;
#[cfg(feature = "config")]
mod config;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod connect;
mod detached;
#[doc(hidden)]
pub mod duration;
mod election;
mod elector;
mod ephemeral;
mod error;
#[doc(hidden)]
pub mod etcd_api;
mod fenced;
mod gate;
mod health;
mod history;
mod holder;
#[cfg(feature = "serde")]
mod json;
mod keeper;
mod kv;
mod lease;
mod link;
mod lock;
mod loss;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
mod observation;
mod observer;
mod owner;
mod pulse;
mod queue;
mod registry;
mod retry;
mod runtime;
mod session;
mod sessions;
mod shared_watch;
mod ttl_key;
mod watch;

pub use changes::{Changes, Snapshot};
pub use client::Client;
#[cfg(feature = "config")]
pub use config::{
    Config, ConfigWatch, Document, Fields, Format, Rejected, Rejection, Update, WhenDown,
};
pub use connect::ConnectOptions;
pub use detached::Detached;
pub use election::{Election, Leader, Leaders, Leadership};
pub use elector::{Elector, LeaderState, LeaderStates, Term};
pub use ephemeral::{Ephemeral, EphemeralKey, EphemeralState, EphemeralStates};
pub use error::{Error, ErrorKind, Result};
pub use fenced::Fenced;
pub use gate::TokenGate;
pub use health::{Health, HealthCheck, HealthMonitor, HealthReport, MemberHealth, Problem, Reason};
pub use history::History;
pub use holder::Holder;
pub use kv::{DeleteResult, Pages, PutResult, Swap, Transaction};
pub use lock::{Lock, LockGuard};
pub use loss::Loss;
pub use observer::{Observed, Observer, Present};
pub use queue::Contender;
pub use quorate_engine::{
    Compare, CompareOp, CompareTarget, CompareWhat, Delete, Event, Granted, Header, Key, KeyRange,
    KeyValue, LeaseId, LeaseStatus, Op, OpResult, Order, Put, Range, RangeEnd, RangeResult,
    Revision, SortBy, Txn, TxnResult, Value, WatchBatch, WatchRequest,
};
pub use registry::{
    Change, Instance, Instances, Layout, Pick, Picker, Registration, Service, Strategy, Tracker,
};
pub use runtime::{Moment, Runtime, TokioRuntime};
pub use session::{Session, SessionState};
pub use ttl_key::TtlKey;
pub use watch::Watch;

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/design.md")]
pub mod _design {}

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/coming-from.md")]
pub mod _coming_from {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct _Readme;

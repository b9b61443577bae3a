#![doc = include_str!("../README.md")]
//!
//! # Layout
//!
//! What is called from C, one file a concept:
//!
//! - `version`, `error`, `bytes`, `cancel`: what all functions share
//! - `client`, `kv`, `txn`, `lease`, `ttl_key`: the store
//! - `session`, `lock`, `election`, `guard`, `elector`, `ephemeral`: what is held
//! - `service`, `registration`, `tracker`, `picker`: discovery
//! - `observer`, `config`, `health`: what changes
//! - `etcd_api`: the calls of the C library etcd-api, by their names; their header is written by hand
//!
//! What stands behind it:
//!
//! - `process`: the runtime and the tables of this process
//! - `handle`: what an opaque pointer stands for
//! - `output`: structs that C frees
//! - `wait`: blocking calls; `aside`: calls of a thread that ends
//! - `events`: one event ahead, and its descriptor (`signal`)
//!
//! The functions are not `unsafe`: handles are never dereferenced, outputs are references that may be
//! missing, and bytes are read in one place. What C has to promise stands in the conventions.

#![allow(non_camel_case_types)] // the names are those of C
#![allow(unreachable_pub)] // what C sees is public in private modules

mod aside;
mod bytes;
mod cancel;
mod client;
mod config;
mod election;
mod elector;
mod ephemeral;
mod error;
mod etcd_api;
mod events;
mod guard;
mod handle;
mod health;
mod kv;
mod lease;
mod lock;
mod observer;
mod output;
mod picker;
mod process;
mod registration;
mod service;
mod session;
mod signal;
mod tracker;
mod ttl_key;
mod txn;
mod version;
mod wait;

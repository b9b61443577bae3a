//! A server that lies, and clients that rely on it.
//!
//! The server is the genuine one. Between it and the client the input decides for each call, and for each
//! message of an answer, whether it comes through as it is, altered, late, twice, instead of another or
//! not at all. So lies come in the midst of what makes sense, where they do most harm. Once the input has
//! ended everything is honest, and whatever was begun must come to its end.
//!
//! # Layout
//!
//! - `lies`: what the input decides
//! - `server`: connections and calls; `answer`: the messages of one answer
//! - `clients`: what is done with a store, one program for each recipe

mod answer;
pub(crate) mod clients;
pub(crate) mod lies;
pub(crate) mod server;

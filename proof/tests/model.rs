//! The protocol of locks and elections as a model whose every state is visited.
//!
//! Two clients share one name on one server, over a network that loses, delays, doubles and reorders
//! requests and answers; a write may be applied although its answer is lost. Each step is named after
//! what it models in the library, and its comment names the function: sessions are granted and kept by
//! beats (`sessions.rs`, `pulse.rs`, `session.rs`), a key joins the queue and waits for the one before
//! it (`queue.rs`), the task that owns it watches and deletes it (`owner.rs`), a guard believes until
//! its deadline (`claim.rs`), values are read and written under a fence or a sealed gate (`fenced.rs`,
//! `gate.rs`). Clients pause between any two steps, clocks fall back by a tick for each lease, leases
//! end late, sessions are closed and lost, callers go away, waiters are deleted by hand. It is the heir
//! of a model in Murphi's language of a lease and its beat, and has more than that: a queue, a network, values.
//!
//! # What it says
//!
//! In every state that can be reached within the bounds, the promises of `model/properties.rs` hold. For
//! each there is a change of the protocol that breaks it, and the tests find that change by the shortest
//! way; and there are witnesses that waiting, losing, expiring and writing too late do happen.
//! That a waiter fails at once, that no key is left behind and that somebody is let in are checked in
//! states of rest, where nothing but beats and time is to come: so nobody there waits for what cannot be.
//!
//! # What it does not say
//!
//! - It is not the code: that the steps are those of the library was seen by reading.
//! - Two clients, one name, one server: members are there only as answers that are too old. A client has
//!   one session at a time and one older lease, one wanted acquisition and one that is being undone; of each
//!   kind of request of an acquisition one copy at a time that nobody awaits.
//! - Time comes in ticks: a lease has three, drift and margin together are one. Clocks only fall back: one
//!   that runs ahead ends the belief sooner, and a server that is slow ends leases late.
//! - Beats are sent at any time rather than at a third of the time to live. A read takes no time.
//! - No compaction, no restart or restore of the server, no refusals but that of an unknown lease, no
//!   `try_acquire`, `max_hold`, detached holds or values of candidates; of foreign keys none.
//! - At rest is no bound in time: that is for the simulation.
//!
//! # Bounds
//!
//! By default, in the time of two processors together (states that differ in the clients' names alone count
//! once):
//!
//! | test | ticks | acquisitions of each | troubles | states | processor time |
//! | --- | --- | --- | --- | --- | --- |
//! | `leases_protect_under_time_alone` | 5 | 1 | 0 | 1.04 M | 6 s |
//! | `who_acquires_again_disturbs_nobody` | 3 | 2 | 0 | 0.96 M | 5 s |
//! | `the_queue_survives_the_network_and_callers_who_leave` | 0 | 2 | 2 | 0.48 M | 2 s |
//! | `leases_and_queue_hold_together` | 3 | 1 | 1 | 1.47 M | 9 s |
//! | `with_a_server_that_revokes_early_the_fence_still_holds` | 3 | 1 | 1 | 1.63 M | 12 s |
//! | `with_a_server_that_revokes_early_the_sealed_gate_still_holds` | 3 | 1 | 1 | 2.25 M | 17 s |
//!
//! A trouble is an answer lost, a request doubled, a watch broken, a caller gone, a session closed, a key
//! deleted by hand or a lease ended early; requests are late, and answers to beats lost, without counting.
//! `HORIZON`, `ACQUIRES` and `TROUBLES` in the environment set the bounds of these tests, for as far as
//! memory and patience go: `TROUBLES=3 cargo test -p proof --test model the_queue` visits 5.8 M states in 35 s.

#[path = "model/check.rs"]
mod check;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/protocol.rs"]
mod protocol;
#[path = "model/server.rs"]
mod server;
#[path = "model/state.rs"]
mod state;
#[path = "model/steps.rs"]
mod steps;

use properties::{
    EXCLUSION, FAIR, FINAL, FORMER, KEYLESS, ONE_ENTRY, ORPHAN, TOKENS, UPDATES, VAIN,
};
use protocol::{
    Mutant::{self, *},
    Protocol, Value,
};

/// Time passes, and nothing else is in the way.
const TIME: Protocol = Protocol::new(5, 1, 0, Value::Fenced);
/// Time passes, and each client acquires again.
const AGAIN: Protocol = Protocol::new(3, 2, 0, Value::Untouched);
/// Requests and answers are lost, late and doubled; callers go away, waiters are removed.
const NETWORK: Protocol = Protocol::new(0, 2, 2, Value::Untouched);
/// Some of each.
const ALL: Protocol = Protocol::new(3, 1, 1, Value::Fenced);
/// The server may end a lease before its time.
const EARLY: Protocol = Protocol { early: true, ..ALL };

/// Enough to find what is done otherwise.
const TICKS: Protocol = Protocol::new(4, 1, 0, Value::Untouched);
const WRITES: Protocol = Protocol::new(3, 1, 0, Value::Fenced);
const REVOKED: Protocol = Protocol {
    early: true,
    ..Protocol::new(0, 1, 1, Value::Fenced)
};

#[test]
fn leases_protect_under_time_alone() {
    TIME.exhaust();
}

#[test]
fn who_acquires_again_disturbs_nobody() {
    AGAIN.exhaust();
}

#[test]
fn the_queue_survives_the_network_and_callers_who_leave() {
    NETWORK.exhaust();
}

#[test]
fn leases_and_queue_hold_together() {
    ALL.exhaust();
}

#[test]
fn a_deadline_from_the_receipt_of_an_answer_is_caught() {
    caught(TICKS, DeadlineFromReceipt, EXCLUSION, 17);
}

#[test]
fn a_deadline_without_margin_is_caught() {
    caught(TICKS, NoMargin, EXCLUSION, 10);
}

#[test]
fn a_late_answer_that_revives_a_lost_session_is_caught() {
    caught(TICKS, LateAnswerRevives, FINAL, 5);
    caught(TICKS, LateAnswerRevives, EXCLUSION, 12);
}

#[test]
fn an_admission_that_is_not_held_against_the_deadline_is_caught() {
    caught(TICKS, DeadlineNotChecked, TOKENS, 9);
    caught(TICKS, DeadlineNotChecked, KEYLESS, 6);
}

#[test]
fn an_own_key_that_is_not_verified_is_caught() {
    caught(NETWORK, OwnKeyNotVerified, KEYLESS, 11);
    caught(NETWORK, OwnKeyNotVerified, EXCLUSION, 14);
}

#[test]
fn a_waiter_that_does_not_watch_its_own_key_is_caught() {
    caught(NETWORK, OwnKeyNotWatched, VAIN, 9);
}

#[test]
fn a_waiter_that_holds_as_soon_as_its_predecessor_is_gone_is_caught() {
    caught(NETWORK, PredecessorGoneIsFirst, FAIR, 12);
    caught(NETWORK, PredecessorGoneIsFirst, EXCLUSION, 13);
}

#[test]
fn a_watch_that_is_not_followed_by_a_look_is_caught() {
    caught(NETWORK, NoLookOnceWatched, VAIN, 7);
}

#[test]
fn an_answer_older_than_the_watch_that_is_believed_is_caught() {
    caught(NETWORK, OlderAnswerBelieved, VAIN, 9);
}

#[test]
fn a_key_that_a_cancelled_caller_leaves_behind_is_caught() {
    caught(NETWORK, OrphanOnCancel, ORPHAN, 3);
}

#[test]
fn a_key_that_is_made_after_everybody_went_away_is_caught() {
    caught(NETWORK, LateCreateNotAwaited, ORPHAN, 3);
}

#[test]
fn a_creation_that_is_blindly_retried_is_caught() {
    caught(NETWORK, BlindRetry, ONE_ENTRY, 3);
}

/// Names that are never used again and the comparison of the create revision each suffice; the library
/// has both.
#[test]
fn a_release_by_a_name_that_is_used_again_is_caught() {
    NETWORK.with(DeleteByName).exhaust();
    NETWORK.with(SharedName).exhaust();
    caught(NETWORK, SharedNameDeleted, KEYLESS, 9);
    caught(NETWORK, SharedNameDeleted, EXCLUSION, 12);
}

#[test]
fn a_value_without_a_fence_loses_updates() {
    let bare = WRITES.of(Value::Bare);
    assert_eq!(bare.shortest(UPDATES), 14);
    assert_eq!(bare.shortest(FORMER), 11);
}

#[test]
fn a_gate_that_only_writes_pass_loses_updates() {
    assert_eq!(WRITES.of(Value::GatedWrites).shortest(UPDATES), 14);
}

#[test]
fn with_a_server_that_revokes_early_two_believe_to_hold() {
    assert_eq!(REVOKED.shortest(EXCLUSION), 7);
}

#[test]
fn with_a_server_that_revokes_early_the_fence_still_holds() {
    EARLY.exhaust();
}

#[test]
fn with_a_server_that_revokes_early_the_sealed_gate_still_holds() {
    EARLY.of(Value::Sealed).exhaust();
}

#[test]
fn with_a_server_that_revokes_early_less_than_fence_and_seal_loses_updates() {
    assert_eq!(REVOKED.of(Value::Bare).shortest(UPDATES), 13);
    assert_eq!(REVOKED.of(Value::GatedWrites).shortest(UPDATES), 13);
}

#[track_caller]
fn caught(protocol: Protocol, mutant: Mutant, promise: &'static str, steps: usize) {
    let found = protocol.with(mutant).shortest(promise);
    assert_eq!(found, steps, "{promise}, {mutant:?}");
}

//! The conformance suite: what every [`Backend`](crate::backend::Backend) must do, as tests.
//!
//! [`conformance!`](crate::conformance!) makes one test of every case, so that no backend leaves a case
//! out. It takes a name for the module of the tests, and how to come by a backend: an async function or
//! closure that is given a [`Need`] and returns a backend, or a [`Subject`].
//!
//! ```
//! use quorate::backend::Memory;
//!
//! quorate::conformance!(memory, async |_| Memory::new());
//! ```
//!
//! A store that other cases use at the same time is handed out for [`Need::Shared`]; the cases keep to
//! keys, leases, users and roles of their own and clean the latter up. A case that compacts the store
//! asks for one [alone](Need::Alone): nobody else may use it until the [`Subject`] is dropped, but it
//! need not be new. That is also the answer to needs that a later version may add.
//!
//! ```
//! use std::sync::Arc;
//! use quorate::{backend::{Memory, Namespace}, conformance::{Need, Subject}};
//! use tokio::sync::{Mutex, MutexGuard};
//!
//! static ALONE: Mutex<()> = Mutex::const_new(());
//!
//! async fn store(need: Need) -> Subject {
//!     match need {
//!         Need::Shared => Subject::from(Namespace::new(Arc::new(Memory::named("one")), "ns/")),
//!         _ => {
//!             let turn: MutexGuard<'static, ()> = ALONE.lock().await;
//!             Subject::from(Namespace::new(Arc::new(Memory::named("two")), "ns/")).keeping(turn)
//!         }
//!     }
//! }
//!
//! quorate::conformance!(namespace, store);
//! ```
//!
//! Where etcd 3.4 and 3.5 differ, a case accepts both. The suite is no proof of equality with etcd, but
//! a backend that passes it carries every recipe of this library.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod kv;
#[doc(hidden)]
pub mod lease;
#[doc(hidden)]
pub mod refusal;
mod subject;
#[doc(hidden)]
pub mod txn;
#[doc(hidden)]
pub mod watch;

use std::time::Duration;

pub use self::subject::Subject;

/// How long a case may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a case needs of the store that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Nobody else may use the store meanwhile: the case compacts it, or looks at all of it.
    Alone,
    /// Other cases may use the store at the same time.
    Shared,
}

/// Makes one test of every conformance case, for one backend; see [the suite](mod@crate::conformance).
#[macro_export]
macro_rules! conformance {
    ($name:ident, $factory:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__conformance_table! { $factory }
        }
    };
}

/// The table of all cases: file, need, names.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    ($factory:expr) => {
        $crate::__conformance_tests! { $factory;
            admin, Shared:
                the_members_are_listed,
                every_endpoint_tells_its_status,
                a_healthy_store_has_no_alarm,
                users_come_and_go,
                what_cannot_be_done_to_a_user_is_refused,
                users_have_the_roles_that_they_are_given,
                roles_have_the_permissions_that_they_are_given,
                what_cannot_be_done_to_a_role_is_refused,
                the_state_of_authentication_can_be_asked,
            ;
            kv, Alone:
                a_compaction_refuses_older_reads_and_no_others,
                a_compaction_keeps_what_stood_at_its_revision,
                a_compaction_goes_forward_and_not_beyond_the_present,
            ;
            kv, Shared:
                a_key_that_was_never_put_is_absent,
                a_put_makes_the_key_at_the_revision_of_its_answer,
                a_second_put_raises_the_version_and_keeps_the_create_revision,
                a_put_of_the_same_value_is_a_change_too,
                a_key_that_is_put_after_its_deletion_is_made_anew,
                keys_and_values_are_any_bytes,
                every_revision_reads_as_it_was,
                a_read_at_a_future_revision_is_refused,
                a_range_holds_its_first_key_and_not_its_end,
                a_range_whose_end_is_not_above_its_start_is_empty,
                a_range_without_an_end_goes_on_to_the_last_key,
                a_limit_leaves_the_count_alone_and_tells_of_more,
                pages_by_limit_and_revision_make_up_the_whole,
                a_range_is_sorted_by_each_target_in_both_directions,
                a_sort_comes_before_the_limit,
                keys_only_leaves_the_values_out,
                count_only_returns_the_count_alone,
                revision_bounds_leave_keys_out_but_not_of_the_count,
                bounds_come_before_the_limit,
                a_serializable_read_comes_to_see_what_was_written,
                no_key_at_all_is_refused,
                every_answer_names_the_cluster_the_member_and_a_term,
            ;
            lease, Shared:
                a_lease_is_granted_with_the_caller_s_id_and_at_least_its_time,
                the_shortest_lease_lasts_a_second_or_more,
                without_an_id_the_store_chooses_one,
                an_id_that_is_taken_is_refused,
                a_time_to_live_beyond_bounds_is_refused,
                a_revoked_lease_takes_its_keys_along_at_one_revision,
                an_unknown_lease_cannot_be_revoked,
                a_put_moves_its_key_to_another_lease_or_to_none,
                a_key_that_was_deleted_and_put_without_its_lease_survives_it,
                a_lease_tells_its_times_and_its_keys_if_asked,
                an_unknown_lease_has_no_time_left,
                the_leases_that_live_are_listed,
                a_lease_that_nobody_keeps_alive_expires_with_its_keys,
                a_beat_counts_the_time_anew,
                a_beat_of_an_unknown_lease_is_answered_with_no_time,
                one_stream_keeps_several_leases_alive,
                one_transaction_attaches_keys_to_several_leases,
            ;
            refusal, Alone:
                a_read_within_before_a_compaction_is_refused,
            ;
            refusal, Shared:
                no_key_may_be_written_twice,
                a_list_holds_128_entries_and_no_more,
                operations_without_a_key_are_refused_wherever_they_stand,
                a_put_that_keeps_something_must_not_bring_it,
                a_put_that_keeps_something_needs_the_key,
                a_put_with_an_unknown_lease_is_refused,
                a_read_within_at_a_future_revision_is_refused,
                a_request_that_is_too_large_is_refused,
            ;
            txn, Alone:
                what_changes_nothing_makes_no_revision,
            ;
            txn, Shared:
                a_transaction_takes_the_branch_that_its_condition_chooses,
                all_conditions_must_hold,
                every_target_is_compared_by_every_operator,
                a_missing_key_is_compared_as_zero_and_its_value_with_nothing,
                a_condition_on_a_range_must_hold_for_every_key_in_it,
                operations_see_what_those_before_them_wrote,
                all_writes_of_a_transaction_bear_one_revision,
                a_write_returns_what_stood_before_if_asked,
                a_deletion_tells_how_many_keys_and_which_if_asked,
                a_put_can_keep_the_value_or_the_lease,
                inner_conditions_see_the_store_as_it_was_before_all,
                transactions_nest_and_answer_in_the_same_shape,
                a_read_within_can_look_back,
                a_key_may_be_written_in_both_branches_and_deleted_twice,
            ;
            watch, Alone:
                a_watch_from_before_a_compaction_tells_the_oldest_revision_kept,
                what_stood_before_is_left_out_where_it_is_compacted_away,
            ;
            watch, Shared:
                a_watch_tells_every_change_after_it_was_opened,
                a_watch_from_the_past_replays_it_and_goes_on,
                a_watch_from_the_future_begins_there,
                a_watch_of_a_range_tells_of_its_keys_alone,
                a_watch_can_tell_what_stood_before,
                a_watch_can_leave_out_puts_or_deletions,
                the_events_of_a_transaction_come_together_and_in_order,
                a_transaction_of_many_writes_is_one_batch,
                events_come_in_the_order_of_their_revisions,
                watches_do_not_disturb_each_other,
                a_request_for_progress_is_answered_without_events,
                a_watch_of_no_key_is_refused,
                a_dropped_watch_leaves_the_store_in_order,
            ;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($factory:expr; $($file:ident, $need:ident: $($case:ident,)*;)*) => {
        $($(
            #[test]
            fn $case() {
                let subject = async { ($factory)($crate::conformance::Need::$need).await };
                $crate::conformance::run(subject, $crate::conformance::$file::$case);
            }
        )*)*
    };
}

/// Runs one case on a runtime of its own.
#[doc(hidden)]
pub fn run<S: Into<Subject>>(subject: impl Future<Output = S>, case: impl AsyncFnOnce(&Subject)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let subject: Subject = subject.await.into();
        let outcome = tokio::time::timeout(PATIENCE, case(&subject)).await;
        assert!(outcome.is_ok(), "the case hangs");
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_stands_in_the_table() {
        let table = include_str!("mod.rs");
        let files = [
            include_str!("admin.rs"),
            include_str!("kv.rs"),
            include_str!("lease.rs"),
            include_str!("refusal.rs"),
            include_str!("txn.rs"),
            include_str!("watch.rs"),
        ];
        for file in files {
            let cases = file
                .lines()
                .filter_map(|line| line.strip_prefix("pub async fn "));
            for case in cases.filter_map(|line| line.split_once('(')) {
                let entry = format!("{},\n", case.0);
                assert!(table.contains(&entry), "{} is not in the table", case.0);
            }
        }
    }
}

//! What is measured: one file a subject.

use std::{future::Future, pin::Pin};

use crate::{Result, bench::Bench, figures::Figures};

mod elections;
mod ephemeral;
mod kv;
mod locks;
mod scale;
mod services;
mod watches;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How much a run does that is not cut short.
    pub(crate) complete: u64,
    /// A part of another scenario.
    pub(crate) hidden: bool,
    pub(crate) run: Run,
}

type Run = fn(Bench) -> Pin<Box<dyn Future<Output = Result<Figures>> + Send>>;

macro_rules! scenarios {
    (
        whole { $($name:ident $complete:literal $run:path;)* }
        parts { $($part:ident $of_part:literal $do:path;)* }
    ) => {
        pub(crate) const SCENARIOS: &[Scenario] = &[
            $(Scenario {
                name: stringify!($name),
                complete: $complete,
                hidden: false,
                run: |bench| Box::pin($run(bench)),
            },)*
            $(Scenario {
                name: stringify!($part),
                complete: $of_part,
                hidden: true,
                run: |bench| Box::pin($do(bench)),
            },)*
        ];
    };
}

scenarios! {
    whole {
        kv_put_seq 2_000 kv::put_seq;
        kv_put_conc 19_200 kv::put_conc;
        kv_get_conc 19_200 kv::get_conc;
        lock_uncontended 1_000 locks::uncontended;
        lock_contended 480 locks::contended;
        lock_contended_32conn 480 locks::contended_by_processes;
        election_handoff 200 elections::handoff;
        watch_latency 1_000 watches::latency;
        watch_replay 20_000 watches::replay;
        watch_fanout 50_000 watches::fanout;
        ephemeral_5k 5_000 ephemeral::five_thousand;
        tracker_sync_50k 50_000 services::sync;
        tracker_catch_up 20_000 services::catch_up;
        scale_lock 100 scale::lock;
        scale_ephemeral 10_000 scale::ephemeral;
        scale_tracker 100_000 scale::tracker;
        scale_observers 100_000 scale::observers;
    }
    parts {
        register_50k 50_000 services::register_50k;
        register_100k 100_000 services::register_100k;
    }
}

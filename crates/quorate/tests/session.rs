//! Sessions: how long they may be relied on, how they end, and that they leave nothing behind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future};
use quorate::{
    Client, ConnectOptions, ErrorKind, LeaseId, Loss, Put, Session, SessionState,
    backend::{
        Memory,
        fault::{CallKind, Calls, Fate, Partition},
    },
};
use support::{machine::Machine, until, world::World};

const TTL: Duration = Duration::from_secs(3);
const MILLI: Duration = Duration::from_millis(1);

async fn until_gone(observer: &Client, lease: LeaseId) {
    until("the lease is gone", async || {
        !observer.leases().await.unwrap().contains(&lease)
    })
    .await;
}

async fn until_beaten(world: &support::world::Participant, beats: u64) {
    until("beats were sent", async || world.faults.beats() >= beats).await;
}

/// Whether two durations are the same but for what reading clocks takes.
fn is_near(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) < MILLI
}

scenarios! {
    alone

    async fn a_beat_that_is_answered_late_counts_from_when_it_was_sent(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        let granted = session.deadline();
        let delay = Duration::from_millis(600);
        ours.faults.delay_beats(1, delay);
        let deadline = session.deadline_changed(granted).await;
        assert!(deadline > granted);
        let longest = session.ttl().mul_f64(0.9) - session.ttl() / 50;
        assert!(session.remaining() <= longest - delay + MILLI, "{:?}", session.remaining());
    }

    async fn a_time_to_live_that_was_raised_counts(world: World) {
        let ours = world.join();
        let asked = Duration::from_millis(1500);
        let session = ours.client.session_with_ttl(asked).await.unwrap();
        assert!(session.ttl() >= Duration::from_secs(2));
        let reliable = session.ttl().mul_f64(0.9) - Duration::from_millis(50);
        assert!(session.remaining() > asked && session.remaining() <= reliable);
    }

    async fn the_shortest_session_lives_on(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(Duration::from_secs(1)).await.unwrap();
        until_beaten(&ours, 4).await;
        assert_eq!(session.state(), SessionState::Live);
    }

    async fn an_overdue_beat_suspends_and_its_answer_revives(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        let lost = session.lost();
        ours.faults.partition(Partition::Hang);
        assert_eq!(session.state_changed(SessionState::Live).await, SessionState::Suspended);
        assert!(session.remaining() > Duration::ZERO);
        ours.faults.heal();
        assert_eq!(session.state_changed(SessionState::Suspended).await, SessionState::Live);
        assert!(lost.now_or_never().is_none());
    }

    async fn a_session_is_lost_at_its_deadline_whatever_nobody_answers(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        ours.faults.partition(Partition::Hang);
        let lost = session.lost();
        assert_eq!(lost.clone().await, Loss::Unreachable);
        assert_eq!(session.remaining(), Duration::ZERO);
        // The server has not ended the lease yet.
        assert!(observer.leases().await.unwrap().contains(&session.lease()));
        ours.faults.heal();
        let next = ours.client.session_with_ttl(TTL).await.unwrap();
        let beats = ours.faults.beats();
        until_beaten(&ours, beats + 1).await;
        // Lost is final, whatever came late.
        assert_eq!(session.state(), SessionState::Lost(Loss::Unreachable));
        assert_eq!(lost.await, Loss::Unreachable);
        assert_eq!(next.state(), SessionState::Live);
        until_gone(&observer, session.lease()).await;
    }

    async fn a_session_is_lost_when_the_server_knows_its_lease_no_more(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        world.observer().revoke_lease(session.lease()).await.unwrap();
        assert_eq!(session.lost().await, Loss::Expired);
        assert!(session.is_lost());
    }

    async fn closing_revokes(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        session.close().await.unwrap();
        assert_eq!(session.state(), SessionState::Lost(Loss::Closed));
        assert!(!world.observer().leases().await.unwrap().contains(&session.lease()));
        // A second time is harmless.
        session.close().await.unwrap();
    }

    async fn closing_a_session_that_was_lost_does_not_wait(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        world.observer().revoke_lease(session.lease()).await.unwrap();
        session.lost().await;
        until("what is left was cleared up", async || {
            ours.faults.open_streams(CallKind::KeepAlive) == 0
        })
        .await;
        session.close().await.unwrap();
    }

    async fn closing_is_bounded_when_nobody_answers(world: World) {
        let options = ConnectOptions::memory().timeout(Duration::from_millis(500));
        let ours = world.join_with(options);
        let observer = world.observer();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        ours.faults.partition(Partition::Hang);
        let error = session.close().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(session.is_lost());
        ours.faults.heal();
        until_gone(&observer, session.lease()).await;
    }

    async fn dropping_the_last_handle_revokes(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let session = ours.client.session_with_ttl(Duration::from_secs(600)).await.unwrap();
        let other = session.clone();
        let lease = session.lease();
        let lost = session.lost();
        drop(session);
        assert!(observer.leases().await.unwrap().contains(&lease));
        drop(other);
        assert_eq!(lost.await, Loss::Closed);
        until_gone(&observer, lease).await;
    }

    async fn dropping_the_client_revokes_the_shared_session(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let lease = ours.client.session().await.unwrap().lease();
        drop(ours.client);
        until_gone(&observer, lease).await;
    }

    async fn a_cancelled_creation_leaves_no_lease(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let grant = ours.faults.hold_next(CallKind::Grant);
        let client = ours.client.clone();
        let creation = tokio::spawn(async move {
            client.session_with_ttl(Duration::from_secs(600)).await
        });
        grant.arrived().await;
        creation.abort();
        assert!(creation.await.unwrap_err().is_cancelled());
        grant.let_through();
        grant.applied().await;
        until("there is no lease", async || observer.leases().await.unwrap().is_empty()).await;
    }

    async fn a_lost_answer_to_the_grant_leaves_one_lease_and_a_careful_deadline(world: World) {
        let ours = world.join();
        let observer = world.observer();
        ours.faults.next(CallKind::Grant, Fate::LoseReply);
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        assert_eq!(observer.leases().await.unwrap(), [session.lease()]);
        // At least the pause between the attempts has passed since the first.
        let longest = TTL.mul_f64(0.9) - TTL / 50;
        assert!(session.remaining() < longest - 10 * MILLI);
        session.close().await.unwrap();
        assert!(observer.leases().await.unwrap().is_empty());
    }

    async fn a_doubled_grant_is_one_lease(world: World) {
        let ours = world.join();
        let observer = world.observer();
        ours.faults.next(CallKind::Grant, Fate::Double);
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        assert_eq!(observer.leases().await.unwrap(), [session.lease()]);
    }

    async fn a_late_grant_that_nobody_waits_for_is_gone_after_its_time(world: World) {
        let options = ConnectOptions::memory().timeout(Duration::from_millis(300));
        let ours = world.join_with(options);
        let observer = world.observer();
        let grant = ours.faults.hold_next(CallKind::Grant);
        let error = ours.client.session_with_ttl(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        grant.let_through();
        grant.applied().await;
        until("there is no lease", async || observer.leases().await.unwrap().is_empty()).await;
    }

    async fn a_lease_that_is_granted_too_late_makes_no_session(world: World) {
        let options = ConnectOptions::memory().session_ttl(Duration::from_secs(1));
        let ours = world.join_with(options);
        let observer = world.observer();
        ours.faults.every(CallKind::Grant, Fate::DelayReply(Duration::from_secs(2)));
        let error = ours.client.session().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(ours.faults.count(CallKind::Grant), 1);
        until("there is no lease", async || observer.leases().await.unwrap().is_empty()).await;
    }

    async fn a_silent_keepalive_stream_is_replaced_in_time(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(Duration::from_secs(4)).await.unwrap();
        until("the stream is open", async || ours.faults.open_streams(CallKind::KeepAlive) == 1)
            .await;
        ours.faults.silence_beats();
        let granted = session.deadline();
        session.deadline_changed(granted).await;
        assert_eq!(session.state(), SessionState::Live);
        assert_eq!(ours.faults.distrusted(), 1);
        assert_eq!(ours.faults.count(CallKind::KeepAlive), 2);
    }

    async fn a_broken_keepalive_stream_is_replaced_in_time(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        until("the stream is open", async || ours.faults.open_streams(CallKind::KeepAlive) == 1)
            .await;
        ours.faults.cut_beats();
        session.deadline_changed(session.deadline()).await;
        assert_eq!(session.state(), SessionState::Live);
    }

    async fn many_sessions_share_one_keepalive_stream(world: World) {
        let ours = world.join();
        let mut sessions = Vec::new();
        for _ in 0..20 {
            sessions.push(ours.client.session_with_ttl(TTL).await.unwrap());
        }
        until_beaten(&ours, 40).await;
        assert!(sessions.iter().all(|session| session.state() == SessionState::Live));
        assert_eq!(ours.faults.count(CallKind::KeepAlive), 1);
    }

    async fn the_shared_session_is_made_anew_after_a_loss(world: World) {
        let ours = world.join_with(ConnectOptions::memory().session_ttl(TTL));
        let (first, same) =
            future::join(ours.client.session(), ours.client.session()).await;
        let (first, same) = (first.unwrap(), same.unwrap());
        assert_eq!(first.lease(), same.lease());
        world.observer().revoke_lease(first.lease()).await.unwrap();
        first.lost().await;
        let second = ours.client.session().await.unwrap();
        assert_ne!(second.lease(), first.lease());
        assert!(second.generation() > first.generation());
        assert_eq!(ours.faults.count(CallKind::Grant), 2);
    }
}

async fn session(options: ConnectOptions, ttl: Duration) -> Session {
    World::memory()
        .join_with(options)
        .client
        .session_with_ttl(ttl)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_deadline_leaves_room_for_drift_twice_and_a_margin() {
    let seconds = Duration::from_secs;
    let usual = ConnectOptions::memory;
    for (options, ttl, reliable) in [
        (usual(), seconds(10), 8800 * MILLI),
        (usual(), seconds(1), 850 * MILLI),
        (usual().drift(0.0), seconds(10), 9800 * MILLI),
        (
            usual().drift(0.1).margin(seconds(1)),
            seconds(10),
            seconds(7),
        ),
        (usual().margin(Duration::ZERO), seconds(10), seconds(9)),
    ] {
        let session = session(options, ttl).await;
        assert!(
            is_near(session.remaining(), reliable),
            "{:?}",
            session.remaining()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn beats_come_in_time_however_early_the_deadline_is() {
    let options = ConnectOptions::memory().drift(0.4);
    let session = session(options, Duration::from_secs(10)).await;
    let mut deadline = session.deadline();
    for _ in 0..10 {
        deadline = session.deadline_changed(deadline).await;
        assert_eq!(session.state(), SessionState::Live);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_which_drift_and_margin_leave_nothing_is_refused_at_once() {
    let options = ConnectOptions::memory().margin(Duration::from_secs(3));
    let ours = World::memory().join_with(options);
    let session = ours.client.session_with_ttl(Duration::from_secs(2)).await;
    assert_eq!(session.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_grants_takes_no_longer_than_calls_may() {
    let limit = Duration::from_secs(2);
    let ours = World::memory().join_with(ConnectOptions::memory().timeout(limit));
    let refused = Fate::Refuse(ErrorKind::Unavailable);
    ours.faults.every(CallKind::Grant, refused);
    for _ in 0..20 {
        let begun = tokio::time::Instant::now();
        assert!(ours.client.session_with_ttl(TTL).await.is_err());
        assert!(
            begun.elapsed() <= limit + 10 * MILLI,
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn more_sessions_than_a_stream_takes_at_once_outlive_its_loss() {
    let ours = World::memory().join();
    let mut sessions = Vec::new();
    for _ in 0..1500 {
        let ttl = Duration::from_secs(10);
        sessions.push(ours.client.session_with_ttl(ttl).await.unwrap());
    }
    ours.faults.partition(Partition::Refuse);
    // Long enough that all of them are due.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ours.faults.heal();
    until_beaten(&ours, 4500).await;
    assert!(sessions.iter().all(|session| !session.is_lost()));
}

#[tokio::test(start_paused = true)]
async fn a_loss_comes_before_the_server_ends_the_lease_whatever_the_clock_rate() {
    for rate in [0.95, 1.0, 1.05] {
        let world = World::memory();
        let machine = Machine::new(rate, 1);
        let options = ConnectOptions::memory().runtime(Arc::new(machine));
        let ours = world.join_with(options);
        let observer = world.observer();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        until_beaten(&ours, 3).await;
        let put = Put::new("key", "value").lease(session.lease());
        observer.put_with(put).await.unwrap();
        ours.faults.partition(Partition::Hang);
        session.lost().await;
        assert!(
            observer.get("key").await.unwrap().is_some(),
            "at rate {rate}"
        );
        until_gone(&observer, session.lease()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_client_is_noticed_at_the_first_look() {
    let world = World::memory();
    let machine = Machine::new(1.0, 1);
    let ours = world.join_with(ConnectOptions::memory().runtime(Arc::new(machine.clone())));
    let observer = world.observer();
    let lock = ours.client.lock("jobs").ttl(TTL);
    let guard = lock.acquire().await.unwrap();
    let lost = guard.lost();
    assert!(guard.is_held() && lost.clone().now_or_never().is_none());
    machine.stop();
    tokio::time::sleep(2 * TTL).await;
    // The first look, by whichever way; nothing has run on that machine since.
    assert!(!guard.is_held());
    assert_eq!(guard.loss(), Some(Loss::Expired));
    assert_eq!(lost.now_or_never(), Some(Loss::Expired));
    assert_eq!(guard.session().state(), SessionState::Lost(Loss::Expired));
    assert!(observer.lock("jobs").try_acquire().await.unwrap().is_some());
    machine.go_on();
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// The answer was on the way before the deadline, and would count if it had been read by then.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_after_the_deadline_revives_nothing() {
    let world = World::memory();
    let machine = Machine::new(1.0, 1);
    let ours = world.join_with(ConnectOptions::memory().runtime(Arc::new(machine.clone())));
    let session = ours.client.session_with_ttl(TTL).await.unwrap();
    ours.faults.delay_beats(1, Duration::from_millis(100));
    let deadline = tokio::time::Instant::now() + session.remaining();
    until_beaten(&ours, 1).await;
    machine.stop();
    // Nobody looks while it stands still.
    tokio::time::sleep_until(deadline + MILLI).await;
    machine.go_on();
    until("its task has seen the end", async || {
        ours.faults.open_streams(CallKind::KeepAlive) == 0
    })
    .await;
    assert_eq!(session.state(), SessionState::Lost(Loss::Expired));
}

#[tokio::test(start_paused = true)]
async fn protected_work_does_not_go_on_after_a_pause_that_was_too_long() {
    let world = World::memory();
    let machine = Machine::new(1.0, 1);
    let ours = world.join_with(ConnectOptions::memory().runtime(Arc::new(machine.clone())));
    let lock = ours.client.lock("jobs").ttl(TTL);
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let (arrived, has_arrived) = tokio::sync::oneshot::channel();
    let work = machine.run(async move {
        lock.run(async |_| {
            arrived.send(()).unwrap();
            let _ = wait.await;
            panic!("this ran without the lock");
        })
        .await
    });
    let work = tokio::spawn(work);
    has_arrived.await.unwrap();
    machine.stop();
    tokio::time::sleep(2 * TTL).await;
    go_on.send(()).unwrap();
    machine.go_on();
    let error = work.await.unwrap().unwrap_err();
    assert_eq!(error.loss(), Some(Loss::Expired));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_lost_unnoticed_and_dropped_is_revoked() {
    let world = World::memory();
    let machine = Machine::new(1.0, 1);
    let ours = world.join_with(ConnectOptions::memory().runtime(Arc::new(machine.clone())));
    let session = ours.client.session_with_ttl(TTL).await.unwrap();
    until_beaten(&ours, 1).await;
    machine.stop();
    ours.faults.reset_counts();
    let deadline = tokio::time::Instant::now() + session.remaining();
    tokio::time::sleep_until(deadline + MILLI).await;
    assert!(session.is_lost());
    drop(session);
    machine.go_on();
    ours.faults.reached(CallKind::Revoke, 1).await;
}

/// Each test of a program may bring a runtime of its own to a client that they share.
#[test]
fn a_client_outlives_the_runtime_that_its_session_was_made_on() {
    let client = Client::with_backend(Arc::new(Memory::new()));
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime().block_on(client.session()).unwrap();
    let ttl = Duration::from_secs(1);
    runtime().block_on(async {
        let second = client.session().await.unwrap();
        assert!(first.generation() <= second.generation());
        let short = client.session_with_ttl(ttl).await.unwrap();
        short.deadline_changed(short.deadline()).await;
        assert_eq!(short.state(), SessionState::Live);
        assert_eq!(second.state(), SessionState::Live);
    });
}

#[tokio::test(start_paused = true)]
async fn a_refused_revocation_is_tried_again() {
    let ours = World::memory().join();
    let session = ours.client.session_with_ttl(TTL).await.unwrap();
    ours.faults.next(
        Calls::of(CallKind::Revoke),
        Fate::Refuse(ErrorKind::Unavailable),
    );
    session.close().await.unwrap();
    assert_eq!(ours.faults.count(CallKind::Revoke), 2);
}

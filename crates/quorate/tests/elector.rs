//! The elector: campaigns again after every loss, and never runs two tasks at once.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate::{
    Client, ConnectOptions, Election, Elector, ErrorKind, LeaderState, Op, Revision, Term,
    backend::fault::{CallKind, Fate, Partition},
};
use support::{until, world::World};
use tokio::sync::{mpsc, oneshot};

const NAME: &str = "cleaner";
const TTL: Duration = Duration::from_secs(3);

fn options() -> ConnectOptions {
    ConnectOptions::memory().session_ttl(TTL)
}

fn election(client: &Client, value: &'static str) -> Election {
    client.election(NAME).value(value)
}

async fn until_state(elector: &mut Elector, what: impl Fn(&LeaderState) -> bool) -> LeaderState {
    let mut state = elector.state();
    while !what(&state) {
        state = elector.changed().await.unwrap();
    }
    state
}

fn follows(state: &LeaderState, value: &str) -> bool {
    matches!(state, LeaderState::Following { leader } if leader.value == value)
}

fn is_at_risk(state: &LeaderState) -> bool {
    matches!(state, LeaderState::Leading { at_risk: true, .. })
}

async fn until_nobody_leads(client: &Client) {
    until("nobody leads", async || {
        client.election(NAME).leader().await.unwrap().is_none()
    })
    .await;
}

/// A task that reports when it begins, and ends when it is asked to.
async fn report(term: Term, begun: mpsc::Sender<Revision>) {
    begun.send(term.token()).await.unwrap();
    term.stopping().await;
}

scenarios! {
    async fn an_elector_leads_and_another_follows_it(world: World) {
        let mut a = election(&world.observer(), "a").elector();
        let token = a.leading().await.unwrap();
        let mut b = election(&world.observer(), "b").elector();
        let state = until_state(&mut b, |state| follows(state, "a")).await;
        assert!(matches!(state, LeaderState::Following { leader } if leader.token == token));
        a.stop().await.unwrap();
        assert!(b.leading().await.unwrap() > token);
    }

    async fn who_is_told_that_we_lead_finds_the_term_and_its_fence(world: World) {
        let client = world.observer();
        let elector = election(&client, "a").elector();
        let mut states = elector.states();
        while !matches!(states.changed().await.unwrap(), LeaderState::Leading { .. }) {}
        let term = elector.term().unwrap();
        let write = || client.txn().when(term.fence()).then(Op::put("led", "yes")).commit();
        assert!(term.is_held() && write().await.unwrap().succeeded);
        elector.stop().await.unwrap();
        assert!(!write().await.unwrap().succeeded);
        let error = loop {
            match states.changed().await {
                Ok(state) => assert_eq!(state, LeaderState::NoLeader),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
    }

    async fn electors_of_one_client_follow_each_other(world: World) {
        let client = world.observer();
        let mut a = election(&client, "a").elector();
        a.leading().await.unwrap();
        let mut b = election(&client, "b").elector();
        until_state(&mut b, |state| follows(state, "a")).await;
        assert!(!b.is_leading());
        drop(a);
        b.leading().await.unwrap();
    }

    async fn a_lost_session_is_followed_by_another_campaign(world: World) {
        let ours = world.join_with(options());
        let observer = world.observer();
        let mut elector = election(&ours.client, "a").elector();
        let first = elector.leading().await.unwrap();
        let lease = ours.client.session().await.unwrap().lease();
        observer.revoke_lease(lease).await.unwrap();
        let anew = |state: &LeaderState| {
            matches!(state, LeaderState::Leading { token, .. } if *token > first)
        };
        until_state(&mut elector, anew).await;
        assert_ne!(ours.client.session().await.unwrap().lease(), lease);
    }

    async fn a_deleted_key_is_followed_by_another_campaign(world: World) {
        let observer = world.observer();
        let mut elector = election(&world.observer(), "a").elector();
        let first = elector.leading().await.unwrap();
        assert!(observer.lock(NAME).break_hold(first).await.unwrap());
        let anew = |state: &LeaderState| {
            matches!(state, LeaderState::Leading { token, .. } if *token > first)
        };
        until_state(&mut elector, anew).await;
    }

    async fn a_suspended_session_leads_on_at_risk(world: World) {
        let ours = world.join_with(options());
        let mut elector = election(&ours.client, "a").elector();
        let token = elector.leading().await.unwrap();
        ours.faults.partition(Partition::Hang);
        let state = until_state(&mut elector, is_at_risk).await;
        assert_eq!(state, LeaderState::Leading { token, at_risk: true });
        ours.faults.heal();
        until_state(&mut elector, |state| !is_at_risk(state)).await;
        assert_eq!(elector.state(), LeaderState::Leading { token, at_risk: false });
        // The next time nobody answers for too long.
        ours.faults.partition(Partition::Refuse);
        let state = until_state(&mut elector, |state| !matches!(state, LeaderState::Leading { .. }));
        assert_eq!(state.await, LeaderState::NoLeader);
        ours.faults.heal();
        assert!(elector.leading().await.unwrap() > token);
    }

    async fn stopping_resigns(world: World) {
        let client = world.observer();
        let mut elector = election(&client, "a").elector();
        elector.leading().await.unwrap();
        elector.stop().await.unwrap();
        assert_eq!(client.election(NAME).leader().await.unwrap(), None);
    }

    async fn stopping_a_follower_leaves_the_queue(world: World) {
        let client = world.observer();
        let leader = election(&client, "a").campaign().await.unwrap();
        let mut elector = election(&client, "b").elector();
        until_state(&mut elector, |state| follows(state, "a")).await;
        elector.stop().await.unwrap();
        until("only the leader is left", async || {
            client.election(NAME).candidates().await.unwrap().len() == 1
        })
        .await;
        assert!(leader.is_held());
    }

    async fn dropping_resigns(world: World) {
        let client = world.observer();
        let mut elector = election(&client, "a").elector();
        elector.leading().await.unwrap();
        drop(elector);
        until_nobody_leads(&client).await;
    }

    async fn a_task_that_ends_resigns(world: World) {
        let client = world.observer();
        let election = election(&client, "a");
        let token = election.run(async |term: Term| {
            assert!(term.is_held());
            term.token()
        });
        assert!(token.await.unwrap() > Revision::ZERO);
        assert_eq!(client.election(NAME).leader().await.unwrap(), None);
    }

    async fn who_has_a_clone_of_a_term_is_told_that_it_is_over(world: World) {
        let client = world.observer();
        // The task has ended by itself, and left a clone behind.
        let term = election(&client, "a").run(async |term: Term| term).await.unwrap();
        term.stopping().await;
        // The elector is dropped, and its task with it.
        let mut elector = election(&client, "a").elector();
        elector.leading().await.unwrap();
        let term = elector.term().unwrap();
        drop(elector);
        term.stopping().await;
        assert!(!term.is_held());
    }

    async fn a_task_runs_anew_in_each_term(world: World) {
        let client = world.observer();
        let (begun, mut begins) = mpsc::channel(4);
        let election = election(&client, "a");
        let run = tokio::spawn(async move { election.run(|term| report(term, begun.clone())).await });
        let first = begins.recv().await.unwrap();
        client.lock(NAME).break_hold(first).await.unwrap();
        let second = begins.recv().await.unwrap();
        assert!(second > first);
        // The future that is dropped takes the task with it, and resigns.
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        until_nobody_leads(&client).await;
    }

    async fn the_task_has_ended_before_another_campaign_begins(world: World) {
        let client = world.observer();
        let (begun, mut begins) = mpsc::channel(4);
        let (let_end, may_end) = oneshot::channel::<()>();
        let may_end = Arc::new(tokio::sync::Mutex::new(Some(may_end)));
        let running = Arc::new(AtomicUsize::new(0));
        let ours = world.join();
        let election = election(&ours.client, "a");
        let task = move |term: Term| {
            let (begun, may_end) = (begun.clone(), Arc::clone(&may_end));
            let running = Arc::clone(&running);
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two run at once");
                begun.send(term.token()).await.unwrap();
                term.stopping().await;
                assert!(!term.is_held());
                // It takes its time.
                if let Some(may_end) = may_end.lock().await.take() {
                    let _ = may_end.await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let run = tokio::spawn(async move { election.run(task).await });
        let first = begins.recv().await.unwrap();
        client.lock(NAME).break_hold(first).await.unwrap();
        until_nobody_leads(&client).await;
        // Somebody else leads meanwhile: it stands not even in the queue.
        let other = client.election(NAME).value("b").campaign().await.unwrap();
        other.resign().await.unwrap();
        assert!(client.election(NAME).candidates().await.unwrap().is_empty());
        assert!(begins.try_recv().is_err());
        let_end.send(()).unwrap();
        assert!(begins.recv().await.unwrap() > first);
        run.abort();
    }

    async fn a_write_of_a_former_term_is_refused(world: World) {
        let client = world.observer();
        let (begun, mut begins) = mpsc::channel(4);
        let election = election(&client, "a");
        let run = tokio::spawn(async move {
            let task = |term: Term| {
                let begun = begun.clone();
                async move { begun.send(term).await.unwrap() }
            };
            election.run(task).await
        });
        let term = begins.recv().await.unwrap();
        run.await.unwrap().unwrap();
        assert!(!term.is_held());
        let write = client.txn().when(term.fence()).then(Op::put("x", "y")).commit();
        assert!(!write.await.unwrap().succeeded);
        let error = term.fenced("x").set("y").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
    }

    async fn an_election_on_a_session_that_is_lost_gives_up(world: World) {
        let client = world.observer();
        let session = client.session_with_ttl(TTL).await.unwrap();
        let election = election(&client, "a").session(&session);
        let mut elector = election.elector();
        elector.leading().await.unwrap();
        session.close().await.unwrap();
        while let Ok(state) = elector.changed().await {
            assert_eq!(state, LeaderState::NoLeader);
        }
        assert_eq!(elector.changed().await.unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(elector.state(), LeaderState::NoLeader);
        let error = election.run(async |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
    }

    async fn an_elector_survives_what_passes(world: World) {
        let ours = world.join_with(options());
        for kind in [CallKind::Grant, CallKind::Txn, CallKind::Range, CallKind::Watch] {
            ours.faults.next(kind, Fate::Refuse(ErrorKind::Unavailable));
            ours.faults.next(kind, Fate::LoseReply);
        }
        let mut elector = election(&ours.client, "a").elector();
        elector.leading().await.unwrap();
        elector.stop().await.unwrap();
        until_nobody_leads(&world.observer()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_elector_goes_on_in_a_cluster_that_was_replaced() {
    let ours = World::memory().join();
    ours.faults
        .next(CallKind::Txn, Fate::Refuse(ErrorKind::ClusterChanged));
    let mut elector = election(&ours.client, "a").elector();
    elector.leading().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_elector_that_may_not_campaign_gives_up() {
    let ours = World::memory().join();
    let refused = Fate::Refuse(ErrorKind::PermissionDenied);
    ours.faults.every(CallKind::Txn, refused);
    let mut elector = election(&ours.client, "a").elector();
    let error = elector.leading().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = elector.stop().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = election(&ours.client, "a")
        .run(async |_| ())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

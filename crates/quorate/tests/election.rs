//! Elections: one leader at a time, who knows it, and observers who see every change.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quorate::{
    Client, ErrorKind, KeyRange, Leader, Leaders, Leadership, Loss, Put, Result,
    backend::fault::{CallKind, Fate, Partition},
};
use support::until;
use tokio::task::JoinHandle;

const NAME: &str = "scheduler";

fn candidate(client: &Client, value: &'static str) -> JoinHandle<Result<Leadership>> {
    let election = client.election(NAME).value(value);
    tokio::spawn(async move { election.campaign().await })
}

async fn until_candidates_are(client: &Client, count: usize) {
    until("there are so many candidates", async || {
        client.election(NAME).candidates().await.unwrap().len() == count
    })
    .await;
}

/// What an observation tells next; `-` if nobody leads.
async fn told(leaders: &mut Leaders) -> String {
    let next = leaders
        .next()
        .await
        .expect("an observation never just ends");
    name(next.unwrap())
}

fn name(leader: Option<Leader>) -> String {
    leader.map_or_else(|| "-".to_owned(), |leader| leader.value.to_string())
}

scenarios! {
    alone

    async fn candidates_lead_in_the_order_of_their_coming(world: World) {
        let observer = world.observer();
        let first = observer.election(NAME).value("a").campaign().await.unwrap();
        let b = candidate(&observer, "b");
        until_candidates_are(&observer, 2).await;
        let c = candidate(&world.observer(), "c");
        until_candidates_are(&observer, 3).await;
        let candidates = observer.election(NAME).candidates().await.unwrap();
        let values: Vec<_> = candidates.iter().map(|c| c.value.to_string()).collect();
        assert_eq!(values, ["a", "b", "c"]);
        assert_eq!(candidates[0].token, first.token());
        let leader = observer.election(NAME).leader().await.unwrap().unwrap();
        assert_eq!(leader, candidates[0]);
        first.resign().await.unwrap();
        let second = b.await.unwrap().unwrap();
        assert_eq!(second.token(), candidates[1].token);
        assert!(!c.is_finished());
        drop(second);
        c.await.unwrap().unwrap().resign().await.unwrap();
        assert_eq!(observer.election(NAME).leader().await.unwrap(), None);
    }

    async fn two_candidates_of_one_session_exclude_each_other(world: World) {
        let client = world.observer();
        let first = client.election(NAME).campaign().await.unwrap();
        let second = candidate(&client, "second");
        until_candidates_are(&client, 2).await;
        assert!(first.is_held() && !second.is_finished());
        first.resign().await.unwrap();
        assert!(second.await.unwrap().unwrap().is_held());
    }

    async fn a_candidate_whose_lease_died_while_queueing_does_not_lead(world: World) {
        let observer = world.observer();
        let leader = observer.election(NAME).campaign().await.unwrap();
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        let waiting = candidate(&ours.client, "dead");
        until_candidates_are(&observer, 2).await;
        // It learns of neither its own loss nor the leader's before both are true.
        ours.faults.partition(Partition::Hang);
        observer.revoke_lease(session.lease()).await.unwrap();
        leader.resign().await.unwrap();
        assert_eq!(observer.election(NAME).leader().await.unwrap(), None);
        ours.faults.heal();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
    }

    async fn a_candidate_whose_lease_dies_fails_while_the_leader_goes_on(world: World) {
        let observer = world.observer();
        let leader = observer.election(NAME).campaign().await.unwrap();
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        let waiting = candidate(&ours.client, "dead");
        until_candidates_are(&observer, 2).await;
        observer.revoke_lease(session.lease()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
        assert!(leader.is_held());
    }

    async fn a_dead_candidate_in_the_middle_keeps_nobody_waiting(world: World) {
        let observer = world.observer();
        let leader = observer.election(NAME).campaign().await.unwrap();
        let dead = world.join();
        let session = dead.client.session_with_ttl(Duration::from_secs(2)).await.unwrap();
        let election = dead.client.election(NAME).session(&session);
        let middle = tokio::spawn(async move { election.campaign().await });
        until_candidates_are(&observer, 2).await;
        let last = candidate(&world.observer(), "last");
        until_candidates_are(&observer, 3).await;
        dead.faults.partition(Partition::Hang);
        assert_eq!(middle.await.unwrap().unwrap_err().loss(), Some(Loss::Unreachable));
        until_candidates_are(&observer, 2).await;
        assert!(leader.is_held() && !last.is_finished());
        leader.resign().await.unwrap();
        assert!(last.await.unwrap().unwrap().is_held());
    }

    async fn a_proclamation_is_told_without_an_election(world: World) {
        let client = world.observer();
        let mut leader = client.election(NAME).value("one").campaign().await.unwrap();
        let token = leader.token();
        for value in ["two", "three"] {
            leader.proclaim(value).await.unwrap();
            let told = client.election(NAME).leader().await.unwrap().unwrap();
            assert_eq!((told.value.to_string().as_str(), told.token), (value, token));
        }
        // The token stays, whatever was proclaimed; so does the lease.
        let kv = client.get(leader.key()).await.unwrap().unwrap();
        assert_eq!(kv.create_revision, leader.token());
        assert_eq!(kv.lease, Some(leader.session().lease()));
        leader.resign().await.unwrap();
    }

    async fn a_proclamation_without_an_answer_is_overruled_by_the_next(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let mut leader = ours.client.election(NAME).value("one").campaign().await.unwrap();
        for fate in [Fate::LoseReply, Fate::LoseRequest] {
            ours.faults.next(CallKind::Txn, fate);
            assert!(leader.proclaim("maybe").await.unwrap_err().is_indefinite());
            leader.proclaim("surely").await.unwrap();
            let told = observer.election(NAME).leader().await.unwrap();
            assert_eq!(name(told), "surely");
        }
    }

    async fn a_late_proclamation_does_not_overrule_a_newer_one(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let mut leader = ours.client.election(NAME).value("one").campaign().await.unwrap();
        let late = ours.faults.hold_next(CallKind::Txn);
        {
            let mut proclamation = Box::pin(leader.proclaim("old"));
            assert!(proclamation.as_mut().now_or_never().is_none());
        }
        leader.proclaim("new").await.unwrap();
        late.let_through();
        late.applied().await;
        assert_eq!(name(observer.election(NAME).leader().await.unwrap()), "new");
    }

    async fn a_proclamation_of_who_leads_no_more_is_not_told(world: World) {
        let client = world.observer();
        let mut former = client.election(NAME).value("former").campaign().await.unwrap();
        let next = candidate(&world.observer(), "next");
        until_candidates_are(&client, 2).await;
        client.delete(KeyRange::key(former.key())).await.unwrap();
        drop(next.await.unwrap().unwrap());
        let error = former.proclaim("still me").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert!(!former.is_held());
        assert!(client.get(former.key()).await.unwrap().is_none());
    }

    async fn a_key_that_a_stranger_wrote_is_proclaimed_at_the_second_call(world: World) {
        let client = world.observer();
        let mut leader = client.election(NAME).value("ours").campaign().await.unwrap();
        let put = Put::new(leader.key(), "theirs").ignore_lease();
        client.put_with(put).await.unwrap();
        let error = leader.proclaim("again").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        leader.proclaim("again").await.unwrap();
        assert!(leader.is_held());
    }

    async fn an_observation_tells_every_leader_and_that_nobody_leads(world: World) {
        let client = world.observer();
        let mut leaders = world.observer().election(NAME).observe();
        assert_eq!(told(&mut leaders).await, "-");
        let mut a = client.election(NAME).value("a").campaign().await.unwrap();
        assert_eq!(told(&mut leaders).await, "a");
        a.proclaim("a2").await.unwrap();
        assert_eq!(told(&mut leaders).await, "a2");
        let b = candidate(&client, "b");
        until_candidates_are(&client, 2).await;
        a.resign().await.unwrap();
        assert_eq!(told(&mut leaders).await, "b");
        b.await.unwrap().unwrap().resign().await.unwrap();
        assert_eq!(told(&mut leaders).await, "-");
        // What is no candidate is nobody.
        client.put(format!("{NAME}/x/y"), "stranger").await.unwrap();
        let c = client.election(NAME).value("c").campaign().await.unwrap();
        assert_eq!(told(&mut leaders).await, "c");
        drop(c);
    }

    async fn an_observation_survives_disconnects_and_compaction(world: World) {
        let client = world.observer();
        let ours = world.join();
        let mut leaders = ours.client.election(NAME).observe();
        assert_eq!(told(&mut leaders).await, "-");
        for (round, partition) in [Partition::Refuse, Partition::Hang].into_iter().enumerate() {
            let value = ["first", "second"][round];
            // The watch is open before it is cut off.
            assert!(leaders.next().now_or_never().is_none());
            ours.faults.partition(partition);
            let leader = client.election(NAME).value(value).campaign().await.unwrap();
            let present = client.put("x", "y").await.unwrap();
            client.compact(present, true).await.unwrap();
            ours.faults.heal();
            assert_eq!(told(&mut leaders).await, value);
            ours.faults.cut_watches();
            leader.resign().await.unwrap();
            assert_eq!(told(&mut leaders).await, "-");
        }
    }

    async fn an_observation_that_begins_while_cut_off_begins_when_it_can(world: World) {
        let client = world.observer();
        let ours = world.join();
        ours.faults.partition(Partition::Refuse);
        let mut leaders = ours.client.election(NAME).observe();
        let first = tokio::spawn(async move { told(&mut leaders).await });
        let _leader = client.election(NAME).value("a").campaign().await.unwrap();
        ours.faults.reached(CallKind::Range, 2).await;
        ours.faults.heal();
        assert_eq!(first.await.unwrap(), "a");
    }

    async fn a_resignation_with_a_lost_answer_is_confirmed(world: World) {
        let ours = world.join();
        let leader = ours.client.election(NAME).campaign().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::LoseReply);
        leader.resign().await.unwrap();
        assert_eq!(world.observer().election(NAME).leader().await.unwrap(), None);
    }

    async fn a_campaign_that_is_dropped_stands_no_more(world: World) {
        let observer = world.observer();
        let leader = observer.election(NAME).campaign().await.unwrap();
        let waiting = candidate(&observer, "waiting");
        until_candidates_are(&observer, 2).await;
        waiting.abort();
        until_candidates_are(&observer, 1).await;
        assert!(leader.is_held());
    }

    async fn a_lock_and_an_election_of_one_name_are_one_queue(world: World) {
        let client = world.observer();
        let guard = client.lock(NAME).acquire().await.unwrap();
        let waiting = candidate(&client, "leader");
        until_candidates_are(&client, 2).await;
        assert!(!waiting.is_finished());
        guard.release().await.unwrap();
        let leader = waiting.await.unwrap().unwrap();
        assert!(client.lock(NAME).try_acquire().await.unwrap().is_none());
        leader.resign().await.unwrap();
    }
}

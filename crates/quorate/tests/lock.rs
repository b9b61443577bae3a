//! Locks: exclusion, order, loss, and nothing left behind.
#![allow(clippy::unwrap_used)] // here a panic is a failed test

#[macro_use]
mod support;

use std::time::Duration;

use futures_util::StreamExt;
use quorate::{
    Client, ErrorKind, Event, KeyRange, Loss, Op, TokenGate, Txn, WatchRequest,
    backend::fault::{CallKind, Calls, Fate, Partition},
};
use support::until;

const NAME: &str = "jobs";
const TTL: Duration = Duration::from_secs(2);

/// The keys in the queue of `NAME`.
async fn queue(client: &Client) -> usize {
    client.lock(NAME).contenders().await.unwrap().len()
}

async fn until_queue_is(client: &Client, length: usize) {
    until("the queue has the right length", async || {
        queue(client).await == length
    })
    .await;
}

scenarios! {
    async fn an_uncontended_acquire_is_one_round_trip(world: World) {
        let ours = world.join();
        ours.client.session().await.unwrap();
        ours.faults.reset_counts();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        assert_eq!(ours.faults.total(), 1);
        assert_eq!(ours.faults.count(CallKind::Txn), 1);
        assert!(guard.is_held());
        guard.release().await.unwrap();
        assert_eq!(queue(&world.observer()).await, 0);
    }

    async fn two_guards_of_one_session_exclude_each_other(world: World) {
        let client = world.observer();
        let first = client.lock(NAME).acquire().await.unwrap();
        let waiting = client.lock(NAME);
        let second = tokio::spawn(async move { waiting.acquire().await });
        until_queue_is(&client, 2).await;
        assert!(!second.is_finished());
        let token = first.token();
        first.release().await.unwrap();
        let second = second.await.unwrap().unwrap();
        assert!(second.token() > token);
        assert_eq!(second.session().lease(), client.session().await.unwrap().lease());
    }

    async fn holders_come_in_the_order_of_asking_whatever_dies_in_between(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let mut waiting = Vec::new();
        let mut clients = Vec::new();
        for place in 0..5 {
            let client = world.observer();
            let lock = client.lock(NAME);
            clients.push(client);
            waiting.push(Some(tokio::spawn(async move { lock.acquire().await })));
            until_queue_is(&observer, place + 2).await;
        }
        // One in the middle gives up, one loses its session, one has its key deleted by hand.
        waiting[1].take().unwrap().abort();
        until_queue_is(&observer, 5).await;
        clients[2].close().await.unwrap();
        until_queue_is(&observer, 4).await;
        let victim = observer.lock(NAME).contenders().await.unwrap()[2].token;
        assert!(observer.lock(NAME).break_hold(victim).await.unwrap());
        let error = waiting[2].take().unwrap().await.unwrap().unwrap_err();
        assert_eq!(error.loss(), Some(Loss::Closed));
        let error = waiting[3].take().unwrap().await.unwrap().unwrap_err();
        assert_eq!(error.loss(), Some(Loss::Deleted));
        assert!(holder.is_held());

        let mut last = holder.token();
        holder.release().await.unwrap();
        for place in [0, 4] {
            let guard = waiting[place].take().unwrap().await.unwrap().unwrap();
            assert!(guard.token() > last);
            last = guard.token();
            guard.release().await.unwrap();
        }
        assert_eq!(queue(&observer).await, 0);
    }

    async fn a_waiter_whose_lease_is_revoked_fails_at_once_and_never_holds(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let ours = world.join();
        let lock = ours.client.lock(NAME);
        let waiter = tokio::spawn(async move { lock.acquire().await });
        until_queue_is(&observer, 2).await;
        let lease = ours.client.session().await.unwrap().lease();
        observer.revoke_lease(lease).await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert!(holder.is_held());
    }

    async fn a_waiter_whose_key_is_gone_when_the_holder_leaves_is_not_told_that_it_holds(
        world: World
    ) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let ours = world.join();
        let lock = ours.client.lock(NAME);
        let waiter = tokio::spawn(async move { lock.acquire().await });
        until_queue_is(&observer, 2).await;
        // Both go in one transaction: no event of the one comes before the other.
        observer
            .txn()
            .then(Op::delete(KeyRange::prefix(format!("{NAME}/"))))
            .commit()
            .await
            .unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.loss(), Some(Loss::Deleted));
        assert_eq!(holder.lost().await, Loss::Deleted);
    }

    async fn a_deleted_key_ends_the_hold(world: World) {
        let observer = world.observer();
        let guard = world.observer().lock(NAME).acquire().await.unwrap();
        let lost = guard.lost();
        assert!(observer.lock(NAME).break_hold(guard.token()).await.unwrap());
        assert_eq!(lost.await, Loss::Deleted);
        assert!(!guard.is_held());
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert!(!observer.lock(NAME).break_hold(quorate::Revision(1)).await.unwrap());
    }

    async fn the_holder_knows_of_its_loss_before_anybody_else_holds(world: World) {
        let ours = world.join();
        let guard = ours.client.lock(NAME).ttl(TTL).acquire().await.unwrap();
        let theirs = world.observer().lock(NAME);
        let rival = tokio::spawn(async move { theirs.acquire().await });
        until_queue_is(&world.observer(), 2).await;
        ours.faults.partition(Partition::Hang);
        assert_eq!(guard.lost().await, Loss::Unreachable);
        assert!(!guard.is_held());
        assert!(!rival.is_finished());
        let rival = rival.await.unwrap().unwrap();
        assert!(rival.token() > guard.token());
        ours.faults.heal();
        // Nothing that comes late gives the hold back.
        assert!(!guard.is_held());
        assert!(rival.is_held());
    }

    async fn a_cancelled_waiter_leaves_the_queue(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let client = world.observer();
        let lock = client.lock(NAME);
        let wait = tokio::time::timeout(Duration::from_millis(300), lock.acquire()).await;
        assert!(wait.is_err());
        until_queue_is(&observer, 1).await;
        drop(holder);
        until_queue_is(&observer, 0).await;
    }

    async fn a_lost_answer_to_the_acquire_leaves_one_entry_at_its_place(world: World) {
        let ours = world.join();
        ours.client.session().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::LoseReply);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let observer = world.observer();
        let contenders = observer.lock(NAME).contenders().await.unwrap();
        assert_eq!(contenders.len(), 1);
        assert_eq!(contenders[0].token, guard.token());
        guard.release().await.unwrap();
        assert_eq!(queue(&observer).await, 0);
    }

    async fn a_lost_request_of_the_acquire_is_sent_again(world: World) {
        let ours = world.join();
        ours.client.session().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::LoseRequest);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        assert_eq!(queue(&world.observer()).await, 1);
        guard.release().await.unwrap();
    }

    async fn a_lost_answer_to_the_release_still_confirms_it(world: World) {
        let ours = world.join();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::LoseReply);
        guard.release().await.unwrap();
        assert_eq!(queue(&world.observer()).await, 0);
    }

    async fn a_late_write_of_a_cancelled_acquire_is_taken_back(world: World) {
        let ours = world.join();
        let observer = world.observer();
        ours.client.session().await.unwrap();
        let late = ours.faults.hold_next(Calls::of(CallKind::Txn));
        let lock = ours.client.lock(NAME);
        let attempt = tokio::spawn(async move { lock.acquire().await });
        // The first attempt is on its way for longer than a call may take; the second succeeds.
        let guard = attempt.await.unwrap().unwrap();
        guard.release().await.unwrap();
        assert_eq!(queue(&observer).await, 0);
        let from = observer.range(KeyRange::all()).await.unwrap().header.revision.next();
        let keys = KeyRange::prefix(format!("{NAME}/"));
        let mut changes = observer.watch(WatchRequest::new(keys).start(from));
        late.let_through();
        // It is applied now, and found, and deleted.
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(changes.next().await.unwrap().unwrap().events);
        }
        assert!(matches!(seen[..], [Event::Put { .. }, Event::Delete { .. }]), "{seen:?}");
        let next = observer.lock(NAME).acquire().await.unwrap();
        assert!(next.is_held());
    }

    async fn a_hold_ends_by_itself_at_its_limit(world: World) {
        let observer = world.observer();
        let limit = Duration::from_millis(500);
        let guard = observer.lock(NAME).max_hold(limit).acquire().await.unwrap();
        assert!(guard.is_held());
        assert_eq!(guard.lost().await, Loss::HoldLimit);
        assert!(!guard.is_held());
        until_queue_is(&observer, 0).await;
    }

    async fn a_busy_lock_is_not_written_to_by_an_attempt(world: World) {
        let observer = world.observer();
        let theirs = world.join();
        let guard = observer.lock(NAME).acquire().await.unwrap();
        theirs.client.session().await.unwrap();
        theirs.faults.reset_counts();
        assert!(theirs.client.lock(NAME).try_acquire().await.unwrap().is_none());
        assert_eq!(theirs.faults.total(), 1);
        assert_eq!(queue(&observer).await, 1);
        guard.release().await.unwrap();
        let guard = theirs.client.lock(NAME).try_acquire().await.unwrap().unwrap();
        assert!(guard.is_held());
    }

    async fn names_that_begin_alike_are_different_locks(world: World) {
        let client = world.observer();
        let inner = client.lock("a/b").acquire().await.unwrap();
        let outer = client.lock("a").acquire().await.unwrap();
        let longer = client.lock("ab").try_acquire().await.unwrap().unwrap();
        outer.release().await.unwrap();
        longer.release().await.unwrap();
        // Only `a/b` is held now, and does not keep anybody from `a`.
        assert!(client.lock("a").try_acquire().await.unwrap().is_some());
        assert!(inner.is_held());
    }

    async fn a_former_holder_writes_nothing_through_its_fence(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let value = guard.fenced("balance");
        value.set("10").await.unwrap();
        observer.lock(NAME).break_hold(guard.token()).await.unwrap();
        let next = observer.lock(NAME).acquire().await.unwrap();
        next.fenced("balance")
            .update(|kv| format!("{}+1", kv.unwrap().value))
            .await
            .unwrap();
        assert_eq!(value.set("0").await.unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(value.get().await.unwrap_err().kind(), ErrorKind::Lost);
        let done = observer
            .txn()
            .when(guard.fence())
            .then(Op::put("balance", "0"))
            .commit()
            .await
            .unwrap();
        assert!(!done.succeeded);
        assert_eq!(observer.get("balance").await.unwrap().unwrap().value, "10+1");
        let mut gate = TokenGate::new();
        gate.seal(next.token()).unwrap();
        assert_eq!(gate.accept(guard.token()).unwrap_err().kind(), ErrorKind::Lost);
    }

    async fn work_under_a_lock_is_dropped_when_the_hold_is_lost(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let lock = ours.client.lock(NAME);
        let work = tokio::spawn(async move {
            lock.run(async |guard| {
                assert!(guard.is_held());
                std::future::pending::<()>().await;
            })
            .await
        });
        until_queue_is(&observer, 1).await;
        let token = observer.lock(NAME).contenders().await.unwrap()[0].token;
        observer.lock(NAME).break_hold(token).await.unwrap();
        assert_eq!(work.await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
        let done = ours.client.lock(NAME).run(async |guard| guard.token()).await.unwrap();
        assert!(done > token);
        assert_eq!(queue(&observer).await, 0);
    }

    async fn a_session_that_is_lost_can_be_closed(world: World) {
        let ours = world.join();
        let session = ours.client.session_with_ttl(TTL).await.unwrap();
        ours.faults.partition(Partition::Hang);
        session.lost().await;
        ours.faults.heal();
        until("the lease is gone", async || {
            !ours.client.leases().await.unwrap().contains(&session.lease())
        })
        .await;
        session.close().await.unwrap();
    }

    async fn an_empty_name_is_refused(world: World) {
        let client = world.observer();
        let error = client.lock("").acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = client.lock("").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    async fn a_key_that_is_no_contender_holds_nobody_up(world: World) {
        let client = world.observer();
        client.put(format!("{NAME}/readme"), "not a contender").await.unwrap();
        client.put(format!("{NAME}/x/1f"), "nor this").await.unwrap();
        let guard = client.lock(NAME).try_acquire().await.unwrap().unwrap();
        assert!(client.lock(NAME).try_acquire().await.unwrap().is_none());
        client.put(format!("{NAME}/late"), "comes between").await.unwrap();
        let waiting = client.lock(NAME);
        let waiter = tokio::spawn(async move { waiting.acquire().await });
        until_queue_is(&client, 2).await;
        guard.release().await.unwrap();
        waiter.await.unwrap().unwrap().release().await.unwrap();
        assert_eq!(client.list(format!("{NAME}/")).await.unwrap().len(), 3);
    }

    async fn an_empty_transaction_is_harmless(world: World) {
        let client = world.observer();
        let backend = client.backend();
        assert!(backend.txn(Txn::new()).await.unwrap().succeeded);
    }
}

//! Locks: exclusion, order, loss, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::join_all};
use quorate::{
    Client, ConnectOptions, ErrorKind, Event, KeyRange, LockGuard, Loss, Op, Result, Revision,
    TokenGate, Txn, WatchRequest,
    backend::{
        Backend, Memory,
        fault::{CallKind, Calls, Fate, Partition},
    },
};
use support::{lagging::Lagging, machine::Machine, until, world::World};
use tokio::{sync::Notify, task::JoinHandle};

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

/// Acquires on a task of its own.
fn waiter(client: &Client) -> JoinHandle<Result<LockGuard>> {
    let lock = client.lock(NAME);
    tokio::spawn(async move { lock.acquire().await })
}

/// Polls a future so many times, and drops it when it would be polled again, or 100 ms later.
async fn poll_only<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let polled = poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        future.as_mut().poll(cx).map(Some)
    });
    let polled = tokio::time::timeout(Duration::from_millis(100), polled);
    polled.await.ok().flatten()
}

scenarios! {
    alone

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
        assert!(!observer.lock(NAME).break_hold(Revision(1)).await.unwrap());
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

    async fn an_update_whose_hold_ends_before_its_write_is_not_done(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let value = guard.fenced("balance");
        value.set("10").await.unwrap();
        let has_read = Notify::new();
        let updated = value.update(|_| {
            ours.faults.next(CallKind::Txn, Fate::DelayRequest(Duration::from_millis(500)));
            has_read.notify_one();
            "0"
        });
        let meanwhile = async {
            has_read.notified().await;
            observer.lock(NAME).break_hold(guard.token()).await.unwrap();
        };
        let (updated, ()) = tokio::join!(updated, meanwhile);
        assert_eq!(updated.unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(observer.get("balance").await.unwrap().unwrap().value, "10");
    }

    async fn an_update_overwrites_nothing_that_it_has_not_read(world: World) {
        let ours = world.join();
        let observer = world.observer();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let value = guard.fenced("balance");
        value.set("10").await.unwrap();
        let has_read = Notify::new();
        let mut is_first = true;
        let updated = value.update(|kv| {
            if std::mem::take(&mut is_first) {
                ours.faults.next(CallKind::Txn, Fate::DelayRequest(Duration::from_millis(500)));
                has_read.notify_one();
            }
            format!("{}+1", kv.unwrap().value)
        });
        let meanwhile = async {
            has_read.notified().await;
            observer.put("balance", "20").await.unwrap();
        };
        let (updated, ()) = tokio::join!(updated, meanwhile);
        updated.unwrap();
        assert_eq!(observer.get("balance").await.unwrap().unwrap().value, "20+1");
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

    async fn a_waiter_whose_own_key_is_deleted_fails_at_once(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let ours = world.join();
        let waiter = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        // Its watch is open: it does not wait until the holder leaves.
        ours.faults.reached(CallKind::Watch, 2).await;
        let victim = observer.lock(NAME).contenders().await.unwrap()[1].token;
        assert!(observer.lock(NAME).break_hold(victim).await.unwrap());
        assert_eq!(waiter.await.unwrap().unwrap_err().loss(), Some(Loss::Deleted));
        assert!(holder.is_held());
    }

    async fn an_own_key_deleted_while_cut_off_is_noticed_after(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let waiter = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        ours.faults.reached(CallKind::Watch, 3).await;
        ours.faults.partition(Partition::Refuse);
        observer.delete(KeyRange::prefix(format!("{NAME}/"))).await.unwrap();
        let others = observer.lock(NAME).try_acquire().await.unwrap().unwrap();
        ours.faults.heal();
        assert_eq!(guard.lost().await, Loss::Deleted);
        assert_eq!(waiter.await.unwrap().unwrap_err().loss(), Some(Loss::Deleted));
        assert!(others.is_held());
    }

    async fn a_waiter_whose_key_was_replaced_does_not_hold_by_its_name(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let ours = world.join();
        let lease = ours.client.session().await.unwrap().lease().to_string();
        // The watch of its own key never opens.
        let _blind = ours.faults.hold_next(Calls::of(CallKind::Watch).touching(&lease));
        let waiter = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        ours.faults.reached(CallKind::Watch, 2).await;
        let key = observer.lock(NAME).contenders().await.unwrap().remove(1).key;
        observer.delete(KeyRange::key(&key)).await.unwrap();
        observer.put(&key, "a stranger's").await.unwrap();
        holder.release().await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.loss(), Some(Loss::Replaced));
        assert_eq!(observer.get(&key).await.unwrap().unwrap().value, "a stranger's");
    }

    async fn one_release_wakes_one_waiter(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let mut waiting = Vec::new();
        for place in 0..5 {
            let ours = world.join();
            waiting.push((waiter(&ours.client), ours));
            until_queue_is(&observer, place + 2).await;
        }
        for (_, ours) in &waiting {
            // Its own key and its predecessor are watched, and it has looked after that.
            ours.faults.reached(CallKind::Watch, 2).await;
            ours.faults.reached(CallKind::Txn, 2).await;
            ours.faults.reset_counts();
        }
        holder.release().await.unwrap();
        let (first, ours) = waiting.remove(0);
        let first = first.await.unwrap().unwrap();
        assert_eq!((ours.faults.total(), ours.faults.count(CallKind::Txn)), (1, 1));
        for (waiter, ours) in &waiting {
            assert_eq!(ours.faults.total(), 0);
            assert!(!waiter.is_finished());
        }
        drop(first);
    }

    async fn a_predecessor_gone_before_the_watch_opens_is_not_waited_for(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let watch = ours.faults.hold_next(Calls::of(CallKind::Watch).touching(holder.key()));
        let waiter = waiter(&ours.client);
        watch.arrived().await;
        holder.release().await.unwrap();
        watch.let_through();
        assert!(waiter.await.unwrap().unwrap().is_held());
    }

    async fn a_predecessor_gone_while_the_watch_is_cut_is_not_waited_for(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let waiter = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        ours.faults.reached(CallKind::Watch, 2).await;
        for _ in 0..3 {
            ours.faults.cut_watches();
            ours.faults.next(CallKind::Watch, Fate::LoseRequest);
            ours.faults.next(CallKind::Watch, Fate::LoseReply);
        }
        holder.release().await.unwrap();
        assert!(waiter.await.unwrap().unwrap().is_held());
    }

    async fn a_hand_over_during_a_partition_of_the_waiter_is_caught_up_with(world: World) {
        for partition in [Partition::Hang, Partition::LoseReplies, Partition::Refuse] {
            let observer = world.observer();
            let ours = world.join();
            let holder = observer.lock(NAME).acquire().await.unwrap();
            let waiter = waiter(&ours.client);
            until_queue_is(&observer, 2).await;
            ours.faults.reached(CallKind::Watch, 2).await;
            ours.faults.partition(partition);
            holder.release().await.unwrap();
            assert_eq!(queue(&observer).await, 1);
            ours.faults.heal();
            waiter.await.unwrap().unwrap().release().await.unwrap();
        }
    }

    async fn a_session_that_is_closed_while_its_key_is_being_made_fails_the_acquire(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        let put = ours.faults.hold_next(CallKind::Txn);
        let waiter = waiter(&ours.client);
        put.arrived().await;
        session.close().await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.loss(), Some(Loss::Closed));
        put.let_through();
        put.applied().await;
        assert_eq!(queue(&observer).await, 0);
    }

    async fn a_session_that_is_lost_while_its_key_is_being_made_fails_the_acquire_at_once(
        world: World
    ) {
        let ours = world.join_with(ConnectOptions::memory().session_ttl(TTL));
        let session = ours.client.session().await.unwrap();
        let lost = session.lost();
        ours.faults.partition(Partition::Hang);
        let waiter = waiter(&ours.client);
        assert_eq!(lost.await, Loss::Unreachable);
        // Long before the call's own deadline.
        let error = tokio::time::timeout(Duration::from_secs(1), waiter).await.unwrap();
        assert_eq!(error.unwrap().unwrap_err().loss(), Some(Loss::Unreachable));
    }

    async fn an_attempt_with_a_lost_answer_or_request_holds_once(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        for fate in [Fate::LoseReply, Fate::LoseRequest, Fate::Double] {
            ours.faults.next(CallKind::Txn, fate);
            let guard = ours.client.lock(NAME).try_acquire().await.unwrap().unwrap();
            assert_eq!(queue(&observer).await, 1);
            assert_eq!(observer.lock(NAME).contenders().await.unwrap()[0].token, guard.token());
            ours.faults.next(CallKind::Txn, fate);
            guard.release().await.unwrap();
            assert_eq!(queue(&observer).await, 0);
        }
        let held = observer.lock(NAME).acquire().await.unwrap();
        for fate in [Fate::LoseReply, Fate::LoseRequest, Fate::Double] {
            ours.faults.next(CallKind::Txn, fate);
            assert!(ours.client.lock(NAME).try_acquire().await.unwrap().is_none());
            assert_eq!(queue(&observer).await, 1);
        }
        assert!(held.is_held());
    }

    async fn a_doubled_acquire_and_release_touch_nobody_else(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::Double);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        assert_eq!(queue(&observer).await, 1);
        let next = waiter(&observer);
        until_queue_is(&observer, 2).await;
        ours.faults.next(CallKind::Txn, Fate::Double);
        guard.release().await.unwrap();
        let next = next.await.unwrap().unwrap();
        assert_eq!(queue(&observer).await, 1);
        assert!(next.is_held());
    }

    async fn a_late_release_touches_no_newer_key(world: World) {
        let observer = world.observer();
        let options = ConnectOptions::memory().timeout(Duration::from_millis(300));
        let ours = world.join_with(options);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let key = guard.key().clone();
        let late = ours.faults.hold_next(CallKind::Txn);
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Timeout);
        // It was sent again, and that was answered.
        until_queue_is(&observer, 0).await;
        let newer = observer.put(&key, "somebody else's").await.unwrap();
        late.let_through();
        late.applied().await;
        let kv = observer.get(&key).await.unwrap().unwrap();
        assert_eq!(kv.create_revision, newer);
    }

    async fn an_acquire_that_is_dropped_at_any_await_leaves_nothing(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let fates = [None, Some(Fate::LoseReply), Some(Fate::Double)];
        for is_held in [false, true] {
            let holder = match is_held {
                true => Some(observer.lock(NAME).acquire().await.unwrap()),
                false => None,
            };
            for times in 1..12 {
                for fate in fates {
                    if let Some(fate) = fate {
                        ours.faults.next(CallKind::Txn, fate);
                    }
                    let lock = ours.client.lock(NAME).ttl(Duration::from_secs(600));
                    drop(poll_only(lock.acquire(), times).await);
                    drop(poll_only(lock.try_acquire(), times).await);
                    ours.faults.heal();
                }
            }
            until_queue_is(&observer, usize::from(is_held)).await;
            // Neither lease nor server-side watch, though answers were lost.
            let leases = usize::from(is_held);
            until("the leases are gone", async || {
                observer.leases().await.unwrap().len() == leases
                    && ours.faults.open_streams(CallKind::Watch) == 0
            })
            .await;
            if let Some(holder) = holder {
                assert!(holder.is_held());
                holder.session().close().await.unwrap();
            }
        }
    }

    async fn a_hold_ends_when_its_guard_is_forgotten_with_a_lost_answer_behind(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.client.session().await.unwrap();
        ours.faults.next(CallKind::Txn, Fate::LoseReply);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        drop(guard);
        drop(ours.client);
        until("everything is gone", async || {
            observer.leases().await.unwrap().is_empty()
                && ours.faults.open_streams(CallKind::Watch) == 0
                && ours.faults.open_streams(CallKind::KeepAlive) == 0
        })
        .await;
    }

    async fn a_waiter_that_is_refused_at_once_still_learns_of_its_loss(world: World) {
        let observer = world.observer();
        let ours = world.join_with(ConnectOptions::memory().session_ttl(TTL));
        let _holder = observer.lock(NAME).acquire().await.unwrap();
        let waiter = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        ours.faults.reached(CallKind::Watch, 2).await;
        // Its watches open again, but it cannot look.
        ours.faults.reset_counts();
        ours.faults.every(CallKind::Txn, Fate::Refuse(ErrorKind::Unavailable));
        ours.faults.cut_watches();
        ours.faults.reached(CallKind::Txn, 3).await;
        let lease = ours.client.session().await.unwrap().lease();
        observer.revoke_lease(lease).await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
    }

    async fn compaction_does_not_hide_the_loss_of_a_key(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        ours.faults.reached(CallKind::Watch, 1).await;
        let second = waiter(&ours.client);
        until_queue_is(&observer, 2).await;
        ours.faults.partition(Partition::Refuse);
        let present = observer.put("x", "y").await.unwrap();
        observer.compact(present, true).await.unwrap();
        ours.faults.heal();
        // It still stands after a compaction, and its loss is seen after one.
        ours.faults.reached(CallKind::Watch, 4).await;
        assert!(guard.is_held());
        ours.faults.partition(Partition::Refuse);
        observer.lock(NAME).break_hold(guard.token()).await.unwrap();
        let present = observer.put("x", "z").await.unwrap();
        observer.compact(present, true).await.unwrap();
        ours.faults.heal();
        assert_eq!(guard.lost().await, Loss::Deleted);
        assert!(second.await.unwrap().unwrap().is_held());
    }

    async fn the_token_is_the_create_revision_of_the_own_key(world: World) {
        let observer = world.observer();
        let guard = observer.lock(NAME).acquire().await.unwrap();
        let waiter = waiter(&observer);
        until_queue_is(&observer, 2).await;
        observer.put("other", "write").await.unwrap();
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap().unwrap();
        let kv = observer.get(guard.key()).await.unwrap().unwrap();
        assert_eq!(guard.token(), kv.create_revision);
        assert_eq!(kv.lease, Some(guard.session().lease()));
    }

    async fn a_release_after_the_session_is_closed_says_that_it_was_lost(world: World) {
        let client = world.observer();
        let guard = client.lock(NAME).acquire().await.unwrap();
        client.close().await.unwrap();
        assert!(!guard.is_held());
        assert_eq!(guard.release().await.unwrap_err().loss(), Some(Loss::Closed));
    }
}

/// The store, seen through a member that is behind by any number of revisions.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_behind_never_shows_a_wrong_place() {
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let observer = Client::with_backend(Arc::clone(&store));
    for behind in 0..12 {
        let holder = observer.lock(NAME).acquire().await.unwrap();
        // What there was before the holder came shows nobody.
        let member = Lagging::new(Arc::clone(&store));
        member.lag(behind);
        let client = Client::with_backend(member);
        client.session().await.unwrap();
        assert!(client.lock(NAME).try_acquire().await.unwrap().is_none());
        let waiter = waiter(&client);
        until_queue_is(&observer, 2).await;
        let late = client.lock(NAME);
        let late = tokio::spawn(async move { late.acquire().await });
        until_queue_is(&observer, 3).await;
        for _ in 0..behind {
            observer.put("other", "write").await.unwrap();
        }
        assert!(!waiter.is_finished() && !late.is_finished());
        holder.release().await.unwrap();
        let second = waiter.await.unwrap().unwrap();
        assert!(second.is_held() && !late.is_finished());
        second.release().await.unwrap();
        late.await.unwrap().unwrap().release().await.unwrap();
    }
}

/// Contenders whose members are all behind, each by another number of revisions.
#[tokio::test(start_paused = true)]
async fn members_that_are_behind_hand_over_one_by_one() {
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let holding: Arc<std::sync::Mutex<Weak<LockGuard>>> = Arc::default();
    let contenders = (0..8).map(|behind| {
        let member = Lagging::new(Arc::clone(&store));
        member.lag(behind);
        let client = Client::with_backend(member);
        let holding = Arc::clone(&holding);
        tokio::spawn(async move {
            let mut last = Revision::ZERO;
            for round in 0..20 {
                let guard = Arc::new(client.lock(NAME).acquire().await.unwrap());
                assert!(guard.token() > last);
                last = guard.token();
                {
                    let mut holding = holding.lock().unwrap();
                    assert!(holding.upgrade().is_none(), "two hold");
                    *holding = Arc::downgrade(&guard);
                }
                tokio::time::sleep(Duration::from_millis(round % 3)).await;
                let guard = Arc::into_inner(guard).unwrap();
                guard.release().await.unwrap();
            }
        })
    });
    for contender in join_all(contenders).await {
        contender.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_of_the_predecessor_is_replaced() {
    let world = World::memory();
    let observer = world.observer();
    let ours = world.join();
    let holder = observer.lock(NAME).acquire().await.unwrap();
    let waiter = waiter(&ours.client);
    ours.faults.reached(CallKind::Watch, 2).await;
    ours.faults.silence_watches();
    holder.release().await.unwrap();
    let guard = tokio::time::timeout(Duration::from_secs(10), waiter).await;
    assert!(guard.unwrap().unwrap().unwrap().is_held());
    assert!(ours.faults.distrusted() >= 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_on_once_everything_is_dropped() {
    let world = World::memory();
    let machine = Machine::new(1.0, 7);
    let options = ConnectOptions::memory().runtime(Arc::new(machine.clone()));
    let ours = world.join_with(options);
    for fate in [Fate::LoseReply, Fate::LoseRequest, Fate::Double] {
        ours.client.session().await.unwrap();
        ours.faults.next(CallKind::Txn, fate);
        let guard = ours.client.lock(NAME).acquire().await.unwrap();
        let waiter = waiter(&ours.client);
        until_queue_is(&world.observer(), 2).await;
        waiter.abort();
        guard.release().await.unwrap();
    }
    drop(ours.client);
    until("no task is left", async || machine.tasks() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_to_all_who_wait_for_it() {
    let world = World::memory();
    let ours = world.join();
    let guard = ours.client.lock(NAME).acquire().await.unwrap();
    let lost = guard.lost();
    let all = join_all((0..3).map(|_| tokio::spawn(lost.clone())));
    assert!(lost.clone().now_or_never().is_none());
    guard.release().await.unwrap();
    for loss in all.await {
        assert_eq!(loss.unwrap(), Loss::Released);
    }
}

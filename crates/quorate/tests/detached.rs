//! Detached holds: they outlive their process, and are renewed and released by their token.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use quorate::{
    Client, ConnectOptions, Detached, ErrorKind, Holder, Op, Revision,
    backend::{
        Backend, Memory,
        fault::{CallKind, Fate, Fault, Partition},
    },
};
use support::{each_seed, until};
use tokio::{task::JoinHandle, time::sleep};

const NAME: &str = "jobs";
const TTL: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(600);

async fn queue(client: &Client) -> usize {
    client.lock(NAME).contenders().await.unwrap().len()
}

async fn until_queue_is(client: &Client, length: usize) {
    until("the queue has the right length", async || {
        queue(client).await == length
    })
    .await;
}

async fn until_leases_are(client: &Client, number: usize) {
    until("there are so many leases", async || {
        client.leases().await.unwrap().len() == number
    })
    .await;
}

/// Acquires on a task of its own.
fn waiter(client: &Client, ttl: Duration) -> JoinHandle<quorate::Result<Detached>> {
    let lock = client.lock(NAME);
    tokio::spawn(async move { lock.acquire_detached(ttl).await })
}

/// How long the lease of the only contender still lives, in whole seconds.
async fn rest(client: &Client) -> Duration {
    let lease = client.lock(NAME).contenders().await.unwrap()[0]
        .lease
        .unwrap();
    client.lease_status(lease).await.unwrap().remaining.unwrap()
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

    async fn a_hold_outlives_its_client_and_ends_with_its_time(world: World) {
        let observer = world.observer();
        let first = world.join();
        let hold = first.client.lock(NAME).acquire_detached(TTL).await.unwrap();
        first.client.close().await.unwrap();
        drop((hold, first));
        sleep(Duration::from_millis(500)).await;
        let contenders = observer.lock(NAME).contenders().await.unwrap();
        assert_eq!(contenders.len(), 1);
        assert!(Holder::from_value(&contenders[0].value).unwrap().detached);
        assert!(observer.lock(NAME).try_acquire().await.unwrap().is_none());
        // Nobody beats, so it ends.
        let next = observer.lock(NAME).acquire().await.unwrap();
        assert!(next.token() > contenders[0].token);
    }

    async fn a_client_that_goes_on_keeps_no_hold_that_it_let_go(world: World) {
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        let hold = ours.client.lock(NAME).acquire_detached(TTL).await.unwrap();
        until_queue_is(&ours.client, 0).await;
        assert_eq!(hold.remaining(), Duration::ZERO);
        assert!(!session.is_lost());
        until_leases_are(&ours.client, 1).await;
    }

    async fn after_a_long_wait_the_whole_time_lies_ahead(world: World) {
        let observer = world.observer();
        let ours = world.join();
        // What two clocks may drift apart is not counted; a machine under load takes its time.
        let least = TTL * if world.is_virtual() { 85 } else { 50 } / 100;
        for more in 0..4 {
            let holder = observer.lock(NAME).acquire().await.unwrap();
            let waiting = waiter(&ours.client, TTL);
            until_queue_is(&observer, 2).await;
            // Longer than it lives if nobody beats for it; and not always as long after a beat.
            sleep(TTL * (5 + more) / 4).await;
            assert!(!waiting.is_finished());
            assert_eq!(queue(&observer).await, 2);
            holder.release().await.unwrap();
            let hold = waiting.await.unwrap().unwrap();
            assert!(hold.remaining() >= least, "{:?}", hold.remaining());
            assert!(rest(&observer).await >= TTL - Duration::from_secs(1));
            until_queue_is(&observer, 0).await;
        }
    }

    async fn another_process_renews_and_releases_by_the_token(world: World) {
        let token = {
            let first = world.join();
            first.client.lock(NAME).acquire_detached(TTL).await.unwrap().token()
        };
        let other = world.observer();
        let lock = other.lock(NAME);
        let lease = lock.contenders().await.unwrap()[0].lease;
        for _ in 0..4 {
            sleep(TTL / 2).await;
            let mut hold = lock.find_detached(token).await.unwrap();
            assert_eq!(hold.remaining(), Duration::ZERO);
            hold.renew(TTL).await.unwrap();
            assert!(hold.remaining() > TTL / 2);
            assert_eq!(hold.token(), token);
        }
        assert_eq!(lock.contenders().await.unwrap()[0].lease, lease);
        let hold = lock.find_detached(token).await.unwrap();
        let fenced = other.txn().when(hold.fence()).then(Op::put("work", "done"));
        assert!(fenced.commit().await.unwrap().succeeded);
        hold.release().await.unwrap();
        assert_eq!(queue(&other).await, 0);
        until_leases_are(&other, 0).await;
        let late = other.txn().when(hold.fence()).then(Op::put("work", "late"));
        assert!(!late.commit().await.unwrap().succeeded);
    }

    async fn a_hold_that_is_gone_is_neither_renewed_nor_released(world: World) {
        let client = world.observer();
        let lock = client.lock(NAME);
        let mut released = lock.acquire_detached(LONG).await.unwrap();
        released.release().await.unwrap();
        let mut deleted = lock.acquire_detached(LONG).await.unwrap();
        let lease = lock.contenders().await.unwrap()[0].lease.unwrap();
        // The lease lives on, without the key.
        client.delete(deleted.key()).await.unwrap();
        assert!(client.lease_status(lease).await.unwrap().remaining.is_some());
        let mut replaced = lock.acquire_detached(LONG).await.unwrap();
        client.delete(replaced.key()).await.unwrap();
        client.put(replaced.key(), "by hand").await.unwrap();
        for hold in [&mut released, &mut deleted, &mut replaced] {
            assert_eq!(hold.renew(LONG).await.unwrap_err().kind(), ErrorKind::Lost);
            assert_eq!(hold.release().await.unwrap_err().kind(), ErrorKind::Lost);
            let found = lock.find_detached(hold.token()).await;
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Lost);
        }
        client.delete(replaced.key()).await.unwrap();
        let next = lock.acquire_detached(LONG).await.unwrap();
        assert!(next.token() > replaced.token());
    }

    async fn a_token_is_good_for_one_name_and_one_hold(world: World) {
        let client = world.observer();
        let hold = client.lock(NAME).acquire_detached(LONG).await.unwrap();
        let kind_of = async |name: &str, token: Revision| {
            client.lock(name).find_detached(token).await.unwrap_err().kind()
        };
        let token = hold.token();
        for name in ["job", "jobs/", "jobs/x", "other"] {
            assert_eq!(kind_of(name, token).await, ErrorKind::Lost, "{name}");
        }
        for token in [0, -1, i64::MIN, i64::MAX, token.0 - 1, token.0 + 1] {
            assert_eq!(kind_of(NAME, Revision(token)).await, ErrorKind::Lost, "{token}");
        }
        assert_eq!(kind_of("", token).await, ErrorKind::InvalidArgument);
        // Who waits does not hold, and who is there holds for itself.
        let waiting = waiter(&client, LONG);
        until_queue_is(&client, 2).await;
        let second = client.lock(NAME).contenders().await.unwrap()[1].token;
        assert_eq!(kind_of(NAME, second).await, ErrorKind::Lost);
        hold.release().await.unwrap();
        let second_hold = waiting.await.unwrap().unwrap();
        assert_eq!(second_hold.token(), second);
        second_hold.release().await.unwrap();
        let guard = client.lock(NAME).acquire().await.unwrap();
        assert_eq!(kind_of(NAME, guard.token()).await, ErrorKind::InvalidArgument);
        assert!(guard.is_held());
    }

    async fn a_hold_needs_a_time(world: World) {
        let client = world.observer();
        let refused = client.lock(NAME).acquire_detached(Duration::ZERO).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let mut hold = client.lock(NAME).acquire_detached(TTL).await.unwrap();
        let refused = hold.renew(Duration::ZERO).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(queue(&client).await, 1);
    }

    async fn a_time_that_no_store_grants_is_refused(world: World) {
        // What two clocks may drift apart takes nothing from it.
        let ours = world.join_with(ConnectOptions::memory().drift(0.0));
        let lock = ours.client.lock(NAME);
        let refused = lock.acquire_detached(Duration::MAX).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let mut hold = lock.acquire_detached(LONG).await.unwrap();
        let refused = hold.renew(Duration::MAX).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        // It goes on as it was.
        assert_eq!(queue(&ours.client).await, 1);
        assert!(hold.remaining() > LONG / 2);
        until_leases_are(&ours.client, 1).await;
    }

    async fn a_renewal_may_make_the_time_longer_or_shorter(world: World) {
        let client = world.observer();
        let mut hold = client.lock(NAME).acquire_detached(TTL).await.unwrap();
        hold.renew(LONG).await.unwrap();
        assert!(hold.remaining() > LONG / 2);
        until_leases_are(&client, 1).await;
        sleep(TTL * 2).await;
        assert!(rest(&client).await > LONG / 2);
        hold.renew(TTL).await.unwrap();
        assert!(hold.remaining() < TTL);
        until_leases_are(&client, 1).await;
        until_queue_is(&client, 0).await;
        until_leases_are(&client, 0).await;
    }

    async fn a_renewal_whose_new_lease_ends_on_the_way_is_made_again(world: World) {
        let (ours, observer) = (world.join(), world.observer());
        let mut hold = ours.client.lock(NAME).acquire_detached(TTL * 4).await.unwrap();
        let old = observer.leases().await.unwrap();
        let late = ours.faults.hold_next(CallKind::Txn);
        let renewal = tokio::spawn(async move { hold.renew(LONG).await.map(|()| hold) });
        late.arrived().await;
        for lease in observer.leases().await.unwrap() {
            if !old.contains(&lease) {
                observer.revoke_lease(lease).await.unwrap();
            }
        }
        late.let_through();
        let hold = renewal.await.unwrap().unwrap();
        assert!(hold.remaining() > LONG / 2 && rest(&observer).await > LONG / 2);
        until_leases_are(&observer, 1).await;
    }

    async fn a_renewal_that_arrives_late_takes_nothing_from_a_later_one(world: World) {
        let first = world.join();
        let mut hold = first.client.lock(NAME).acquire_detached(LONG).await.unwrap();
        let late = first.faults.hold_next(CallKind::Txn);
        let mut same = hold.clone();
        let renewal = tokio::spawn(async move { same.renew(TTL).await });
        late.arrived().await;
        renewal.abort();
        hold.renew(LONG).await.unwrap();
        late.let_through();
        late.applied().await;
        // Had it been moved then, it would end when the first one said.
        let observer = world.observer();
        assert!(rest(&observer).await > LONG / 2);
        until_leases_are(&observer, 1).await;
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
            for times in 1..14 {
                for fate in fates {
                    if let Some(fate) = fate {
                        ours.faults.next(CallKind::Txn, fate);
                    }
                    let lock = ours.client.lock(NAME);
                    if let Some(hold) = poll_only(lock.acquire_detached(LONG), times).await {
                        hold.unwrap().release().await.unwrap();
                    }
                    ours.faults.heal();
                }
            }
            until_queue_is(&observer, usize::from(is_held)).await;
            until_leases_are(&observer, usize::from(is_held)).await;
            if let Some(holder) = holder {
                assert!(holder.is_held());
                holder.session().close().await.unwrap();
            }
        }
    }

    async fn a_waiter_whose_lease_is_revoked_fails_at_once(world: World) {
        let observer = world.observer();
        let holder = observer.lock(NAME).acquire().await.unwrap();
        let ours = world.join();
        let waiting = waiter(&ours.client, LONG);
        until_queue_is(&observer, 2).await;
        let lease = observer.lock(NAME).contenders().await.unwrap()[1].lease.unwrap();
        observer.revoke_lease(lease).await.unwrap();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert!(holder.is_held());
        until_queue_is(&observer, 1).await;
    }

    async fn an_acquire_without_a_confirmed_last_beat_fails_and_leaves_nothing(world: World) {
        let ours = world.join();
        // The claim is made, and then no answer to any beat comes.
        ours.faults.every(CallKind::KeepAlive, Fate::LoseReply);
        let error = ours.client.lock(NAME).acquire_detached(TTL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        ours.faults.heal();
        let observer = world.observer();
        until_queue_is(&observer, 0).await;
        until_leases_are(&observer, 0).await;
    }

    async fn a_last_beat_whose_answer_is_lost_is_sent_again(world: World) {
        let ours = world.join();
        ours.faults.drop_beats(2);
        let hold = ours.client.lock(NAME).acquire_detached(TTL * 2).await.unwrap();
        assert!(hold.remaining() > TTL);
    }

    async fn writes_with_lost_answers_are_found_out(world: World) {
        let ours = world.join();
        for fate in [Fate::LoseReply, Fate::Double, Fate::LoseRequest] {
            ours.faults.next(CallKind::Txn, fate);
            let mut hold = ours.client.lock(NAME).acquire_detached(LONG).await.unwrap();
            for ttl in [LONG, TTL * 4, LONG] {
                ours.faults.next(CallKind::Txn, fate);
                hold.renew(ttl).await.unwrap();
                assert!(hold.remaining() > ttl / 2);
            }
            ours.faults.next(CallKind::Txn, fate);
            hold.release().await.unwrap();
            ours.faults.heal();
            assert_eq!(queue(&ours.client).await, 0);
        }
        assert_eq!(queue(&ours.client).await, 0);
    }

    async fn renewals_at_the_same_time_agree(world: World) {
        let ours = world.join();
        let hold = ours.client.lock(NAME).acquire_detached(LONG).await.unwrap();
        let renewals: Vec<_> = (0..4)
            .map(|number| {
                let mut hold = hold.clone();
                let ttl = TTL * (2 + number % 2);
                tokio::spawn(async move { hold.renew(ttl).await })
            })
            .collect();
        for renewal in renewals {
            renewal.await.unwrap().unwrap();
        }
        assert_eq!(queue(&ours.client).await, 1);
        until_leases_are(&ours.client, 1).await;
    }
}

/// Whoever believes that it holds is the only one, whatever is lost on the way.
#[test]
fn beliefs_never_overlap() {
    each_seed(40, |seed| async move {
        let store = Arc::new(Memory::new());
        let believer = Arc::new(Mutex::new(None::<usize>));
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut number = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut tasks = Vec::new();
        for id in 0..4 {
            let fault = Fault::new(Arc::clone(&store) as Arc<dyn Backend>);
            let faults = fault.faults();
            let client = Client::with_backend_and(Arc::new(fault), ConnectOptions::memory());
            let believer = Arc::clone(&believer);
            let mut seeds: Vec<u64> = (0..64).map(|_| number(u64::MAX)).collect();
            tasks.push(tokio::spawn(async move {
                for _ in 0..12 {
                    let step = seeds.pop().unwrap();
                    match step % 6 {
                        0 => faults.partition(Partition::Hang),
                        1 => faults.partition(Partition::LoseReplies),
                        2 => faults.next(CallKind::Txn, Fate::DelayRequest(TTL)),
                        3 => faults.next(CallKind::Txn, Fate::DelayReply(TTL)),
                        4 => faults.delay_beats(2, TTL),
                        _ => faults.next(CallKind::Txn, Fate::LoseReply),
                    }
                    let healer = faults.clone();
                    let pause = Duration::from_millis(step / 7 % 5000);
                    tokio::spawn(async move {
                        sleep(pause).await;
                        healer.heal();
                    });
                    let Ok(mut hold) = client.lock(NAME).acquire_detached(TTL).await else {
                        continue;
                    };
                    for _ in 0..step % 3 {
                        believe(&believer, id, &hold).await;
                        let ttl = Duration::from_secs(2 + seeds.pop().unwrap_or(0) % 4);
                        if hold.renew(ttl).await.is_err() {
                            break;
                        }
                    }
                    believe(&believer, id, &hold).await;
                    if !step.is_multiple_of(5) {
                        let _ = hold.release().await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Believes for all the time that remains, and is alone in it.
async fn believe(believer: &Mutex<Option<usize>>, id: usize, hold: &Detached) {
    let rest = hold.remaining();
    if rest.is_zero() {
        return;
    }
    let other = believer.lock().unwrap().replace(id);
    assert_eq!(other, None, "{id} holds as well");
    sleep(rest.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(believer.lock().unwrap().take(), Some(id));
}

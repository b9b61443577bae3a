//! Ephemeral keys in rare moments: answers and requests that come late, stores that are exchanged,
//! runtimes that end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

#[macro_use]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use quorate::{
    Client, ConnectOptions, ErrorKind, Moment, Runtime, TokioRuntime,
    backend::{
        Memory,
        etcd::{Etcd, EtcdOptions},
        fault::{CallKind, Calls, Fate, Fault},
    },
};
use support::until;

const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "workers/7";

scenarios! {
    alone

    async fn a_move_to_the_next_session_that_arrives_late_is_no_conflict(world: World) {
        let observer = world.observer();
        let options = ConnectOptions::memory().session_ttl(SECOND * 6).timeout(SECOND);
        let ours = world.join_with(options);
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let (token, first) = (key.token(), ours.client.session().await.unwrap());
        // The server hears every beat, and not that the session is over here.
        ours.faults.drop_beats(u32::MAX);
        let writes = || Calls::of(CallKind::Txn).touching(KEY);
        // It looks first.
        let pass = || ours.faults.next(writes(), Fate::DelayReply(Duration::ZERO));
        pass();
        let early = ours.faults.hold_next(writes());
        ours.faults.every(CallKind::Revoke, Fate::Refuse(ErrorKind::Unavailable));
        first.lost().await;
        early.arrived().await;
        ours.faults.heal();
        ours.faults.every(CallKind::Revoke, Fate::Refuse(ErrorKind::Unavailable));
        // The first attempt gets no answer, the second finds the key as it was, and the third meets
        // what the first did.
        pass();
        let late = ours.faults.hold_next(writes());
        late.arrived().await;
        early.let_through();
        early.applied().await;
        late.let_through();
        until("the key is held", async || key.is_held()).await;
        let there = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!((there.create_revision, key.token()), (token, token));
        assert_ne!(there.lease, Some(first.lease()));
        key.release().await.unwrap();
        assert!(observer.get(KEY).await.unwrap().is_none());
    }

    async fn a_value_set_again_is_not_undone_by_what_was_set_between(world: World) {
        let observer = world.observer();
        let ours = world.join_with(ConnectOptions::memory().timeout(SECOND));
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let held = ours.faults.hold_next(Calls::of(CallKind::Txn).touching(KEY));
        assert!(key.set("busy").await.unwrap_err().is_indefinite());
        key.set("idle").await.unwrap();
        let written = observer.get(KEY).await.unwrap().unwrap();
        assert_eq!(written.value, "idle");
        held.let_through();
        held.applied().await;
        assert_eq!(observer.get(KEY).await.unwrap().unwrap(), written);
    }

    async fn a_key_that_could_not_be_watched_for_a_while_comes_back(world: World) {
        let observer = world.observer();
        let ours = world.join();
        ours.faults.next(CallKind::Watch, Fate::Refuse(ErrorKind::PermissionDenied));
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        ours.faults.reached(CallKind::Watch, 1).await;
        let token = key.token();
        observer.delete(KEY).await.unwrap();
        until("it is back", async || key.is_held() && key.token() > token).await;
        until("it is watched", async || ours.faults.open_streams(CallKind::Watch) == 1).await;
    }

    async fn a_key_whose_deletion_was_refused_is_deleted_later(world: World) {
        let observer = world.observer();
        let ours = world.join();
        let key = ours.client.ephemeral(KEY).create("idle").await.unwrap();
        let calls = Calls::of(CallKind::Txn).touching(KEY);
        ours.faults.next(calls, Fate::Refuse(ErrorKind::Unauthenticated));
        let error = key.release().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        until("it is gone", async || observer.get(KEY).await.unwrap().is_none()).await;
        until("nothing is watched", async || ours.faults.open_streams(CallKind::Watch) == 0).await;
        ours.client.ephemeral(KEY).create("next").await.unwrap().release().await.unwrap();
    }

    async fn an_answer_to_a_former_owner_is_none_to_the_next(world: World) {
        let ours = world.join();
        let session = ours.client.session().await.unwrap();
        let calls = Calls::of(CallKind::Txn).touching(KEY);
        ours.faults.next(calls, Fate::DelayReply(SECOND));
        let former = ours.client.ephemeral(KEY).create(vec![b'x'; 2 << 20]);
        let next = async {
            ours.faults.reached(CallKind::Txn, 1).await;
            session.close().await.unwrap();
            ours.client.ephemeral(KEY).create("next").await
        };
        let (former, next) = tokio::join!(former, next);
        assert_eq!(former.unwrap_err().kind(), ErrorKind::Lost);
        assert!(next.unwrap().is_held());
    }
}

async fn until_it_stands_again_after(client: &Client, key: &quorate::EphemeralKey) {
    let token = key.token();
    client.delete(KEY).await.unwrap();
    until("another incarnation is held", async || {
        key.is_held() && key.token() > token
    })
    .await;
    let there = client.get(KEY).await.unwrap().unwrap();
    assert_eq!(there.create_revision, key.token());
}

#[tokio::test]
async fn a_key_stands_and_is_watched_in_a_store_that_lost_its_data() {
    for watch_notices in [true, false] {
        let cluster = support::etcd::Cluster::builder().start();
        let connect = || {
            let options = EtcdOptions {
                endpoints: cluster.endpoints(),
                ..Default::default()
            };
            Arc::new(Etcd::new(options).unwrap())
        };
        let fault = Fault::new(connect());
        let faults = fault.faults();
        let client = Client::with_backend(Arc::new(fault));
        for _ in 0..30 {
            client.put("clock", "").await.unwrap();
        }
        let key = client.ephemeral(KEY).create("idle").await.unwrap();
        until("it is watched", async || {
            faults.open_streams(CallKind::Watch) == 1
        })
        .await;
        faults.reset_counts();
        if watch_notices {
            faults.every(CallKind::Txn, Fate::Refuse(ErrorKind::Unavailable));
        } else {
            faults.every(CallKind::Watch, Fate::Refuse(ErrorKind::Unavailable));
        }
        cluster.wipe(0);
        cluster.restart(0);
        if watch_notices {
            // It asks for the revision of the store.
            faults.reached(CallKind::Range, 1).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let observer = Client::with_backend(connect());
        if !watch_notices {
            until("it stands again", async || {
                observer.get(KEY).await.is_ok_and(|there| there.is_some())
            })
            .await;
        }
        faults.heal();
        until("it is held", async || {
            let there = observer.get(KEY).await.ok().flatten();
            key.is_held() && there.is_some_and(|kv| kv.create_revision == key.token())
        })
        .await;
        until_it_stands_again_after(&observer, &key).await;
        key.release().await.unwrap();
        assert!(observer.get(KEY).await.unwrap().is_none());
    }
}

/// Drops every task but the first few, as a runtime does that is being shut down.
#[derive(Debug)]
struct Ending {
    runtime: TokioRuntime,
    left: AtomicUsize,
}

impl Runtime for Ending {
    fn now(&self) -> Moment {
        self.runtime.now()
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        self.runtime.sleep_until(moment)
    }

    fn random(&self) -> u64 {
        self.runtime.random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let less = |left: usize| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
        {
            self.runtime.spawn(task);
        }
    }
}

#[test]
fn nothing_hangs_while_the_runtime_ends() {
    for tasks in 0..4 {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let ending = Ending {
                    runtime: TokioRuntime::new(),
                    left: AtomicUsize::new(tasks),
                };
                let options = ConnectOptions::memory()
                    .timeout(SECOND)
                    .runtime(Arc::new(ending));
                let client = Client::with_backend_and(Arc::new(Memory::new()), options);
                for _ in 0..2 {
                    let _ = client.ephemeral(KEY).create("idle").await;
                    let _ = client.session().await;
                }
            });
            tell.send(()).unwrap();
        });
        let ended = told.recv_timeout(Duration::from_secs(20));
        assert!(ended.is_ok(), "hangs after {tasks} tasks");
    }
}

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quorate_engine::{Op, WatchBatch};
use tokio::time::{Instant, timeout};

use super::*;
use crate::{
    ErrorKind,
    backend::recorder::{Recorder, header},
};

const SECOND: Duration = Duration::from_secs(1);

fn fault() -> (Arc<Recorder>, Arc<Fault>, Faults) {
    let recorder = Recorder::new();
    let fault = Arc::new(Fault::new(Arc::new(Arc::clone(&recorder))));
    let faults = fault.faults();
    (recorder, fault, faults)
}

fn put(key: &str) -> Txn {
    Txn::new().then(Op::put(key, "1"))
}

fn batch(revision: i64) -> WatchBatch {
    WatchBatch {
        header: header(revision),
        events: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn idle_it_adds_no_await_point() {
    let (recorder, fault, faults) = fault();
    fault
        .range(Range::new("a"))
        .now_or_never()
        .unwrap()
        .unwrap();
    fault.txn(put("a")).now_or_never().unwrap().unwrap();
    fault
        .grant(LeaseId(1), SECOND)
        .now_or_never()
        .unwrap()
        .unwrap();
    assert_eq!(recorder.lock().txns.len(), 1);
    assert_eq!(faults.count(CallKind::Txn), 1);
    assert_eq!(faults.total(), 3);
    faults.reset_counts();
    assert_eq!(faults.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_partition_delivers_what_waited_when_it_heals() {
    let (recorder, fault, faults) = fault();
    faults.partition(Partition::Hang);
    let mut call = fault.txn(put("a"));
    assert!(timeout(SECOND, &mut call).await.is_err());
    assert!(recorder.lock().txns.is_empty());
    faults.heal();
    call.await.unwrap();
    assert_eq!(recorder.lock().txns.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusing_partition_fails_calls_at_once_and_cuts_streams() {
    let (recorder, fault, faults) = fault();
    let mut watch = fault.watch(WatchRequest::new("a")).await.unwrap().stream;
    let mut beats = fault.keep_alive().await.unwrap();
    faults.partition(Partition::Refuse);
    let error = fault.txn(put("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.is_indefinite() && recorder.lock().txns.is_empty());
    assert!(beats.send(LeaseId(1)).is_err());
    assert!(beats.next().await.unwrap().is_err());
    faults.heal();
    assert!(watch.next().await.unwrap().is_err());
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_one_way_cut_applies_what_is_sent_and_answers_nothing() {
    let (recorder, fault, faults) = fault();
    let mut beats = fault.keep_alive().await.unwrap();
    faults.partition(Partition::LoseReplies);
    let mut call = fault.txn(put("a"));
    assert!(timeout(SECOND, &mut call).await.is_err());
    beats.send(LeaseId(1)).unwrap();
    assert!(timeout(SECOND, beats.next()).await.is_err());
    assert_eq!(recorder.lock().txns.len(), 1);
    assert_eq!(recorder.lock().beats, [LeaseId(1)]);
    faults.heal();
    assert!(call.await.unwrap_err().is_indefinite());
    assert_eq!(beats.next().await.unwrap().unwrap().lease, LeaseId(1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_indefinite_and_applied_and_a_lost_request_is_not_applied() {
    let (recorder, fault, faults) = fault();
    faults.next(Calls::of(CallKind::Txn).touching("lock/"), Fate::LoseReply);
    faults.next(CallKind::Txn, Fate::LoseRequest);
    // The first fate is not for this call, the second is.
    assert!(fault.txn(put("other")).await.unwrap_err().is_indefinite());
    assert!(recorder.lock().txns.is_empty());
    let nested = Txn::new().then(put("a/lock/b"));
    assert!(fault.txn(nested).await.unwrap_err().is_indefinite());
    assert_eq!(recorder.lock().txns.len(), 1);
    fault.txn(put("lock/b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_is_never_indefinite() {
    let (_, fault, faults) = fault();
    faults.every(Calls::any(), Fate::LoseReply);
    assert!(
        !fault
            .range(Range::new("a"))
            .await
            .unwrap_err()
            .is_indefinite()
    );
    let reads = Txn::new().then(Op::range("a"));
    assert!(!fault.txn(reads).await.unwrap_err().is_indefinite());
    let grant = fault.grant(LeaseId(1), SECOND).await;
    assert!(grant.unwrap_err().is_indefinite());
}

#[tokio::test(start_paused = true)]
async fn fates_of_the_next_call_meet_one_call_each() {
    let (recorder, fault, faults) = fault();
    faults.next(CallKind::Grant, Fate::Refuse(ErrorKind::PermissionDenied));
    faults.next(CallKind::Grant, Fate::Double);
    let refused = fault.grant(LeaseId(1), SECOND).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    for id in [2, 3] {
        fault.grant(LeaseId(id), SECOND).await.unwrap();
    }
    assert_eq!(recorder.lock().granted, [2, 2, 3].map(LeaseId));
}

#[tokio::test(start_paused = true)]
async fn delays_of_requests_and_replies_add_up() {
    let (_, fault, faults) = fault();
    faults.every(Calls::any(), Fate::DelayRequest(SECOND));
    faults.every(CallKind::Range, Fate::DelayReply(SECOND));
    let start = Instant::now();
    fault.range(Range::new("a")).await.unwrap();
    assert_eq!(start.elapsed(), 2 * SECOND);
    fault.txn(put("a")).await.unwrap();
    assert_eq!(start.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_held_request_arrives_though_its_caller_is_gone() {
    let (recorder, fault, faults) = fault();
    let held = faults.hold_next(CallKind::Txn);
    assert!(timeout(SECOND, fault.txn(put("late"))).await.is_err());
    held.arrived().await;
    fault.txn(put("early")).await.unwrap();
    held.let_through();
    held.applied().await;
    assert_eq!(recorder.lock().txns, [put("early"), put("late")]);
}

#[tokio::test(start_paused = true)]
async fn a_held_request_is_lost_with_its_handle() {
    let (recorder, fault, faults) = fault();
    let held = faults.hold_next(CallKind::Txn);
    let task = tokio::spawn({
        let fault = Arc::clone(&fault);
        async move { fault.txn(put("a")).await }
    });
    held.arrived().await;
    drop(held);
    assert!(task.await.unwrap().unwrap_err().is_indefinite());
    assert!(recorder.lock().txns.is_empty());
    // One that was dropped before it met a call concerns none.
    drop(faults.hold_next(CallKind::Txn));
    fault.txn(put("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_when_all_is_healed() {
    let (recorder, fault, faults) = fault();
    faults.next(CallKind::Txn, Fate::HangReply);
    faults.next(CallKind::Txn, Fate::HangRequest);
    let mut calls = [fault.txn(put("a")), fault.txn(put("b"))];
    for call in &mut calls {
        assert!(timeout(SECOND, call).await.is_err());
    }
    assert_eq!(recorder.lock().txns, [put("a")]);
    faults.heal();
    for call in calls {
        assert!(call.await.unwrap_err().is_indefinite());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_tells_later_and_a_new_one_at_once() {
    let (recorder, fault, faults) = fault();
    let mut silent = fault.watch(WatchRequest::new("a")).await.unwrap().stream;
    faults.silence_watches();
    recorder.tell(batch(4));
    assert!(timeout(SECOND, silent.next()).await.is_err());
    silent.request_progress();
    silent.distrust();
    assert_eq!(recorder.lock().progress_requests, 0);
    assert_eq!(faults.distrusted(), 1);
    let next = tokio::spawn(async move { silent.next().await.unwrap().unwrap() });
    let mut other = fault.watch(WatchRequest::new("a")).await.unwrap().stream;
    recorder.tell(batch(5));
    assert_eq!(other.next().await.unwrap().unwrap(), batch(5));
    faults.heal();
    assert_eq!(next.await.unwrap(), batch(4));
}

#[tokio::test(start_paused = true)]
async fn a_cut_reaches_a_watch_that_is_waited_on() {
    let (recorder, fault, faults) = fault();
    let mut stream = fault.watch(WatchRequest::new("a")).await.unwrap().stream;
    let end = tokio::spawn(async move { (stream.next().await, stream.next().await) });
    tokio::task::yield_now().await;
    faults.cut_watches();
    let (error, none) = end.await.unwrap();
    assert_eq!(error.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(none.is_none());
    assert!(recorder.lock().watcher.as_ref().unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn delayed_events_keep_their_order_and_come_before_the_end() {
    let (recorder, fault, faults) = fault();
    let mut stream = fault.watch(WatchRequest::new("a")).await.unwrap().stream;
    let start = Instant::now();
    faults.delay_events(SECOND);
    recorder.tell(batch(4));
    assert!(timeout(SECOND / 2, stream.next()).await.is_err());
    faults.delay_events(Duration::ZERO);
    recorder.tell(batch(5));
    recorder.lock().watcher = None;
    assert_eq!(stream.next().await.unwrap().unwrap(), batch(4));
    assert_eq!(stream.next().await.unwrap().unwrap(), batch(5));
    assert!(stream.next().await.is_none());
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn answers_to_beats_are_dropped_and_delayed_by_number() {
    let (recorder, fault, faults) = fault();
    let mut beats = fault.keep_alive().await.unwrap();
    let start = Instant::now();
    faults.drop_beats(2);
    faults.delay_beats(1, SECOND);
    for lease in 1..=4 {
        beats.send(LeaseId(lease)).unwrap();
    }
    assert_eq!(recorder.lock().beats.len(), 4);
    assert_eq!(faults.beats(), 4);
    assert_eq!(beats.next().await.unwrap().unwrap().lease, LeaseId(3));
    assert_eq!(beats.next().await.unwrap().unwrap().lease, LeaseId(4));
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn beats_of_a_silent_stream_arrive_late_in_order() {
    let (recorder, fault, faults) = fault();
    let mut beats = fault.keep_alive().await.unwrap();
    faults.silence_beats();
    beats.send(LeaseId(1)).unwrap();
    assert!(timeout(SECOND, beats.next()).await.is_err());
    assert!(recorder.lock().beats.is_empty());
    faults.heal();
    beats.send(LeaseId(2)).unwrap();
    assert_eq!(recorder.lock().beats, [1, 2].map(LeaseId));
    faults.cut_beats();
    assert!(beats.next().await.unwrap().is_err());
    assert!(beats.send(LeaseId(3)).is_err());
}

#[tokio::test(start_paused = true)]
async fn opening_a_watch_can_fail_and_be_waited_for() {
    let (_, fault, faults) = fault();
    faults.next(CallKind::Watch, Fate::Refuse(ErrorKind::Unavailable));
    let opened = tokio::spawn({
        let faults = faults.clone();
        async move { faults.reached(CallKind::Watch, 2).await }
    });
    assert!(fault.watch(WatchRequest::new("a")).await.is_err());
    fault.watch(WatchRequest::new("a")).await.unwrap();
    opened.await.unwrap();
}
